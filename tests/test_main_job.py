"""The main job through the command line: what it prints, keeps, resumes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from forked import MODELS, Forked
from tiny_model import TINY

from promptsearch.cli import main
from promptsearch.errors import PromptSearchError

WHOLE = ["beam", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "4", "--width", "3", "--depth", "3"]
BEAM = [*WHOLE, "--no-estimate"]  # for tests of something else: half of the time goes into the estimate

#: A process to which the hub is out of reach: its client reads these when it is imported.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent/hub"}


@pytest.fixture(scope="module")
def small_bank(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bank") / "small.txt"
    lines = ["a photo of a {}.", "a dark photo of the {}.", "a {} at night.", "a sketch of a {}.", "a {}."]
    path.write_text("# five templates\n" + "\n".join(lines) + "\n")
    return str(path)


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    if code:
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.output
    return result


def document(*args: str) -> dict[str, Any]:
    return json.loads(run(*args, "--json").stdout)


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path, **env}, capture_output=True, text=True
    )


def offline(code: str) -> subprocess.CompletedProcess[str]:
    imports = f"import os; os.environ.update({OFFLINE!r})\n{MODELS}"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **OFFLINE}}
    with Forked([], code=code, imports=imports, **streams) as process:
        out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def test_the_document_keeps_its_contract(small_bank: str) -> None:
    doc = document(*WHOLE, "--bank", small_bank)
    keys = "model dataset shots seed run evaluations seconds winner runners_up baselines paired"
    assert set(keys.split()) <= doc.keys()
    assert (doc["model"], doc["dataset"], doc["shots"], doc["seed"]) == ("tiny", "cifar10-dark", 4, 0)
    assert {"study", "storage"} <= doc["run"].keys()
    assert doc["winner"].keys() - {"weights", "phrases"} == {"templates", "support", "test", "metrics"}
    assert {"selection", "estimate", "calibration", "test_opened"} <= doc.keys()
    assert doc["winner"]["support"].keys() == {"accuracy", "xent"}
    assert doc["winner"]["test"]["low"] < doc["winner"]["test"]["accuracy"] < doc["winner"]["test"]["high"]
    assert all(r.keys() == {"templates", "support"} for r in doc["runners_up"]) and doc["runners_up"]
    assert ["a photo of a {}."] in [b["templates"] for b in doc["baselines"]]
    assert [b["name"] for b in doc["baselines"]] == ["hand-written", "best single template", "whole bank averaged"]
    assert all(b.keys() == {"name", "templates", "support", "test", "metrics"} for b in doc["baselines"])
    assert doc["paired"]["low"] <= doc["paired"]["difference"] <= doc["paired"]["high"]
    difference = doc["winner"]["test"]["accuracy"] - doc["baselines"][0]["test"]["accuracy"]
    assert doc["paired"]["difference"] == pytest.approx(difference, abs=1e-6)


def test_the_winner_is_the_best_of_all_small_sets(small_bank: str) -> None:
    """Width enough to keep everything: beam search is then exhaustive, and can be checked by brute force."""
    from itertools import combinations

    from promptsearch.banks import PromptSet, load_bank
    from promptsearch.evaluators import open_problem

    everything = ["--width", "50", "--depth", "3", "--patience", "3", "--select", "none"]
    doc = document(*WHOLE[:-4], "--bank", small_bank, *everything)
    problem = open_problem("tiny", "cifar10-dark")
    evaluator = problem.evaluator(problem.task(4, 0))
    templates = load_bank(small_bank).templates
    sets = [PromptSet(c) for k in (1, 2, 3) for c in combinations(templates, k)]
    best = min(zip(sets, evaluator.score(sets), strict=True), key=lambda r: r[1].xent)
    assert doc["winner"]["templates"] == list(best[0].templates)
    assert doc["winner"]["support"]["xent"] == pytest.approx(best[1].xent, abs=1e-6)
    assert doc["evaluations"] == len(sets)


def test_the_same_command_shows_the_same_run(small_bank: str) -> None:
    first, second = (document(*BEAM, "--bank", small_bank) for _ in range(2))
    assert first == second
    shown = run("runs", "show", first["run"]["study"], "--json")
    assert json.loads(shown.stdout) == first
    rows = json.loads(run("runs", "list", "--json").stdout)
    assert [(r["study"], r["state"]) for r in rows] == [(first["run"]["study"], "finished")]


def test_a_finished_run_without_the_estimate_that_is_asked_for_says_so(small_bank: str) -> None:
    without = [*BEAM, "--bank", small_bank, "--seed", "11", "--depth", "1"]
    assert "no-estimate" not in run(*without).stderr
    again = run(*[a for a in without if a != "--no-estimate"])
    assert "finished with --no-estimate; for an estimate, search anew with --study NAME" in again.stderr
    assert "no-estimate" not in run(*without).stderr
    free = [*without, "--shots", "0", "--unlabelled", "40"]  # without labels there is no estimate to ask for
    run(*free)
    assert "no-estimate" not in run(*[a for a in free if a != "--no-estimate"]).stderr


def test_a_folder_that_was_deleted_meanwhile_is_no_matter(
    small_bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        doc = document(*BEAM, "--bank", small_bank, "--seed", "7", "--depth", "1")
        assert json.loads(run("runs", "show", doc["run"]["study"], "--json").stdout) == doc
    finally:
        monkeypatch.undo()


def test_another_seed_or_option_is_another_run(small_bank: str) -> None:
    names = {
        document(*BEAM, "--bank", small_bank, *more)["run"]["study"]
        for more in ([], ["--seed", "1"], ["--objective", "accuracy"], ["--width", "2"])
    }
    assert len(names) == 4


def test_a_changed_run_is_refused_with_the_difference(small_bank: str) -> None:
    run(*BEAM, "--bank", small_bank, "--study", "mine")
    error = run(*BEAM, "--bank", small_bank, "--study", "mine", "--shots", "2", code=2).stderr
    assert "shots 4 (now 2)" in error and "--study" in error


def test_the_table_says_what_the_document_says(small_bank: str) -> None:
    doc = document(*WHOLE, "--bank", small_bank)
    text = run(*WHOLE, "--bank", small_bank).stdout
    assert text.startswith("The winner, ") and "feature pack made with tiny" in text
    for template in doc["winner"]["templates"]:
        assert template in text
    assert f"{100 * doc['winner']['test']['accuracy']:.2f}" in text
    assert doc["run"]["study"] in text and "95 % interval" in text
    assert "feature pack" not in run(*WHOLE, "--bank", small_bank, "--quiet").stdout


def test_auto_falls_back_to_the_embedded_model_and_says_so(small_bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/nonexistent/hub")
    args = ["beam", "--bank", small_bank, "--shots", "2", "--depth", "2", "--phrases", "none"]
    code = f"from promptsearch.cli import main\nmain({args!r})"
    done = offline(code)
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("Using the embedded model zeroshot")]
    assert "HF_HUB_OFFLINE" in note and "RN50" in note
    rows = json.loads(run("runs", "list", "--json").stdout)
    assert rows[0]["model"] == "zeroshot"


def test_what_is_named_never_falls_back(small_bank: str) -> None:
    code = f"from promptsearch.cli import main\nmain(['beam', '--bank', {small_bank!r}, '--model', 'RN50'])"
    done = offline(code)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    for remedy in ("--weights", "local-dir:", "HF_ENDPOINT", "--model zeroshot"):
        assert remedy in done.stderr


def test_a_cached_run_imports_no_torch(small_bank: str) -> None:
    run(*WHOLE, "--bank", small_bank)
    code = (
        "import sys\nfrom promptsearch.cli import main\n"
        f"main({[*WHOLE, '--bank', small_bank, '--study', 'again', '--quiet']!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_draw_is_kept_and_disjoint(small_bank: str) -> None:
    from promptsearch.runs import RunRecord

    doc = document(*BEAM, "--bank", small_bank)
    record = RunRecord.load(doc["run"]["study"])
    draw = record.study.user_attrs["draw"]
    assert len(draw["support"]) == len(draw["validation"]) == 40
    assert not set(draw["support"]) & set(draw["validation"])
    assert record.study.user_attrs["test_opened"]
    assert all(t.user_attrs["templates"] for t in record.study.trials)


def test_flipped_bits_in_the_cache_cost_a_warning_and_nothing_else(small_bank: str, tmp_path: Path) -> None:
    first = document(*BEAM, "--bank", small_bank)
    for file in (tmp_path / "cache" / "texts").rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-5] ^= 16
        file.write_bytes(bytes(content))
    result = CliRunner().invoke(main, [*BEAM, "--bank", small_bank, "--study", "other", "--json"])
    assert result.exit_code == 0
    assert "Warning: cache file" in result.stderr and "damaged" in result.stderr
    assert json.loads(result.stdout)["winner"] == first["winner"]


def test_an_unwritable_cache_costs_a_warning_and_nothing_else(
    small_bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = document(*BEAM, "--bank", small_bank)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    result = CliRunner().invoke(main, [*BEAM, "--bank", small_bank, "--study", "other", "--json"])
    assert result.exit_code == 0 and result.stderr.count("cannot be written") == 1
    assert json.loads(result.stdout)["winner"] == first["winner"]


def test_cache_info_and_clear(small_bank: str) -> None:
    run(*BEAM, "--bank", small_bank)
    kinds = {k["kind"] for k in json.loads(run("cache", "info", "--json").stdout)["kinds"]}
    assert {"texts", "models"} <= kinds
    assert "texts" in run("cache", "info").stdout
    run("cache", "clear", "--kind", "pictures", code=2)
    run("cache", "clear")
    assert json.loads(run("cache", "info", "--json").stdout)["kinds"] == []


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--shots", "0", "--objective", "xent"], 2, "--shots 0 has none"),
        (["--shots", "-3"], 2, "shots -3"),
        (["--shots", "301"], 2, "300"),
        (["--shots", "many"], 2, "not a valid integer"),
        (["--width", "0"], 2, "--width 0"),
        (["--objective", "f1"], 2, "accuracy, xent"),
        (["--bank", "nowhere.txt"], 2, "nowhere.txt"),
        (["--model", "local-dir:nowhere"], 2, "no such folder"),
        (["--model", "RM50"], 2, "RN50"),
        (["--model", "RN50:nothing"], 2, "openai"),
        (["--model", "ViT-B-32"], 2, "NAME:PRETRAINED"),
        (["--weights", "nowhere.pt", "--model", "RN50"], 2, "no such file"),
        (["--weights", "nowhere.pt", "--model", "auto"], 2, "--model"),
        (["--device", "tpu"], 2, "auto, cpu, cuda"),
        (["--device", "cuda"], 2, "--device cpu"),
        (["--precision", "fp8"], 2, "fp32, bf16, fp16"),
        (["--precision", "fp16"], 2, "fp32"),
        (["--dataset", "nowhere/at/all"], 2, "nowhere"),
        (["--dataset", "cifar10-purple"], 2, "dark"),
        (["--memory", "lots"], 2, "4GB"),
        (["--memory", "0"], 2, "4GB"),
        (["--storage", "nonsense://x"], 2, "sqlite:///"),
        (["--storage", "/"], 2, "folder"),
    ],
)
def test_bad_options(small_bank: str, args: list[str], code: int, message: str) -> None:
    options = BEAM if "--bank" in args else [*BEAM, "--bank", small_bank]
    assert message in run(*options, *args, code=code).stderr


def test_a_storage_that_is_no_database_is_left_alone(small_bank: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes, longer than sixteen bytes")
    assert "not a SQLite database" in run(*BEAM, "--bank", small_bank, "--storage", str(file), code=2).stderr
    assert file.read_text().startswith("my notes")


def test_runs_of_nothing(tmp_path: Path) -> None:
    assert "does not exist; a search" in run("runs", "list", code=2).stderr
    assert "does not exist; a search" in run("runs", "show", "x", code=2).stderr


def test_an_unknown_run_names_the_latest(small_bank: str) -> None:
    doc = document(*BEAM, "--bank", small_bank)
    assert doc["run"]["study"] in run("runs", "show", "x", code=2).stderr


def test_features_go_out_and_come_in(small_bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = document(*BEAM, "--bank", small_bank)
    pack = tmp_path / "pack"
    run("features", "export", "--model", "tiny", "--dataset", "cifar10-dark", pack)
    bare = tmp_path / "models" / "tiny"  # the same model without its pack
    bare.mkdir(parents=True)
    for file in TINY.glob("open_clip_*"):
        (bare / file.name).symlink_to(file)
    monkeypatch.setenv("PROMPTSEARCH_MODELS", str(bare.parent))
    listed = run("features", "import", pack).stdout
    assert listed.count("cifar10-dark") == 2
    again = document(*BEAM, "--bank", small_bank, "--study", "imported")
    assert again["winner"] == first["winner"]


def test_a_damaged_pack_is_refused_whole(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    run("features", "export", "--model", "tiny", "--dataset", "cifar10", pack)
    file = sorted(pack.rglob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in run("features", "import", pack, code=2).stderr
    assert json.loads(run("cache", "info", "--json").stdout)["kinds"] == []
    run("features", "import", tmp_path / "nowhere", code=2)


def test_a_pack_with_a_feature_that_is_not_finite_names_its_picture(tmp_path: Path) -> None:
    from promptsearch.evaluators import default_cache, open_problem
    from promptsearch.evaluators.cache import read_block, write_block

    pack = tmp_path / "pack"
    run("features", "export", "--model", "tiny", "--dataset", "cifar10", pack)
    file = next(f for f in pack.rglob("*.safetensors") if read_block(f).key["split"] == "train")
    block = read_block(file)
    block.arrays["features"][7, 3] = np.nan
    picture = int(block.arrays["indices"][7])
    file.unlink()
    write_block(file.parent, block.key, block.arrays, block.meta)
    assert f"picture {picture} is not finite" in run("features", "import", pack, code=2).stderr

    cache = default_cache()  # a copy of the folder is a pack, too
    cache.add("packs", block.key, block.arrays, block.meta)
    source = open_problem("tiny", "cifar10").source
    assert len(source.features("train", np.arange(5))) == 5
    with pytest.raises(PromptSearchError, match=f"picture {picture} of the train split"):
        source.features("train", np.arange(10))


def test_the_pack_has_the_pictures_that_it_says() -> None:
    from promptsearch.evaluators import open_problem

    problem = open_problem("tiny", "cifar10-dark")
    assert problem.source.labels("test")[0].shape == (5000,)


def test_pack_and_pictures_agree() -> None:
    """The shipped features are those of the shipped weights: a few test pictures, where CIFAR-10 lies beside."""
    from promptsearch.evaluators import Encoder, default_cache, open_problem, resolve_model
    from promptsearch.evaluators.data.corruptions import degrade
    from promptsearch.evaluators.data.datasets import open_dataset

    folder = Path(__file__).resolve().parents[2] / "shared" / "cifar10"
    if not folder.is_dir():
        pytest.skip("the pictures of CIFAR-10 are not beside this checkout")
    problem = open_problem("tiny", "cifar10-dark")
    data = open_dataset(str(folder))
    cache = default_cache()
    encoder = Encoder(resolve_model("tiny", cache), cache)
    for split in ("train", "test"):
        labels, indices = problem.source.labels(split)
        at = np.linspace(0, len(labels) - 1, 20).astype(int)
        np.testing.assert_array_equal(data.labels(split)[indices[at]], labels[at])
        pictures = (degrade(p, "dark") for p in data.pictures(split, indices[at]))
        ours = encoder.encode_pictures(pictures)
        np.testing.assert_allclose(ours, problem.source.features(split, at), atol=2e-5)
