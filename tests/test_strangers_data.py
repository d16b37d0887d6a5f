"""Packs, parquet files and test splits that are not what they should be: one line each, in bounded memory."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_model import TINY

from promptsearch import PromptSearch
from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Cache, open_problem
from promptsearch.evaluators.cache import digest_of, read_block, write_block
from promptsearch.evaluators.data import open_dataset
from promptsearch.evaluators.data.picture_features import import_pack


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


KEY = {"model": "m", "dataset": "pets", "split": "train"}
META = {"class_names": ["cat", "ship"], "made_with": "tiny (fp32, cpu)", "data": "x"}
UNIT = np.eye(4, dtype=np.float16)
ARRAYS = {"features": UNIT, "labels": np.array([0, 0, 1, 1], np.int16), "indices": np.arange(4, dtype=np.int32)}


def pack(folder: Path, key: Any = KEY, meta: Any = META, **arrays: Any) -> Path:
    given_arrays = {k: v for k, v in {**ARRAYS, **arrays}.items() if v is not None}
    write_block(folder / "packs" / digest_of(key), key, given_arrays, meta)
    return folder


WRONG_PACKS = {
    "no features": ({"features": None}, "missing"),
    "one dimension": ({"features": np.ones(4, np.float16)}, "features of shape"),
    "words": ({"features": np.ones((4, 4), np.int8)}, "features of shape"),
    "empty": ({"features": np.zeros((0, 4), np.float16)}, "features of shape"),
    "short labels": ({"labels": np.zeros(3, np.int16)}, "labels of shape"),
    "negative labels": ({"labels": np.array([0, 0, 1, -1])}, "below 0"),
    "float labels": ({"labels": np.zeros(4, np.float32)}, "labels of shape"),
    "label too large": ({"labels": np.array([0, 0, 1, 7])}, "label 7, and 2 classes"),
    "indices": ({"indices": np.array([0, 1, 2, -5])}, "below 0"),
    "nan": ({"features": np.where(UNIT, np.nan, 0).astype(np.float16)}, "picture 0 is not finite"),
    "zeros": ({"features": np.zeros((4, 4), np.float16)}, "not of unit length"),
    "no names": ({"meta": {**META, "class_names": None}}, "no list of two or more class names"),
    "one name": ({"meta": {**META, "class_names": ["cat"]}}, "no list of two or more class names"),
    "numbers": ({"meta": {**META, "class_names": [1, 2]}}, "no list of two or more class names"),
    "same names": ({"meta": {**META, "class_names": ["cat", "CAT"]}}, "both read"),
    "escape": ({"meta": {**META, "class_names": ["cat", "\x1b[31mship"]}}, "cannot be used as a class name"),
    "no maker": ({"meta": {"class_names": ["cat", "ship"]}}, "does not say what it was made with"),
    "no data set": ({"key": {"model": "m", "split": "train"}}, "names no model, data set"),
    "split": ({"key": {**KEY, "split": "elsewhere"}}, "neither train nor test"),
    "list": ({"key": {**KEY, "dataset": ["x"]}}, "names no model, data set"),
}


@pytest.mark.parametrize("kind", WRONG_PACKS)
def test_a_pack_that_is_none_is_refused_whole(kind: str, tmp_path: Path) -> None:
    change, says = WRONG_PACKS[kind]
    pack(tmp_path / "pack", **change)
    with pytest.raises(InputError, match=says) as refused:
        import_pack(tmp_path / "pack", Cache(tmp_path / "cache"))
    assert str(refused.value).isprintable() and not (tmp_path / "cache").exists()


def test_a_pack_whose_splits_do_not_fit(tmp_path: Path) -> None:
    pack(tmp_path / "pack")
    pack(tmp_path / "pack", {**KEY, "split": "test"}, {**META, "class_names": ["cat", "dog"]})
    with pytest.raises(InputError, match="other classes or dimensions"):
        import_pack(tmp_path / "pack", Cache(tmp_path / "cache"))


def test_pipes_loops_and_names_in_a_pack(tmp_path: Path) -> None:
    folder = pack(tmp_path / "pack", {**KEY, "dataset": "pets\x1b]0;title\x07\x1b[2J"})
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "loop").symlink_to(folder)
    done = CliRunner().invoke(main, ["features", "import", str(folder)])
    assert done.exit_code == 0 and "\x1b" not in done.output and "\x07" not in done.output, done.output


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_changed_in_a_pack_are_refused(tmp_path: Path, seed: int, changes: int) -> None:
    shutil.rmtree(tmp_path / "pack", ignore_errors=True)
    (file,) = pack(tmp_path / "pack").rglob("*.safetensors")
    content, rng = bytearray(file.read_bytes()), random.Random(seed)
    before = bytes(content)
    for _ in range(changes):
        content[rng.randrange(len(content))] = rng.randrange(256)
    file.write_bytes(content[: rng.randrange(len(content))] if seed % 5 == 0 else content)
    if file.read_bytes() == before:
        return
    try:
        import_pack(tmp_path / "pack", Cache(tmp_path / "cache"))
    except InputError as e:
        assert "\n" not in str(e)
    else:  # what was changed is white space of safetensors' own header
        assert (read_block(file).arrays["features"] == UNIT).all()


def table(folder: Path, split: str, pictures: list[bytes], labels: list[int], **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ship"])})
    schema = features.arrow_schema
    column = pa.array([{"bytes": p, "path": None} for p in pictures], schema.field("image").type)
    made = pa.table({"image": column, "label": pa.array(labels, pa.int64())}, schema)
    pq.write_table(made, folder / f"{split}.parquet", **options)
    return folder


def png(level: int) -> bytes:
    import io

    out = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 5, 5)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["dictionary", "zeros"])
def test_parquet_that_becomes_gigabytes_is_refused_before_it_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptsearch.evaluators.data import parquet_size

    monkeypatch.setattr(parquet_size, "ALLOWED", 5_000_000)
    options = {"dictionary_pagesize_limit": 10**7} if kind == "dictionary" else {"use_dictionary": False}
    folder = table(tmp_path / "d", "train", [b"\0" * 100_000] * 100, [0, 1] * 50, compression="zstd", **options)
    assert (folder / "train.parquet").stat().st_size < 50_000
    with pytest.raises(PromptSearchError, match=r"train.parquet has 0.0 MB and would become 0.0 GB"):
        open_dataset(str(folder))
    assert not list((tmp_path / "datasets-cache").rglob("*.arrow"))
    table(tmp_path / "ok", "train", [png(1), png(2)] * 30, [0, 1] * 30)
    assert len(open_dataset(str(tmp_path / "ok")).labels("train")) == 60


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!doctype html><html>", "web page"),
        (b"", "is empty"),
        (b"PAR1garbagePAR1", "download it again"),
    ],
)
def test_files_that_are_no_parquet_say_what_they_are(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(PromptSearchError, match=f"train.parquet .*{says}"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("form", ["parquet", "folder"])
def test_test_pictures_that_are_training_pictures_are_counted(form: str, tmp_path: Path) -> None:
    train, test = [png(i) for i in range(8)], [png(3), png(100), png(3), png(101)]
    folder = tmp_path / "d"
    if form == "parquet":
        table(folder, "train", train, [0, 1] * 4)
        table(folder, "test", test, [0, 0, 0, 0])
    else:
        for split, pictures in (("train", train), ("test", test)):
            for i, content in enumerate(pictures):
                home = folder / split / ("cat" if split == "test" or i % 2 == 0 else "ship")
                home.mkdir(parents=True, exist_ok=True)
                (home / f"{i}.png").write_bytes(content)
    for _ in range(2):  # the second time from the cache
        notes = open_problem("tiny", str(folder), cache=Cache(tmp_path / "cache")).notes
        assert "1 of 2 classes have no test picture (ship): test accuracy says nothing about them." in notes
        assert any(n.startswith("2 of 4 test pictures are also training pictures, byte for byte") for n in notes), notes


def test_large_pictures_that_agree_at_both_ends_only_are_different(tmp_path: Path) -> None:
    ends = [b"a" * 5000, b"z" * 5000]
    table(tmp_path / "d", "train", [ends[0] + b"one" + ends[1], png(1)], [0, 1])
    table(tmp_path / "d", "test", [ends[0] + b"two" + ends[1], png(2)], [0, 1])
    from promptsearch.evaluators.data.overlap import count_shared

    assert count_shared(open_dataset(str(tmp_path / "d"))) == 0
    table(tmp_path / "d", "test", [ends[0] + b"one" + ends[1], png(1)], [0, 1])
    assert count_shared(open_dataset(str(tmp_path / "d"))) == 2


def test_no_request_is_made_with_data_sets_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptsearch.evaluators.data import hub

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_answer", None)
    monkeypatch.setattr(hub, "_ask", lambda timeout: pytest.fail("asked"))
    for value in ("1", "true", "ON", "yes"):
        monkeypatch.setenv("HF_DATASETS_OFFLINE", value)
        with pytest.raises(PromptSearchError, match="HF_DATASETS_OFFLINE is set"):
            open_dataset("someone/pets")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, levels in (("train", (0, 90)), ("test", (100, 190))):
        for name, level in zip(("cat", "ship"), levels, strict=True):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(8):
                (tmp_path / "pets" / split / name / f"{i}.png").write_bytes(png(level + i))
    return tmp_path / "pets"


def test_a_run_is_its_pictures_not_the_spelling_of_their_path(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["beam", "--model", "tiny", "--shots", "2", "--no-estimate", "--width", "2", "--depth", "1", "--dataset"]

    def run_of(dataset: str, *more: str) -> str:
        done = CliRunner().invoke(main, [*args, dataset, "--bank", "simple-imagenet", *more])
        assert done.exit_code == 0, done.output
        found = re.search(r"^Run (\S+):", done.output, re.M)
        assert found, done.output
        return found[1]

    (tmp_path / "link").symlink_to(pets)
    spellings = ("pets", "./pets", "pets/", str(pets), f"{tmp_path}/pets/../pets", "link", "./link/")
    names = {run_of(d) for d in spellings}
    assert len(names) == 1
    mine = run_of("pets", "--study", "mine")
    pets.rename(tmp_path / "moved")
    assert run_of("moved", "--study", "mine") == mine
    (tmp_path / "moved" / "train" / "cat" / "9.png").write_bytes(png(77))
    done = CliRunner().invoke(main, [*args, "moved", "--bank", "simple-imagenet", "--study", "mine"])
    assert done.exit_code == 2 and "data fingerprint" in done.output


@pytest.mark.parametrize(
    ("class_names", "labels", "says"),
    [
        (["cat", "Cat"], [0, 1], "class_names: classes 'cat' and 'Cat' both read 'Cat'"),
        (None, ["cat", "cat_"], "labels: classes 'cat' and 'cat_' both read 'cat'"),
        (["", "cat"], [0, 1], "class '' cannot be used as a class name"),
        ([1, 2], [0, 1], "class_names: 1 is not a text"),
        (None, ["cat", "\x1b[2J"], "cannot be used as a class name in prompts"),
    ],
)
def test_class_names_given_in_python_are_checked_too(class_names: Any, labels: Any, says: str) -> None:
    given = {"features": np.eye(8, 64, dtype=np.float32), "labels": np.array(labels * 4), "class_names": class_names}
    with pytest.raises(InputError, match=re.escape(says)) as refused:
        PromptSearch(model="tiny", random_state=0).fit(**given)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("content", ["cat\nCat\n", "cat\ncat_\n", "sea lion\nsea  lion\n"])
def test_class_names_of_a_file_are_checked_too(content: str, pets: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"names.txt.*both read|names.txt.*(twice|same|already)"):
        open_problem("tiny", str(pets), class_names=str(tmp_path / "names.txt"))


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/x.png", "hf://datasets/a/b/x.png", "/dev/zero", "\0", "../x"])
def test_a_table_that_names_files_elsewhere_is_one_line(path: str, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ship"])})
    cells = pa.array([{"bytes": None, "path": path}] * 2, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": cells, "label": pa.array([0, 1])})
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    (tmp_path / "d").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / "d" / f"{split}.parquet")
    with pytest.raises(PromptSearchError, match="picture 0 .* cannot be decoded") as refused:
        list(open_dataset(str(tmp_path / "d")).pictures("train", [0]))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("command", ["random", "coop", "compare"])
def test_a_run_is_its_model_and_bank_not_the_spelling_of_their_paths(
    command: str, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(TINY)
    for name in ("bank.txt", "copy.txt"):
        (tmp_path / name).write_text("a photo of a {}.\na toy {}.\n", "utf-8")
    own = {
        "random": ["--shots", "2", "--no-estimate", "--trials", "2"],
        "coop": ["--shots", "2", "--epochs", "1", "--hull", "1"],
        "compare": ["--shots", "2", "--seeds", "1", "--methods", "hand-written"],
    }
    found = []
    for model, data, bank in (
        (TINY, "pets", "bank.txt"),
        ("model", "./pets/", "./bank.txt"),
        ("./model/", str(pets), str(tmp_path / "copy.txt")),
    ):
        given = [command, "--model", f"local-dir:{model}", "--dataset", data, "--bank", bank, *own[command], "--json"]
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout)["run"])
    assert found[0] == found[1] == found[2]  # the study, and of a comparison that no cell was computed again


@pytest.mark.parametrize(
    ("names", "blamed"),
    [(["cat", "ship"], "shorten the template"), (["金毛寻回犬幼犬甲", "ship"], "shorten the class name")],
)
def test_what_is_too_long_is_blamed(names: list[str], blamed: str, pets: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (pets / split / "cat").rename(pets / split / names[0])
    template = "a photo of a {}." if names[0] != "cat" else "a " + "very " * 30 + "good {}."
    (tmp_path / "bank.txt").write_text(f"a {{}}.\n{template}\n", "utf-8")
    args = ["beam", "--model", "tiny", "--shots", "2", "--dataset", str(pets), "--bank", str(tmp_path / "bank.txt")]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 2 and blamed in done.output and names[0] in done.output
