"""`predict`, `sort` and `PromptSearch.load`: what labels pictures with a saved run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forked import MODELS, Forked
from labelled_world import CLASSES, RUN, add_odd_pictures, make_world, run, use_world
from PIL import Image
from tiny_model import TINY

from promptsearch import PromptSearch
from promptsearch.commands.predict import open_labelling
from promptsearch.commands.report import _pictures
from promptsearch.config import ProblemConfig
from promptsearch.errors import InputError
from promptsearch.evaluators import no_progress
from promptsearch.evaluators.data import loose_pictures
from promptsearch.reports.labels import write_labels
from promptsearch.reports.sorted_folders import plan, put
from promptsearch.reports.view import open_views
from promptsearch.runs import RunRecord
from promptsearch.runs.classifier import open_classifier
from promptsearch.runs.labelling import Labelled
from promptsearch.runs.open_run import opened_config
from promptsearch.runs.result import Calibration, probabilities, threshold


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(autouse=True)
def here(world: Path, isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    use_world(world, monkeypatch)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_labels_are_those_of_the_estimator_and_of_the_runs_evaluator(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    done = run("predict", RUN, world / "new", "--out", out, "--top", 3)
    assert done.stdout == f"wrote {out}: 40 pictures\n" and "notes.txt" in done.stderr
    labels = rows(out.read_text())
    assert [r["path"] for r in labels] == sorted(str(p) for p in (world / "new").rglob("*.png"))
    assert rows(run("predict", RUN, world / "new", "--top", 3, "--quiet").stdout) == labels
    assert os.listdir(tmp_path) == ["labels.csv"]

    ps = PromptSearch.load(RUN, device="cpu")
    paths = [r["path"] for r in labels]
    assert ps.predict(paths).tolist() == [r["label"] for r in labels]
    shares = ps.predict_proba(paths)
    ranked = np.array([[float(r[f"probability_{k}"]) for k in (1, 2, 3)] for r in labels])
    np.testing.assert_allclose(ranked, -np.sort(-shares, axis=1), atol=6e-5)
    assert all(r["class_1"] == r["label"] and r["probability_1"] == r["probability"] for r in labels)

    from promptsearch.evaluators import open_problem

    problem = open_problem("tiny", str(world / "data"), device="cpu")
    evaluator = problem.evaluator(problem.task(8, 0))
    document = RunRecord.load(RUN).result
    assert document is not None and document["calibration"]["logit_scale"] == pytest.approx(evaluator.logit_scale)
    np.testing.assert_allclose(ps.class_weights_, evaluator.class_weights(ps.result_.winner.prompt_set), atol=1e-6)
    assert ps.logit_scale_ == document["calibration"]["logit_scale"] != problem.encoder.logit_scale
    test = [str(p) for name in CLASSES for p in sorted((world / "data" / "test" / name).iterdir())]
    truth = np.repeat(CLASSES, 6)
    assert ps.score(test, truth) == pytest.approx(document["winner"]["test"]["accuracy"])


def test_a_loaded_estimator_is_a_fitted_one(world: Path, tmp_path: Path) -> None:
    ps = PromptSearch.load(RUN)
    assert ps.prompts_ and ps.weights_.sum() == pytest.approx(1) and ps.classes_.tolist() == list(CLASSES)
    ps.export("bank", tmp_path / "bank.txt")
    assert (tmp_path / "bank.txt").read_text().split("\n")[: len(ps.prompts_)] == ps.prompts_
    files = sorted(str(p) for p in (world / "new").glob("*.png"))[:3]
    with pytest.raises(InputError, match="no run 'other'"):
        PromptSearch.load("other")
    with pytest.raises(InputError, match="list of paths"):
        ps.predict(files[0])


def test_an_estimator_that_was_stored_is_loaded_with_its_probabilities(world: Path, tmp_path: Path) -> None:
    paths = [str(p) for name in CLASSES for p in sorted((world / "data" / "train" / name).iterdir())]
    bank = ["a photo of a {}.", "a {}."]
    storage = str(tmp_path / "own.db")
    ps = PromptSearch("tiny", bank=bank, device="cpu", estimate=False, storage=storage, study="fitted", random_state=1)
    ps.fit(paths, np.repeat(CLASSES, 16))
    loaded = PromptSearch.load("fitted", storage=storage, device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(paths), ps.predict_proba(paths), atol=1e-6)
    done = run("predict", "fitted", paths[0], "--storage", storage)
    assert rows(done.stdout)[0]["label"] == ps.predict(paths[:1])[0]


def test_corrupt_pictures_are_listed_and_the_others_labelled(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "album"
    shutil.copytree(world / "new", folder)
    add_odd_pictures(folder)
    good = rows(run("predict", RUN, folder, "--quiet").stdout)
    (folder / "cut.png").write_bytes((folder / "01.png").read_bytes()[:900])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    out = tmp_path / "labels.csv"
    done = run("predict", RUN, folder, "--out", out, "--top", 2)
    found = rows(out.read_text())
    bad = {Path(r["path"]).name: r for r in found if r["error"]}
    assert set(bad) == {"cut.png", "empty.jpg", "page.jpg", "zz.png"}
    assert all(r["label"] == "" and r["probability"] == "" and r["class_2"] == "" for r in bad.values())
    assert f"4 of {len(found)} pictures could not be read" in done.stderr
    assert all(name in done.stderr for name in bad) and "gone.png" in done.stderr
    assert {r["path"]: r["label"] for r in found if not r["error"]} == {r["path"]: r["label"] for r in good}
    only = run("predict", RUN, folder / "cut.png", folder / "empty.jpg", code=1)
    assert "none of 2 pictures" in only.stderr


SLOW = """
import os, sys, time, torch
from promptsearch.evaluators.data import loose_pictures
from promptsearch.cli import main
loose_pictures.CHUNK["cpu"] = 8
opened = loose_pictures.StoredPicture.open
def slowly(self):
    time.sleep(0.01)
    return opened(self)
