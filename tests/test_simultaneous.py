"""Starts at the same instant: one process creates a run whole, the others join it, early workers wait for it."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest
from forked import MODELS
from trial_runs import PROBLEM, document, prepare, recorded, run, start, wait_for_trials

from promptsearch.errors import PromptSearchError
from promptsearch.runs import RunRecord
from promptsearch.runs.pipeline import lead
from promptsearch.runs.store import optuna_rows
from promptsearch.runs.store.storage import leading, open_storage

TOTAL = 24


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_starts_and_workers_at_once_make_one_whole_run(tmp_path: Path, storage: str, searcher: str) -> None:
    own = [*PROBLEM, "--bank", prepare(tmp_path), "--storage", storage, "--study", "r", "--trials", TOTAL, "--batch", 2]
    join = ["worker", "--study", "r", "--storage", storage]
    processes = [start(*(join if i % 2 else [searcher, *own]), "--json") for i in range(4)]
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0] * 4, outputs
    first, second = (json.loads(outputs[i][0]) for i in (0, 2))
    assert first["winner"] == second["winner"] and first["run"]["trials"] == second["run"]["trials"] == TOTAL
    assert [n for n, _, _ in recorded("r", storage)] == list(range(TOTAL))
    assert document(searcher, *own)["winner"] == first["winner"]  # and it is recorded


def test_a_start_that_comes_second_ends_the_run_of_a_first_that_dies(tmp_path: Path, storage: str) -> None:
    own = [*PROBLEM, "--bank", prepare(tmp_path), "--storage", storage, "--study", "r", "--trials", "400"]
    first = start("random", *own, "--json")
    if storage.endswith(".db"):
        wait_for_trials(Path(storage), 4, first)
    else:
        time.sleep(4)
    second = start("random", *own, "--json")
    time.sleep(2)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert json.loads(out)["run"]["trials"] <= 400 and json.loads(out)["run"]["ended"] in ("trials", "exhausted")


def test_a_search_by_rounds_waits_for_the_one_that_is_running(tmp_path: Path) -> None:
    own = [*PROBLEM, "--bank", prepare(tmp_path), "--storage", tmp_path / "runs.db", "--study", "b", "--depth", "2"]
    both = [start("beam", *own, "--json") for _ in range(2)]
    outputs = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    assert json.loads(outputs[0][0])["winner"] == json.loads(outputs[1][0])["winner"]


def test_a_worker_waits_for_a_run_that_has_not_begun(tmp_path: Path) -> None:
    storage = tmp_path / "runs.db"
    own = [*PROBLEM, "--bank", prepare(tmp_path), "--storage", storage, "--study", "r", "--trials", TOTAL]
    early = start("worker", "--study", "r", "--storage", storage, "--json")
    quiet = start("worker", "--study", "r", "--storage", storage, "--wait", "0.1", "--quiet")
    _, error = quiet.communicate(timeout=60)
    assert quiet.returncode == 2 and error.count("\n") == 1 and "does not exist" in error
    document("random", *own)
    out, err = early.communicate(timeout=120)
    assert early.returncode == 0 and json.loads(out)["trials"] == TOTAL, err


def test_one_process_leads(storage: str) -> None:
    one, other = open_storage(storage), open_storage(storage)
    with leading(one, 1) as first, leading(other, 1) as second:
        assert first and not second
        with leading(other, 2) as another:
            assert another
    with leading(other, 1) as later:
        assert later


def test_who_comes_second_waits_for_the_lead_and_is_told(storage: str) -> None:
    optuna_rows.create_study(open_storage(storage), "r", ["minimize"], {"config": {}})
    one, told, got = RunRecord.load("r", storage), threading.Event(), threading.Event()

    def wait() -> None:
        with lead(RunRecord.load("r", storage), lambda done, total, what: told.set()):
            got.set()

    with lead(one, lambda done, total, what: pytest.fail(what)):
        thread = threading.Thread(target=wait)
        thread.start()
        assert told.wait(10) and not got.is_set()
    assert got.wait(10)
    thread.join()


@pytest.mark.parametrize("what", ["result", "about", "config", "all_trials", "get", "set", "attribute_names"])
def test_a_run_that_is_deleted_while_it_is_used_is_one_line(storage: str, what: str) -> None:
    optuna_rows.create_study(open_storage(storage), "r", ["minimize"], {"config": {}})
    one, other = RunRecord.load("r", storage), RunRecord.load("r", storage)
    other.delete()
    arguments = {"get": ("x",), "set": ("x", 1)}.get(what, ())
    with pytest.raises(PromptSearchError, match="run 'r' in .* was deleted while this process used it; run"):
        found = getattr(one, what)
        found(*arguments)


@pytest.mark.parametrize(
    ("method", "own"),
    [("coop", ["--epochs", "40"]), ("names", ["--epochs", "40"]), ("pez", ["--steps", "60", "--tokens", "2"])],
)
def test_a_training_that_is_started_twice_is_trained_once(method: str, own: list[str], tmp_path: Path) -> None:
    given = [method, "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "1", *own, "--json"]
    both = [start(*given, "--storage", tmp_path / "runs.db", imports=MODELS) for _ in range(2)]
    outputs = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    first, second = (json.loads(out) for out, _ in outputs)
    assert first == second  # with its seconds and the time of its test: one process trained, the other read
    kept = document("runs", "show", first["run"]["study"], "--storage", tmp_path / "runs.db")
    assert kept["winner"] == first["winner"]


def test_a_run_is_there_whole_or_not_at_all(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy.exc

    opened = open_storage(storage)
    with pytest.raises(TypeError):
        optuna_rows.create_study(opened, "half", ["minimize"], {"config": {}, "bank": object()})
    assert [s.study_name for s in opened.get_all_studies()] == []
    optuna_rows.create_study(opened, "whole", ["minimize", "maximize"], {"config": {"a": 1}}, ["x", "y"])
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        optuna_rows.create_study(opened, "whole", ["minimize"], {"config": {}})
    (study,) = opened.get_all_studies()
    assert study.user_attrs == {"config": {"a": 1}} and [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    import optuna

    assert optuna.load_study(storage=opened, study_name="whole").metric_names == ["x", "y"]
    assert run("runs", "list", "--storage", storage).exit_code == 0
