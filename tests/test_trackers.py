"""Results are logged to wandb (offline), MLflow (a SQLite store) and TensorBoard, by their own libraries."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from made_problem import make_problem
from trial_runs import run

from promptsearch.runs import RunRecord

TEMPLATES = ["a photo of a {}.", "a sketch of a {}.", "a {} at night.", "an old picture of the {}."]
MADE = ["--model", "tiny", "--dataset", "made", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bank.txt").write_text("\n".join(TEMPLATES))
    make_problem(tmp_path / "cache", TEMPLATES)
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TENSORBOARD_LOGDIR"):
        monkeypatch.delenv(name, raising=False)


def search(*args: str, code: int = 0) -> Any:
    own = ["--bank", "bank.txt", "--shots", 4, "--trials", 12, "--study", "mine", "--no-estimate"]
    return run("random", *MADE, *own, *args, code=code)


def expected() -> tuple[dict[str, Any], list[float]]:
    """The result document, and the cross-entropies that were the best so far."""
    record = RunRecord.load("mine")
    assert record.result is not None
    best: list[float] = []
    for _, score in record.trials():
        if not best or score.xent < best[-1]:
            best.append(score.xent)
    return record.result, best


def test_tensorboard_has_the_steps_the_figures_the_winner_and_the_report(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'promptsearch[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the same command again is the same run there
        search("--log-to", "tensorboard")
        document, best = expected()
        events = EventAccumulator(str(tmp_path / "runs" / "mine")).Reload()
        assert [s.value for s in events.Scalars("best/xent")] == pytest.approx(best)
        (test,) = events.Scalars("test/accuracy/winner")
        assert test.value == pytest.approx(document["winner"]["test"]["accuracy"])
        assert events.Scalars("test/accuracy/hand-written")
        (winner,) = events.Tensors("winner/text_summary")
        assert document["winner"]["templates"][0] in winner.tensor_proto.string_val[0].decode()
    page = (tmp_path / "runs" / "mine" / "report.html").read_text()
    assert "<html" in page and document["winner"]["templates"][0] in page


def test_mlflow_has_one_run_with_the_steps_the_figures_the_winner_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'promptsearch[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient()
    for _ in range(2):
        search("--log-to", "mlflow")
        document, best = expected()
        experiment = client.get_experiment_by_name("promptsearch")
        (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "mine" and found.data.params["command"] == "random"
    history = sorted({(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "best/xent")})
    assert [value for _, value in history] == pytest.approx(best)
    assert found.data.metrics["test/accuracy/winner"] == pytest.approx(document["winner"]["test"]["accuracy"])
    store = Path(found.info.artifact_uri.removeprefix("file://"))
    assert document["winner"]["templates"][0] in (store / "winner.md").read_text()
    assert "<html" in (store / "report.html").read_text()


#: Prints what wandb wrote offline: records in blocks of 32 KiB, each part with its checksum, length and kind.
WANDB = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2 as pb

def records(data):
    at, parts = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if not kind:
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""

def items(found):
    return {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in found}
rows = {"history": [], "summary": {}, "artifacts": [], "runs": []}
for data in records(open(sys.argv[1], "rb").read()):
    record = pb.Record()
    record.ParseFromString(data)
    kind = record.WhichOneof("record_type")
    if kind == "run":
        rows["runs"].append([record.run.project, record.run.display_name, record.run.run_id])
    if kind == "history":
        rows["history"].append(items(record.history.item))
    if kind == "summary":
        rows["summary"].update(items(record.summary.update))
    if kind == "artifact":
        rows["artifacts"].append([record.artifact.type, [e.path for e in record.artifact.manifest.contents]])
    if kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
        artifact = record.request.log_artifact.artifact
        rows["artifacts"].append([artifact.type, [e.path for e in artifact.manifest.contents]])
print(json.dumps(rows))
"""


def test_wandb_offline_has_one_run_with_the_steps_the_figures_the_winner_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install 'promptsearch[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    search("--log-to", "wandb")
    document, best = expected()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", WANDB, str(file)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {tuple(r[:2]) for r in rows["runs"]} == {("promptsearch", "mine")}
    assert [r["best/xent"] for r in rows["history"] if "best/xent" in r] == pytest.approx(best)
    assert rows["summary"]["test/accuracy/winner"] == pytest.approx(document["winner"]["test"]["accuracy"])
    assert document["winner"]["templates"][0] in rows["summary"]["winner"]
    assert ["report", ["report.html"]] in rows["artifacts"]


def test_a_comparison_is_logged_with_the_accuracy_of_each_method(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'promptsearch[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    own = [
        "--bank",
        "bank.txt",
        "--shots",
        "2",
        "--seeds",
        1,
        "--methods",
        "hand-written,single",
        "--against",
        "single",
    ]
    shown = run("compare", *MADE, *own, "--study", "both", "--log-to", "tensorboard", "--json")
    table = {row["method"]: row["mean"] for row in json.loads(shown.stdout)["table"]}
    events = EventAccumulator(str(tmp_path / "runs" / "both")).Reload()
    for method in ("hand-written", "single"):
        (logged,) = events.Scalars(f"test/accuracy/made/2_shots/{method}")
        assert logged.value == pytest.approx(table[method])
    assert "single" in (tmp_path / "runs" / "both" / "report.html").read_text()


def test_what_cannot_be_logged_is_said_before_the_search_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "choose from wandb, mlflow, tensorboard" in search("--log-to", "excel", code=2).stderr
    import importlib.util

    find = importlib.util.find_spec
    for name in ("wandb", "mlflow", "tensorboard"):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda n, *a, name=name: None if n == name else find(n, *a))
            assert f"pip install 'promptsearch[{name}]'" in search("--log-to", name, code=2).stderr
    assert "does not exist" in run("runs", "show", "mine", code=2).stderr  # nothing had begun


def test_a_tracker_that_fails_leaves_the_run_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'promptsearch[tensorboard]'")
    (tmp_path / "full").write_text("a file where a folder should be")
    monkeypatch.setenv("TENSORBOARD_LOGDIR", str(tmp_path / "full"))
    failed = search("--log-to", "tensorboard", code=1)
    assert "is recorded, and the same command logs it again" in failed.stderr
    assert expected()[0]["winner"]["templates"][0] in failed.stdout


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shown: list[Any] = []
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    monkeypatch.setattr(threading, "excepthook", shown.append)  # prints the traceback of the thread that writes
    failed = search("--log-to", "tensorboard", code=1)
    assert failed.stderr.count("Error: ") == 1 and "No space left on device; run" in failed.stderr
    assert not shown