loose_pictures.StoredPicture.open = slowly
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
main(sys.argv[1:])
"""


def kill_midway(partial: Path, chunks: int, *args: object) -> None:
    """Run a command in a process of its own, with as many threads as here, and kill it once so many chunks are done."""
    import torch

    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = Forked([*map(str, args), "--quiet"], code=SLOW, imports=MODELS, env=env)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if partial.exists() and partial.read_bytes().count(b"\n") > chunks:
            break
        time.sleep(0.002)
    assert process.poll() is None, "it was done before it was killed"
    process.kill()
    process.wait()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loose_pictures.CHUNK, "cpu", 8)


def test_killed_in_the_middle_and_run_again_gives_the_same_file(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(4):
        shutil.copytree(world / "new", folder / str(k))
    (folder / "2" / "05.png").write_bytes(b"nothing")
    for cache in ("one", "other"):
        shutil.copytree(world / "cache", tmp_path / cache)  # what one process cached, the other must not read
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "one"))
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    run("predict", RUN, folder, "--top", 2, "--out", whole)
    assert len(rows(whole.read_text())) == 160

    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "other"))
    command = ["predict", RUN, folder, "--top", 2, "--out", resumed]
    partial = tmp_path / "resumed.csv.partial"
    kill_midway(partial, 3, *command)
    done = partial.read_bytes()
    assert not resumed.exists() and 3 < done.count(b"\n") < 20
    partial.write_bytes(done + b'[{"path": "half a li')  # as a full disk or a power cut leaves it
    told: list[int] = []
    monkeypatch.setattr("promptsearch.commands.terminal._lines", lambda: lambda n, total, what: told.append(n))
    run(*command)
    assert told[0] == 8 * (done.count(b"\n") - 1), "what was done is not done again"
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["resumed.csv", "whole.csv"]


def test_what_was_begun_with_other_options_is_not_mixed(world: Path, tmp_path: Path, small_chunks: None) -> None:
    out, partial = tmp_path / "labels.csv", tmp_path / "labels.csv.partial"
    command = ["predict", RUN, world / "new", "--out", out, "--quiet"]
    kept = []
    labelling = open_labelling(RUN, [world / "new"], 1, True, OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        write_labels(labelling, out, progress=lambda n, total, what: interrupt_at(n, 16))
    kept = partial.read_bytes()
    assert kept.count(b"\n") == 3  # the first line says of what
    assert "other pictures or options" in run(*command, "--top", 2, code=2).stderr
    partial.write_bytes(kept.replace(b'"label"', b'"libel"', 1))
    assert "damaged" in run(*command, code=2).stderr
    partial.write_bytes(kept)
    picture = world / "new" / "01.png"
    status = picture.stat()
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # written again
    assert "other pictures or options" in run(*command, code=2).stderr
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "other pictures or options" in run(*command, code=2).stderr, "with the time set back, too"
    run(*command, "--top", 2, "--force")
    assert len(rows(out.read_text())) == 40 and not partial.exists()
    before = out.read_bytes()
    assert "--force" in run(*command, code=2).stderr and out.read_bytes() == before
    run(*command, "--force")
    assert out.read_bytes() != before

    import filelock

    with filelock.FileLock(f"{partial}.lock"):
        assert "another process" in run(*command, "--force", code=1).stderr


def interrupt_at(done: int, at: int) -> None:
    if done == at:
        raise KeyboardInterrupt


OPTIONS: dict = {"model": None, "weights": None, "dataset": None, "storage": None, "device": "cpu"}
OPTIONS |= {"unknown_below": None, "encode_batch": None, "progress": no_progress}


@pytest.mark.parametrize("n", [0, 5, 18, 19, 38, 39, 199, 1000])
def test_the_threshold_is_the_conformal_quantile(n: int) -> None:
    best = np.random.default_rng(n).permutation(np.arange(1, n + 1) / (n + 1))
    found = threshold(best)
    if n < 19:
        assert found is None
        return
    assert found == np.sort(best)[(n + 1) // 20 - 1]
    assert (best < found).sum() / (n + 1) < 0.05


def test_few_pictures_of_the_known_classes_fall_below_the_threshold_and_strange_ones_do() -> None:
    """Over many draws the share of new pictures of known classes is within 5 %; pictures of no class fall below."""
    rng = np.random.default_rng(0)
    centres = np.eye(8, 32)

    def confidence(n: int, known: bool) -> np.ndarray:
        noise = rng.normal(size=(n, 32)) * 0.15
        vectors = noise + (centres[rng.integers(0, 8, n)] if known else 0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return probabilities(vectors @ centres.T, 8.0).max(axis=1)

    thresholds = [threshold(confidence(64, known=True)) for _ in range(200)]
    known, strange = confidence(2000, known=True), confidence(2000, known=False)
    refused = np.mean([(known < t).mean() for t in thresholds])
    assert 0.03 < refused <= 0.055
    assert np.mean([(strange < t).mean() for t in thresholds]) > 0.8


def test_pictures_below_the_threshold_are_unknown(world: Path) -> None:
    document = RunRecord.load(RUN).result
    assert document is not None
    estimated = document["calibration"]["unknown_below"]
    support = RunRecord.load(RUN).get("draw")["support"]
    train = [world / "data" / "train" / name / f"{i}.png" for name in CLASSES for i in sorted(range(16), key=str)]
    labels = rows(run("predict", RUN, *[train[i] for i in support], "--unknown-below", "auto", "--quiet").stdout)
    assert len(labels) == 24 and sum(r["label"] == "unknown" for r in labels) <= 1  # 5 % of 24, rounded down
    every = rows(run("predict", RUN, world / "new", "--quiet", "--unknown-below", 1).stdout)
    assert {r["label"] for r in every} == {"unknown"} and all(float(r["probability"]) < 1 for r in every)
    middle = np.median([float(r["probability"]) for r in every])
    some = rows(run("predict", RUN, world / "new", "--quiet", "--unknown-below", middle).stdout)
    assert 10 < sum(r["label"] == "unknown" for r in some) < 30 and estimated > 1 / 3
    assert "label,probability,error" in run("predict", RUN, world / "new", "--quiet").stdout


def test_sorting_copies_and_never_moves(world: Path, tmp_path: Path) -> None:
    into = tmp_path / "sorted"
    before = {p: p.read_bytes() for p in (world / "new").rglob("*.png")}
    labels = {r["path"]: r["label"] for r in rows(run("predict", RUN, world / "new", "--quiet").stdout)}
    done = run("sort", RUN, world / "new", "--into", into)
    assert {p: p.read_bytes() for p in (world / "new").rglob("*.png")} == before
    for path, label in labels.items():
        name = os.path.relpath(path, world / "new").replace(os.sep, "__")
        assert (into / label / name).read_bytes() == Path(path).read_bytes()
    assert sum(len(list(folder.iterdir())) for folder in into.iterdir()) == 40
    counts = dict(line.split("\t") for line in done.stdout.splitlines())
    assert counts == {str(into / label): str(n) for label, n in Counter(labels.values()).items()}
    changed = {p: p.stat().st_ctime_ns for p in into.rglob("*.png")}
    victim = sorted(into.rglob("*.png"))[0]
    content = victim.read_bytes()
    victim.unlink()
    run("sort", RUN, world / "new", "--into", into, "--quiet")  # goes on with what is missing
    assert victim.read_bytes() == content
    assert all(p.stat().st_ctime_ns == t for p, t in changed.items() if p != victim)
    victim.write_text("another file")
    assert "exists already" in run("sort", RUN, world / "new", "--into", into, "--quiet", code=2).stderr
    assert victim.read_text() == "another file"

    linked = tmp_path / "linked"
    for _ in range(2):
        run("sort", RUN, world / "new", "--into", linked, "--link", "--quiet", "--unknown-below", 0.9)
    assert all(p.is_symlink() and p.resolve().parent.is_relative_to(world / "new") for p in linked.rglob("*.png"))
    assert (linked / "unknown").is_dir()


def _same_stamp(folder: Path, shades: Sequence[int]) -> Path:
    """Write uncompressed pictures of the same size and modification time, as an archive unpacks them."""
    folder.mkdir(exist_ok=True)
    for i, shade in enumerate(shades):
        Image.new("RGB", (8, 8), (shade, 255 - shade, shade)).save(folder / f"{i}.bmp")
        os.utime(folder / f"{i}.bmp", (10**9, 10**9))
    return folder


@pytest.mark.parametrize("link", [False, True])
def test_another_picture_of_the_same_size_and_time_is_not_taken_for_sorted(tmp_path: Path, link: bool) -> None:
    one, other = _same_stamp(tmp_path / "one", [10, 20]), _same_stamp(tmp_path / "other", [10, 30])
    for folder in (one, one):
        put([(f, tmp_path / "out" / f.name) for f in sorted(folder.iterdir())], link)
    with pytest.raises(InputError, match="0.bmp: exists already" if link else "1.bmp: exists already"):
        put([(f, tmp_path / "out" / f.name) for f in sorted(other.iterdir())], link)
    assert (tmp_path / "out" / "1.bmp").read_bytes() == (one / "1.bmp").read_bytes()


def test_a_picture_that_is_replaced_with_its_size_and_time_is_labelled_anew(world: Path, tmp_path: Path) -> None:
    pictures = _same_stamp(tmp_path / "pictures", [0, 120, 240])
    first = rows(run("predict", RUN, pictures, "--quiet", "--top", 3).stdout)
    _same_stamp(pictures, [240, 120, 0])
    second = rows(run("predict", RUN, pictures, "--quiet", "--top", 3).stdout)
    swapped = [{**r, "path": f["path"]} for r, f in zip(reversed(first), first, strict=True)]
    assert second == swapped and second != first


def test_a_run_of_relative_paths_is_opened_from_any_folder_and_shows_its_own_pictures(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world / "data", tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    args = ["--model", "tiny", "--bank", world / "bank.txt", "--shots", 8, "--no-estimate", "--quiet"]
    run("random", *args, "--dataset", "data", "--trials", 4, "--study", "relative")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert "finished" in run("runs", "list").stdout
    run("runs", "resume", "relative", "--trials", 6)
    run("export", "relative", "--to", "open-clip", "--out", tmp_path / "weights.safetensors")

    def shown() -> Any:
        (view,) = open_views(["relative"], None).views
        return _pictures(view, None)([0, 7])

    first = shown()
    assert [np.asarray(p).shape for p in first] == [(32, 32, 3)] * 2
    shutil.copytree(world / "data", "data")  # of the same name and classes
    assert [np.asarray(p).tolist() for p in shown()] == [np.asarray(p).tolist() for p in first]
    shutil.copy("data/test/cat/0.png", "data/test/ship/0.png")
    assert "cannot be shown: --pictures data: not the pictures that run relative was made with" in shown()
    assert "data fingerprint" in run("runs", "resume", "relative", "--trials", 8, code=2).stderr
    run("runs", "resume", "relative", "--trials", 8, "--dataset", tmp_path / "here" / "data")


def test_names_of_a_run_are_no_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders called as a model, a data set or a pack lie where the run was started, and were not read there."""
    names = {"dataset": ("cifar10", "cifar10-dark", "pack"), "model": ("RN50", "zeroshot")}
    for name in (*names["dataset"], *names["model"], "mine"):
        (tmp_path / "here" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def opened(pictures: str, **given: str) -> ProblemConfig:
        about = {"opened": given, "folder": str(tmp_path / "here"), "pictures": pictures}
        config = opened_config(SimpleNamespace(about=about))  # type: ignore[arg-type]
        assert config is not None
        return config

    for field, values in names.items():
        for value in values:
            source = "feature pack made with zeroshot" if value == "pack" else "pictures"
            assert getattr(opened(source, **{field: value}), field) == value
    assert opened("pictures", dataset="mine").dataset == str(tmp_path / "here" / "mine")
    assert opened("pictures", model="local-dir:mine").model == f"local-dir:{tmp_path / 'here' / 'mine'}"
    assert opened("pictures", weights="mine").weights == str(tmp_path / "here" / "mine")


def test_names_of_classes_and_files_cannot_lead_out_or_collide(tmp_path: Path) -> None:
    names = ["../up", "a/b", "a_b", "A_b", "con", "...", "", "ok"]
    labels = [Labelled(str(tmp_path / "in" / f"{i}.png"), name) for i, name in enumerate(names)]
    labels += [Labelled(str(tmp_path / "in" / p), "ok") for p in ("x/y.png", "x__y.png", "X__Y.png")]
    labels += [Labelled(str(tmp_path / "in" / "bad.png"), "", error="cut off")]
    places = [target.relative_to(tmp_path / "out") for _, target in plan(labels, tmp_path / "in", tmp_path / "out")]
    assert all(len(p.parts) == 2 and ".." not in p.parts for p in places)
    homes = [p.parts[0].casefold() for p in places[: len(names)]]
    assert len(set(homes)) == len(names) and "con" not in homes
    assert len({str(p).casefold() for p in places}) == len(places) == len(names) + 3


def test_bad_input_is_one_line_with_the_remedy(world: Path, tmp_path: Path) -> None:
    new, empty = world / "new", tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    out = tmp_path / "labels.csv"
    out.write_text("mine")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # as a device, it would be replaced by a file
    for args, words in [
        (["predict", "other", new], "no run 'other'"),
        (["predict", RUN, empty], "no picture in"),
        (["predict", RUN, tmp_path / "nowhere"], "no such file or folder"),
        (["predict", RUN], "Missing argument"),
        (["predict", RUN, new, "--out", out], "exists already"),
        (["predict", RUN, new, "--out", tmp_path / "no" / "x.csv"], "there is no folder"),
        (["predict", RUN, new, "--out", tmp_path], "is a directory"),
        (["predict", RUN, new, "--out", pipe, "--force"], "not a regular file; name another, or leave --out out"),
        (["predict", RUN, new, "--top", 4], "has 3 classes"),
        (["predict", RUN, new, "--top", 0], "--top"),
        (["predict", RUN, new, "--unknown-below", "x"], "neither auto nor a probability"),
        (["predict", RUN, new, "--unknown-below", "1.5"], "neither auto nor a probability"),
        (["predict", RUN, new, "--unknown-below", "nan"], "neither auto nor a probability"),
        (["predict", RUN, new, "--force"], "--force would do nothing"),
        (["predict", RUN, new, "--model", "zeroshot"], "other weights"),
        (["predict", RUN, new, "--model", "local-dir:nowhere"], "no such folder"),
        (["predict", RUN, new, "--device", "abacus"], "--device"),
        (["predict", RUN, new, "--storage", tmp_path / "none.db"], "none.db"),
        (["sort", RUN, new], "--into"),
        (["sort", RUN, tmp_path / "nowhere", "--into", tmp_path / "out"], "no such folder"),
        (["sort", RUN, new / "01.png", "--into", tmp_path / "out"], "no such folder"),
        (["sort", RUN, new, "--into", new / "sorted"], "is in"),
        (["sort", RUN, new, "--into", out], "is a file"),
    ]:
        assert words in run(*args, code=2).stderr, args
    assert out.read_text() == "mine" and not (tmp_path / "out").exists() and pipe.is_fifo()


def copy_of_run(name: str, **about: object) -> RunRecord:
    """The run under another name, with other things said of it."""
    kept = RunRecord.load(RUN)
    first = {key: kept.get(key) for key in ("start", "bank", "draw")}
    record = RunRecord.open(name, None, kept.config, {**kept.about, **about}, first)
    by_step = [(t.prompt_set, t.score) for t in kept.all_trials() if t.score is not None]
    record.add(by_step, 0, len(by_step))
    return record


def test_a_run_whose_model_is_gone_says_where_to_name_it(world: Path, tmp_path: Path) -> None:
    record = copy_of_run("moved", opened={**RunRecord.load(RUN).about["opened"], "model": f"local-dir:{tmp_path}/gone"})
    record.finish({**RunRecord.load(RUN).result, "run": {}})  # type: ignore[dict-item]
    done = run("predict", "moved", world / "new", code=2)
    assert "its model cannot be opened" in done.stderr and "say where it is now with --model" in done.stderr
    with pytest.raises(InputError, match="say where it is now with model or weights"):
        PromptSearch.load("moved")
    found = run("predict", "moved", world / "new", "--model", f"local-dir:{TINY}", "--quiet").stdout
    assert found == run("predict", RUN, world / "new", "--quiet").stdout


def test_a_run_of_before_gets_its_calibration_from_its_pictures(world: Path, tmp_path: Path) -> None:
    """Earlier versions recorded none; nor has an unfinished run."""
    old = {k: v for k, v in RunRecord.load(RUN).result.items() if k != "calibration"}  # type: ignore[union-attr]
    record = copy_of_run("old")
    record.finish({**old, "run": {}})
    assert (
        run("predict", "old", world / "new", "--quiet").stdout == run("predict", RUN, world / "new", "--quiet").stdout
    )
    ours = open_classifier(RunRecord.load("old")).calibration
    assert ours == Calibration.from_dict(RunRecord.load(RUN).result["calibration"])  # type: ignore[index]
    moved = copy_of_run("homeless", opened={**record.about["opened"], "dataset": str(tmp_path / "gone")})
    moved.finish({**old, "run": {}})
    assert "has no calibration" in run("predict", "homeless", world / "new", code=2).stderr
    run("predict", "homeless", world / "new", "--dataset", world / "data", "--quiet")
    copy_of_run("unfinished")
    assert "is not finished" in run("predict", "unfinished", world / "new").stderr


def test_runs_without_a_winner_of_prompts_are_refused(world: Path) -> None:
    config = RunRecord.load(RUN).config
    for command, words in (("compare", "is a comparison"), ("coop", "learnt vectors")):
        search = dataclasses.replace(config.search, searcher=command)
        record = RunRecord.open(command, None, dataclasses.replace(config, search=search), {"classes": list(CLASSES)})
        record.finish({"command": command, "winner": {"templates": ["x {}"], "readable": False}})
        assert words in run("predict", command, world / "new", code=2).stderr


def test_too_few_shots_for_a_threshold_and_a_class_called_unknown(world: Path) -> None:
    document = json.loads(json.dumps(RunRecord.load(RUN).result))
    document["calibration"]["unknown_below"] = None
    copy_of_run("few").finish({**document, "run": {}})
    assert "fewer than 19" in run("predict", "few", world / "new", "--unknown-below", "auto", code=2).stderr
    copy_of_run("named", classes=["airplane", "unknown", "ship"]).finish({**document, "run": {}})
    assert "is called 'unknown'" in run("predict", "named", world / "new", "--unknown-below", 0.5, code=2).stderr
