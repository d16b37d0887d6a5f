"""Labelled pictures from parquet files and picture folders, and every way they can be wrong."""

from __future__ import annotations

import io
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data import hub
from promptsearch.evaluators.data.datasets import dataset_cached, open_dataset

SHARED = Path(__file__).resolve().parents[2] / "shared" / "cifar10"
NAMES = ["fire_truck", "owl", "cat"]


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr(hub, "_answer", None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # imported before conftest could say so


def encoded(value: int, form: str = "PNG", size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, (value,) * len(mode) if len(mode) > 1 else value).save(out, form)
    return out.getvalue()


def write(
    folder: Path,
    split: str,
    labels: Sequence[Any],
    label_feature: Any = None,
    pictures: Sequence[bytes] | None = None,
    **more: tuple[Any, Sequence[Any]],
) -> Path:
    """One parquet file in the hub's schema; picture i is filled with the grey level i."""
    file = folder / (split if split.endswith(".parquet") else f"{split}-00000-of-00001.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = pictures or [encoded(i) for i in range(len(labels))]
    columns = {"img": [{"bytes": p, "path": None} for p in pictures], "label": list(labels)}
    features = {"img": ImageFeature(), "label": label_feature or ClassLabel(names=NAMES)}
    for name, (feature, values) in more.items():
        columns[name], features[name] = list(values), feature
    Dataset.from_dict(columns, features=Features(features)).to_parquet(file)
    return folder


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    folder = write(tmp_path / "pets", "train", [2, 0, 1, 2, 0, 1])
    return write(folder, "test", [0, 1, 2])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, n in (("train", 3), ("test", 2)):
        for c, name in enumerate(("cat", "fire_truck")):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for i in range(n):
                (tmp_path / "tree" / split / name / f"{i}.png").write_bytes(encoded(10 * c + i))
    return tmp_path / "tree"


def levels(pictures: Any) -> list[int]:
    return [p.getpixel((0, 0))[0] for p in pictures]


def test_parquet(parquet: Path) -> None:
    data = open_dataset(str(parquet))
    assert data.spec == str(parquet)
    assert data.class_names == ("fire truck", "owl", "cat")
    assert (data.splits, data.train_split, data.test_split) == (("train", "test"), "train", "test")
    assert data.labels("train").tolist() == [2, 0, 1, 2, 0, 1]
    assert data.labels("test").dtype == np.int64
    picture = next(data.pictures("train", [3]))
    assert (picture.mode, picture.size) == ("RGB", (6, 4))


def test_local_folders_ask_no_network(parquet: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or [])
    for folder in (parquet, folders):
        next(open_dataset(str(folder)).pictures("test", [0]))
    assert asked == []


def test_a_file_written_anew_is_read_anew(parquet: Path) -> None:
    assert open_dataset(str(parquet)).labels("test").tolist() == [0, 1, 2]
    write(parquet, "test", [2, 1, 0])
    assert open_dataset(str(parquet)).labels("test").tolist() == [2, 1, 0]


def test_real_cifar10_or_a_small_set_of_its_schema(tmp_path: Path) -> None:
    folder = SHARED
    if not folder.is_dir():
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        folder = write(tmp_path / "c", "train", list(range(10)) * 2, ClassLabel(names=names))
        write(folder, "test", range(10), ClassLabel(names=names))
    data = open_dataset(str(folder))
    assert len(data.class_names) == 10 and data.class_names[3] == "cat"
    for split in data.splits:
        assert len(set(np.bincount(data.labels(split)).tolist())) == 1
        assert len(list(data.pictures(split, range(5)))) == 5
    assert data.fingerprint("train") != data.fingerprint("test")


def test_pictures_come_in_the_order_asked_and_lazily(parquet: Path) -> None:
    data = open_dataset(str(parquet))
    assert levels(data.pictures("train", np.array([5, 0, 0, 3]))) == [5, 0, 0, 3]
    endless = data.pictures("train", (i % 6 for i in iter(int, 1)))
    assert levels(next(endless) for _ in range(3)) == [0, 0, 0]


@pytest.mark.parametrize("index", [-1, 6])
def test_no_such_picture(parquet: Path, index: int) -> None:
    with pytest.raises(InputError, match=f"no picture {index}, there are 6"):
        next(open_dataset(str(parquet)).pictures("train", [index]))


@pytest.mark.parametrize("mode", ["L", "RGBA", "1", "P", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    folder = write(tmp_path / "m", "train", [0, 1, 2], pictures=[encoded(0, form, mode=mode)] * 3)
    assert next(open_dataset(str(folder)).pictures("train", [0])).mode == "RGB"


def test_cameras_turn_pictures_with_a_flag(tmp_path: Path) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(out, "JPEG", exif=exif)
    folder = write(tmp_path / "turned", "train", [0, 1, 2], pictures=[out.getvalue()] * 3)
    assert next(open_dataset(str(folder)).pictures("train", [0])).size == (4, 8)


@pytest.mark.parametrize(
    ("files", "splits", "test_split"),
    [
        (["train.parquet", "test.parquet"], ("train", "test"), "test"),
        (["train/0.parquet", "test/0.parquet"], ("train", "test"), "test"),
        (["plain_text/train-0-of-1.parquet", "plain_text/val-0-of-1.parquet"], ("train", "test"), "val"),
        (["train-0.parquet", "train-1.parquet", "validation-0.parquet"], ("train", "test"), "validation"),
        (["train-0.parquet", "validation-0.parquet", "test-0.parquet"], ("train", "test"), "test"),
        (["train_small.parquet", "extra.parquet"], ("train",), None),
        (["test-0.parquet"], ("test",), "test"),
    ],
)
def test_splits_from_file_names(tmp_path: Path, files: list[str], splits: tuple[str, ...], test_split: str) -> None:
    for file in files:
        write(tmp_path / "d [x] *?", file, [0, 1, 2])
    data = open_dataset(str(tmp_path / "d [x] *?"))
    assert (data.splits, data.test_split) == (splits, test_split)
    if "train" in splits:
        assert len(data.labels("train")) == 3 * sum(file.startswith("train-") or "train" in file for file in files)
    for role in {"train", "test"} - set(splits):
        with pytest.raises(PromptSearchError, match=f"has no '{role}' split"):
            data.labels(role)


def test_parquet_without_splits_or_in_several_folders(tmp_path: Path) -> None:
    write(tmp_path / "a", "data.parquet", [0, 1, 2])
    data = open_dataset(str(tmp_path / "a"))
    assert (data.splits, data.train_split, data.labels("train").tolist()) == (("train",), "all", [0, 1, 2])
    write(tmp_path / "b", "fine/train-0.parquet", [0, 1, 2])
    write(tmp_path / "b", "coarse/train-0.parquet", [0, 1, 2])
    with pytest.raises(InputError, match="several folders.*coarse, fine"):
        open_dataset(str(tmp_path / "b"))


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    coarse = ClassLabel(names=["thing", "animal"])
    extra = {"coarse_label": (coarse, [1, 0, 1]), "mask": (ImageFeature(), [{"bytes": encoded(99), "path": None}] * 3)}
    folder = str(write(tmp_path / "two", "train", [0, 1, 2], **extra))
    assert open_dataset(folder).class_names == ("fire truck", "owl", "cat")
    named = open_dataset(folder, picture_column="mask", label_column="coarse_label")
    assert named.class_names == ("thing", "animal")
    assert levels(named.pictures("train", [0])) == [99]
    assert named.fingerprint("train") != open_dataset(folder).fingerprint("train")
    with pytest.raises(InputError, match="--label-column nope.*img, label"):
        open_dataset(folder, label_column="nope")
    with pytest.raises(InputError, match="--picture-column label: .* no pictures"):  # numbers
        open_dataset(folder, picture_column="label")


def test_columns_that_cannot_be_told_are_listed(tmp_path: Path) -> None:
    table = write(tmp_path / "src", "train", [0, 1, 2], other=(ClassLabel(names=["x", "y"]), [0, 1, 0]))
    source = Dataset.from_parquet(str(table / "train-00000-of-00001.parquet"))
    (tmp_path / "several").mkdir()
    source.rename_column("label", "kind").to_parquet(tmp_path / "several" / "train.parquet")
    with pytest.raises(InputError, match=r"several label columns \((kind, other|other, kind)\).*--label-column"):
        open_dataset(str(tmp_path / "several"))
    (tmp_path / "blind").mkdir()
    source.remove_columns(["img"]).to_parquet(tmp_path / "blind" / "train.parquet")
    with pytest.raises(InputError, match="no picture column among label, other.*--picture-column"):
        open_dataset(str(tmp_path / "blind"))
    (tmp_path / "bare").mkdir()
    source.remove_columns(["label", "other"]).to_parquet(tmp_path / "bare" / "train.parquet")
    with pytest.raises(InputError, match="no label column among img.*--label-column"):
        open_dataset(str(tmp_path / "bare"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_plain_bytes_are_found_or_named(tmp_path: Path, wrapped: bool) -> None:
    cells: list[Any] = [encoded(i) for i in range(2)]
    if wrapped:
        cells = [{"bytes": cell, "path": "x.png"} for cell in cells]
    pq.write_table(pa.table({"photo": cells, "label": ["owl", "cat"]}), tmp_path / "train.parquet")
    for named in (None, "photo"):
        data = open_dataset(str(tmp_path), picture_column=named)
        assert levels(data.pictures("train", [1, 0])) == [1, 0]
    pq.write_table(pa.table({"a": cells, "b": cells, "label": ["owl", "cat"]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"several picture columns \(a, b\); choose one with --picture-column"):
        open_dataset(str(tmp_path))


def test_texts_as_labels(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", "train", ["owl", "fire_truck", "owl"], Value("string"))
    write(folder, "test", ["owl", "owl"], Value("string"))
    data = open_dataset(str(folder))
    assert data.class_names == ("fire truck", "owl")
    assert (data.labels("train").tolist(), data.labels("test").tolist()) == ([1, 0, 1], [1, 1])
    write(folder, "test", ["owl", "fox"], Value("string"))
    with pytest.raises(PromptSearchError, match="'test': class 'fox' is not among the 2"):
        open_dataset(str(folder)).labels("test")


def test_numbers_without_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "numbers", "train", [0, 1, 2], Value("int64"))
    with pytest.raises(InputError, match="'label' .int64. has no class names; .*--class-names FILE.*ClassLabel"):
        open_dataset(str(folder))
    assert open_dataset(str(folder), renamed=True).class_names == ("0", "1", "2")


@pytest.mark.parametrize(("labels", "count"), [([-1, -1, -1], 3), ([0, None, 2], 1)])
def test_missing_labels(tmp_path: Path, labels: list[int | None], count: int) -> None:
    folder = write(tmp_path / "hidden", "train", [0, 1, 2])
    write(folder, "test", labels)
    data = open_dataset(str(folder))
    with pytest.raises(PromptSearchError, match=f"'test': {count} of 3 pictures have no label"):
        data.labels("test")


def test_a_class_without_training_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "gap", "train", [0, 2, 2])
    with pytest.raises(PromptSearchError, match="'train': class 'owl' has no picture"):
        open_dataset(str(folder))
    write(tmp_path / "one", "train", [0, 0], ClassLabel(names=["owl"]))
    with pytest.raises(InputError, match=r"one class \(owl\)"):
        open_dataset(str(tmp_path / "one"))


def test_splits_must_agree_on_the_classes(tmp_path: Path) -> None:
    folder = write(tmp_path / "swapped", "train", [0, 1, 2])
    write(folder, "test", [0, 1, 2], ClassLabel(names=NAMES[::-1]))
    with pytest.raises(InputError, match="column 'label'.*split 'test'"):
        open_dataset(str(folder))


@pytest.mark.parametrize("content", [encoded(1, "JPEG", (64, 64))[:300], b"no picture", b""])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "broken", "train", [0, 1, 2], pictures=[encoded(0), encoded(1), content])
    pictures = open_dataset(str(folder)).pictures("train", range(3))
    assert levels([next(pictures), next(pictures)]) == [0, 1]
    with pytest.raises(PromptSearchError, match=r"broken'?, split 'train', picture 2 cannot be decoded .*replace it"):
        next(pictures)


def test_a_broken_parquet_file(parquet: Path) -> None:
    file = next(parquet.glob("train-*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PromptSearchError, match="train-00000-of-00001.parquet cannot be read"):
        open_dataset(str(parquet))


def test_picture_folders_are_read_as_imagefolder_reads_them(folders: Path) -> None:
    data = open_dataset(str(folders))
    reference = load_dataset("imagefolder", data_dir=str(folders))
    assert data.class_names == ("cat", "fire truck")
    for split in ("train", "test"):
        assert data.labels(split).tolist() == list(reference[split]["label"])
        n = len(data.labels(split))
        assert levels(data.pictures(split, range(n))) == levels(reference[split]["image"])


def test_picture_folders_nested_linked_and_with_other_files(folders: Path) -> None:
    (folders / "train" / "cat" / "more").mkdir()
    (folders / "train" / "cat" / "more" / "9.JPG").write_bytes(encoded(200, "JPEG"))
    (folders / "train" / "cat" / "notes.txt").write_text("not a picture")
    (folders / "train" / "cat" / "._0.png").write_bytes(b"left by a file manager")
    shutil.move(folders / "test" / "cat", folders.parent / "elsewhere")
    (folders / "test" / "cat").symlink_to(folders.parent / "elsewhere")
    data = open_dataset(str(folders))
    assert data.labels("train").tolist() == [0] * 4 + [1] * 3
    assert data.labels("test").tolist() == [0, 0, 1, 1]


def test_a_text_named_png(folders: Path) -> None:
    (folders / "train" / "fire_truck" / "1.png").write_text("not a picture")
    data = open_dataset(str(folders))
    with pytest.raises(PromptSearchError, match=r"split 'train', picture 4 \(.*1.png\) cannot be decoded"):
        list(data.pictures("train", range(6)))
    assert len(list(data.pictures("train", [0, 1, 2, 3, 5]))) == 5


def test_picture_folders_of_the_wrong_shape(folders: Path, tmp_path: Path) -> None:
    whole = open_dataset(str(folders / "train"))
    assert whole.layout.kind == "a folder of class folders without splits" and len(whole.labels("train")) == 6
    with pytest.raises(InputError, match="has no 'test' split .it has all.; hold out .* --test-share 0.3"):
        whole.labels("test")
    (folders / "test" / "dog").mkdir()
    (folders / "test" / "dog" / "0.png").write_bytes(encoded(0))
    with pytest.raises(PromptSearchError, match="class 'dog' has no picture"):
        open_dataset(str(folders))
    shutil.copy(folders / "test" / "dog" / "0.png", folders / "train" / "0.png")
    with pytest.raises(InputError, match="train/0.png lies in no class folder"):
        open_dataset(str(folders))
    (tmp_path / "hollow" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="train holds no pictures in class folders"):
        open_dataset(str(tmp_path / "hollow"))


def test_fingerprint_is_of_the_content(parquet: Path, folders: Path, tmp_path: Path) -> None:
    for folder, victim in ((parquet, "train-00000-of-00001.parquet"), (folders, "train/cat/0.png")):
        before = {split: open_dataset(str(folder)).fingerprint(split) for split in ("train", "test")}
        moved = shutil.copytree(folder, tmp_path / f"moved-{folder.name}")
        assert open_dataset(str(moved)).fingerprint("train") == before["train"]
        (moved / victim).write_bytes(
            encoded(77) if victim.endswith("png") else next(folder.glob("test-*")).read_bytes()
        )
        assert open_dataset(str(moved)).fingerprint("train") != before["train"]
        assert open_dataset(str(moved)).fingerprint("test") == before["test"]
    assert before["train"] != before["test"]
    renamed = folders / "train" / "cat"
    (renamed / "0.png").rename(renamed / "00.png")
    assert open_dataset(str(folders)).fingerprint("train") != before["train"]


def test_no_such_place(tmp_path: Path) -> None:
    for spec in (str(tmp_path / "missing"), "./missing", "", "mnist", "a/b/c", "~nobody/x", "cifar10-dark", "a/b:c:d"):
        with pytest.raises(InputError, match="no such folder, and neither cifar10, cifar100 nor a hub id"):
            open_dataset(spec)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="this folder holds no parquet files"):
        open_dataset(str(tmp_path / "empty"))
    (tmp_path / "file.parquet").write_bytes(b"")
    with pytest.raises(PromptSearchError, match="file.parquet is empty"):
        open_dataset(str(tmp_path / "file.parquet"))
    (tmp_path / "notes.md").write_text("no data")
    with pytest.raises(InputError, match="notes.md: not a file of a known kind; give a list of pictures"):
        open_dataset(str(tmp_path / "notes.md"))
    (tmp_path / "pets.ZIP").write_bytes(b"PK")
    with pytest.raises(InputError, match="pets.ZIP: a zip archive; unpack it, and give the folder"):
        open_dataset(str(tmp_path / "pets.ZIP"))


@pytest.mark.parametrize("spec", ["cifar10", "cifar100", "someone/pets", "someone/pets:small"])
def test_offline_and_not_cached(spec: str) -> None:
    assert not dataset_cached(spec)
    with pytest.raises(
        PromptSearchError, match="HF_HUB_OFFLINE is set.*--dataset PATH.*HF_ENDPOINT.*--model zeroshot"
    ) as e:
        open_dataset(spec)
    assert not isinstance(e.value, InputError)


def test_dataset_cached(parquet: Path, tmp_path: Path) -> None:
    assert dataset_cached(str(parquet))
    place = tmp_path / "datasets-cache" / "someone___my_pets" / "small" / "0.0.0"
    (place / "abc.incomplete").mkdir(parents=True)
    (place / "abc.incomplete" / "dataset_info.json").write_text("{}")
    assert not dataset_cached("someone/MyPets")
    (place / "abc.incomplete").rename(place / "abc")
    assert dataset_cached("someone/MyPets") and dataset_cached("someone/MyPets:small")
    assert not dataset_cached("someone/MyPets:large")
