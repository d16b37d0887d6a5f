"""Folders and ONNX models label every picture as the run does, without promptsearch; winners are pushed to a hub."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from labelled_world import CLASSES, RUN, add_odd_pictures, make_world, run, use_world
from loopback_hub import loopback_hub
from safetensors.numpy import load_file

from promptsearch import PromptSearch
from promptsearch.errors import InputError
from promptsearch.runs import RunRecord

SCRIPTS = Path(__file__).resolve().parent.parent / "reports" / "scripts"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_world(tmp_path_factory.mktemp("exported"))
    add_odd_pictures(root / "new")
    (root / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.MonkeyPatch.context() as patch:
        use_world(root, patch)
        run("export", RUN, "--to", "folder", "--out", root / "folder")
    return root


@pytest.fixture(autouse=True)
def here(world: Path, isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    use_world(world, monkeypatch)


def rows(text: str) -> dict[str, tuple[str, float]]:
    """The label and the probability of each picture; 0 of one that cannot be read."""
    found = csv.DictReader(io.StringIO(text))
    return {r["path"]: (r["label"], float(r["probability"] or 0)) for r in found}


def same(ours: dict[str, tuple[str, float]], theirs: dict[str, tuple[str, float]], atol: float = 2e-4) -> None:
    assert ours.keys() == theirs.keys()
    assert {p: label for p, (label, _) in ours.items()} == {p: label for p, (label, _) in theirs.items()}
    np.testing.assert_allclose([ours[p][1] for p in ours], [theirs[p][1] for p in ours], atol=atol)


#: What runs a script where promptsearch cannot be imported.
ALONE = """
import runpy, sys
sys.modules["promptsearch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def label_alone(folder: Path, pictures: Path) -> dict[str, tuple[str, float]]:
    """Run a folder's `predict.py` in a process without promptsearch."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", ALONE, folder / "predict.py", pictures]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    return {path: row for path, row in found.items() if not path.endswith(".txt")}


def test_folder_open_clip_and_the_estimator_agree_on_every_picture(world: Path) -> None:
    ours = rows(run("predict", RUN, world / "new", "--quiet").stdout)
    assert len(ours) == 53 and set(CLASSES) | {""} >= {label for label, _ in ours.values()}
    folder = world / "folder"
    same(rows(run("predict", folder, world / "new", "--quiet").stdout), ours)
    same(label_alone(folder, world / "new"), ours)
    readable = [path for path, (label, _) in ours.items() if label]
    for loaded in (PromptSearch.load(RUN, device="cpu"), PromptSearch.load(str(folder), device="cpu")):
        assert loaded.predict(readable).tolist() == [ours[p][0] for p in readable]
        np.testing.assert_allclose(loaded.predict_proba(readable).max(1), [ours[p][1] for p in readable], atol=2e-4)
        assert loaded.prompts_ == PromptSearch.load(RUN).prompts_

    import open_clip
    import torch
    from safetensors import safe_open

    with safe_open(str(folder / "classifier.safetensors"), "pt") as f:
        classifier = f.get_tensor("classifier")  # (D, C)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    from promptsearch.evaluators.data.encoded_picture import StoredPicture

    with torch.inference_mode():
        pixels = torch.stack([preprocess(StoredPicture(None, p, "picture").open()) for p in readable])
        best = (model.encode_image(pixels, normalize=True) @ classifier).argmax(dim=1)
    assert [CLASSES[i] for i in best] == [ours[p][0] for p in readable]


def test_the_folder_says_what_it_is_and_nothing_of_this_machine(world: Path) -> None:
    folder = world / "folder"
    config = json.loads((folder / "classifier.json").read_text())
    document = RunRecord.load(RUN).result
    assert document is not None
    assert config["class_names"] == list(CLASSES) and config["logit_scale"] == document["calibration"]["logit_scale"]
    assert config["preprocess"]["resize_mode"] == "shortest" and len(config["preprocess"]["mean"]) == 3
    card = (folder / "README.md").read_text()
    test = document["winner"]["test"]
    assert f"{test['accuracy']:.2%}" in card and "hand-written" in card and "8 labelled pictures" in card
    for file in ("README.md", "classifier.json", "predict.py"):
        assert str(world) not in (folder / file).read_text()

    import yaml

    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "open_clip" and "promptsearch" in head["tags"]


def test_a_moved_folder_works_and_a_damaged_one_says_so(world: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(world / "folder", moved)
    some = world / "new" / "01.png"
    assert rows(run("predict", moved, some).stdout) == rows(run("predict", RUN, some).stdout)
    config = json.loads((moved / "classifier.json").read_text())
    for change, words in [
        ({"format": 2}, "this version reads 1"),
        ({"class_names": ["cat"]}, "has weights for another number of classes than 1"),
        ({"class_names": "cat"}, "is damaged"),
        ({"logit_scale": "warm"}, "is damaged"),
        ({"open_clip": None}, "ONNX export"),
        ({"open_clip": {"model_name": "../x:y"}}, "is damaged"),
        ({"open_clip": {"model_name": "RN50:openai"}}, "is damaged"),
        ({"open_clip": {"model_name": "ViT-Z", "pretrained": "openai"}}, "no such architecture"),
    ]:
        (moved / "classifier.json").write_text(json.dumps({**config, **change}))
        assert words in run("predict", moved, some, code=2).stderr, change
    (moved / "classifier.json").write_text("{")
    assert "is damaged" in run("predict", moved, some, code=2).stderr
    (moved / "classifier.json").write_text(json.dumps(config))
    assert "--storage would do nothing" in run("predict", moved, some, "--storage", "x.db", code=2).stderr
    weights = (moved / "classifier.safetensors").read_bytes()
    (moved / "classifier.safetensors").write_bytes(weights[:-9])
    assert "cannot be read" in run("predict", moved, some, code=2).stderr
    (moved / "classifier.safetensors").write_bytes(weights)
    (moved / "open_clip_model.safetensors").unlink()
    assert "no weights there" in run("predict", moved, some, code=2).stderr
    (moved / "classifier.json").write_text(json.dumps({**config, "prompts": {"templates": []}}))
    with pytest.raises(InputError, match="its prompts"):
        shutil.copyfile(world / "folder" / "open_clip_model.safetensors", moved / "open_clip_model.safetensors")
        PromptSearch.load(str(moved))


def test_models_that_are_named_are_not_copied(world: Path, tmp_path: Path) -> None:
    """A random open_clip architecture is copied, since nobody else has it; one with a tag would be named."""
    from promptsearch.evaluators import Encoder, default_cache, resolve_model
    from promptsearch.evaluators.encoding.model_spec import ModelSpec
    from promptsearch.reports.folder import _by_name

    cache = default_cache()
    given = ("cpu", "fp32")
    named = Encoder(ModelSpec("RN50", "RN50", "openai", None, "x", *given), cache)
    assert _by_name(named) == {"model_name": "RN50", "pretrained": "openai", "force_quick_gelu": True}
    hub = Encoder(ModelSpec("hf-hub:a/b", "hf-hub:a/b", None, None, "x", *given), cache)
    assert _by_name(hub) == {"model_name": "hf-hub:a/b"}
    assert _by_name(Encoder(resolve_model("tiny", cache, device="cpu"), cache)) is None


def test_an_estimator_exports_folders_too(world: Path, tmp_path: Path) -> None:
    ps = PromptSearch.load(RUN, device="cpu")
    ps.export("folder", tmp_path / "own")
    some = [str(world / "new" / "01.png"), str(world / "new" / "02.png")]
    again = PromptSearch.load(str(tmp_path / "own"), device="cpu")
    np.testing.assert_allclose(again.predict_proba(some), ps.predict_proba(some), atol=1e-6)
    assert again.unknown_below_ == ps.unknown_below_ is not None
    with pytest.raises(InputError, match="no record of its run"):
        again.export("bank", tmp_path / "x.txt")
    with pytest.raises(InputError, match="leave them out"):
        PromptSearch.load(str(tmp_path / "own"), storage="x.db")


def test_the_onnx_model_computes_what_pytorch_does_for_batches_of_any_size(world: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'promptsearch[onnx]'")
    import onnxruntime

    from promptsearch.evaluators.data.encoded_picture import StoredPicture

    folder = tmp_path / "onnx"
    run("export", RUN, "--to", "onnx", "--out", folder)
    ours = rows(run("predict", RUN, world / "new", "--quiet").stdout)
    same(label_alone(folder, world / "new"), ours)
    ps = PromptSearch.load(RUN, device="cpu")
    readable = [path for path, (label, _) in ours.items() if label]
    features = ps._encoder.encode_pictures([StoredPicture(None, p, p) for p in readable])
    pixels = np.stack([ps._encoder.preprocess(StoredPicture(None, p, p).open()).numpy() for p in readable])
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for n in (1, len(readable)):
        shares, vectors = session.run(["probabilities", "features"], {"pixels": pixels[:n]})
        np.testing.assert_allclose(vectors, features[:n], atol=1e-5)
        np.testing.assert_allclose(shares, ps.predict_proba(readable[:n]), atol=1e-4)
    assert not (folder / "open_clip_model.safetensors").exists()
    assert "ONNX export" in run("predict", folder, readable[0], code=2).stderr


def test_the_two_scripts_open_pictures_in_the_same_words() -> None:
    def source(name: str) -> str:
        text = (SCRIPTS / name).read_text()
        return text[text.index("def open_picture") : text.index('return picture.convert("RGB")')]

    assert source("predict_onnx.py") == source("predict_open_clip.py")


def test_exports_that_cannot_be_say_why(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    for args, words in [
        (["--to", "folder"], "--out FOLDER"),
        (["--to", "onnx"], "--out FOLDER"),
        (["--to", "folder", "--out", full], "exists already"),
        (["--to", "folder", "--out", full / "mine.txt"], "exists already"),
        (["--to", "folder", "--out", full / "mine.txt" / "x"], "cannot be written"),
        (["--to", "hub"], "--repo OWNER/NAME"),
        (["--to", "hub", "--repo", "../up"], "not the name of a repository"),
        (["--to", "hub", "--repo", "me/x", "--out", full], "leave it out"),
        (["--to", "folder", "--repo", "me/x", "--out", tmp_path / "y"], "only for --to hub"),
        (["--to", "bank", "--private"], "only for --to hub"),
        (["--to", "folder", "--out", tmp_path / "y", "--model", "local-dir:nowhere"], "cannot be opened"),
    ]:
        assert words in run("export", RUN, *args, code=2).stderr, args
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("hub")) == ["full"]
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "onnx" else find(name, *a))
    done = run("export", RUN, "--to", "onnx", "--out", tmp_path / "onnx", code=1)
    assert "pip install 'promptsearch[onnx]'" in done.stderr and not (tmp_path / "onnx").exists()


def test_a_disk_that_is_full_is_not_blamed_on_the_model(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'promptsearch[onnx]'")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.onnx.export", full)
    done = run("export", RUN, "--to", "onnx", "--out", tmp_path / "onnx", code=2)
    assert "cannot be written (No space left on device); free some space" in done.stderr
    assert not (tmp_path / "onnx").exists()


PUSH = """
import json, os, sys
from click.testing import CliRunner
from promptsearch.cli import main
for token, repo, *more in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    done = CliRunner().invoke(main, ["export", "mine", "--to", "hub", "--repo", repo, *more])
    print(json.dumps([done.exit_code, done.output]))
"""


def test_a_winner_is_pushed_to_a_hub_and_loaded_from_there(world: Path, tmp_path: Path) -> None:
    with loopback_hub(tmp_path) as (hub, env):
        hub.writers["secret"] = "me"
        pushes = [
            ("secret", "me/winner", "--private"),
            ("secret", "me/winner"),
            ("secret", "other/winner"),
            ("wrong", "me/winner"),
        ]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with Forked([json.dumps(pushes)], code=PUSH, env={**env, "OMP_NUM_THREADS": "1"}, **streams) as process:
            out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        first, again, *refused = map(json.loads, out.splitlines())
        assert first[0] == again[0] == 0 and "me/winner" in first[1], (first, again)
        assert hub.created == {"me/winner": True}
        for (code, said), words in zip(refused, ("403", "401"), strict=True):
            (line,) = [text for text in said.splitlines() if text.startswith("Error: ")]
            assert code == 1 and words in line and "hf auth login" in line and "Traceback" not in said
    there = tmp_path / "hub" / "me" / "winner"
    assert sorted(p.name for p in there.iterdir()) == sorted(os.listdir(world / "folder"))
    theirs, ours = (load_file(f / "classifier.safetensors")["classifier"] for f in (there, world / "folder"))
    np.testing.assert_array_equal(theirs, ours)
    card = (there / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: open_clip") and "hf download me/winner" in card
    some = world / "new" / "01.png"
    assert rows(run("predict", there, some).stdout) == rows(run("predict", RUN, some).stdout)
    assert "cannot be reached" in run("export", RUN, "--to", "hub", "--repo", "me/winner", code=1).stderr
