"""Which files of a folder are a data set's pictures, whatever else lies there."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from forked import MODELS, Forked
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trial_runs import DROP

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data import open_dataset
from promptsearch.evaluators.data.folder_walk import SUFFIXES, TOOLS

PNG = io.BytesIO()
Image.new("RGB", (6, 4), (200, 30, 30)).save(PNG, "PNG")


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three training and two test pictures each."""
    return make(tmp_path / "pets")


def make(home: Path) -> Path:
    for split, n in (("train", 3), ("test", 2)):
        for name in ("cat", "ship"):
            (home / split / name).mkdir(parents=True)
            for i in range(n):
                (home / split / name / f"{i}.png").write_bytes(PNG.getvalue())
    return home


def counts(home: Path) -> dict[str, list[int]]:
    data = open_dataset(str(home))
    return {split: np.bincount(data.labels(split)).tolist() for split in data.splits}


PLAIN = {"train": [3, 3], "test": [2, 2]}


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", ".git", ".AppleDouble", ".Trash-1000", "@eaDir", "__MACOSX", "__pycache__"]
    + ["#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@Recently-Snapshot"],
)
def test_tool_folders_are_no_pictures_of_a_class_and_no_class(folder: Path, name: str) -> None:
    for place in ("train/cat", "train", "test/ship/deep/deeper"):
        (folder / place / name / "0.png").mkdir(parents=True)
        (folder / place / name / "1.png").write_bytes(PNG.getvalue())
        (folder / place / name / "0.png" / "THUMB.png").write_bytes(PNG.getvalue())
    assert counts(folder) == PLAIN
    data = open_dataset(str(folder))
    assert data.class_names == ("cat", "ship")
    assert any("2 hidden or tool folders" in note and name in note for note in data.notes), data.notes


@pytest.mark.parametrize("name", [".DS_Store", "._0.png", ".hidden.png", "Thumbs.db", "desktop.ini"])
def test_tool_files(folder: Path, name: str) -> None:
    (folder / "train" / "cat" / name).write_bytes(PNG.getvalue())
    assert counts(folder) == PLAIN
    assert "1 hidden or tool files" in open_dataset(str(folder)).notes[0]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".heic", ".heics", ".heif", ".heifs", ".hif", ".avif", ".avifs"}))
def test_every_suffix_of_a_picture_counts_in_any_case(folder: Path, suffix: str) -> None:
    for name in (f"9{suffix}", f"8{suffix.upper()}"):
        shutil.copy(folder / "train" / "cat" / "0.png", folder / "train" / "cat" / name)
    assert counts(folder) == {"train": [5, 3], "test": [2, 2]}


@pytest.mark.parametrize("suffix", [".avif", ".AVIF", ".jfif", ".jpe", ""])
def test_pictures_of_less_usual_names_are_decoded(folder: Path, suffix: str) -> None:
    form = {".avif": "AVIF", "": "PNG"}.get(suffix.lower(), "JPEG")
    Image.new("RGB", (16, 16), (9, 99, 9)).save(folder / "test" / "ship" / f"9{suffix}", form)
    data = open_dataset(str(folder))
    assert np.bincount(data.labels("test")).tolist() == [2, 3]
    assert abs(list(data.pictures("test", range(5)))[-1].getpixel((4, 4))[1] - 99) < 5


@pytest.mark.parametrize("name", ["0.png", "0.JPE", "picture"])
def test_a_picture_beside_the_class_folders_is_refused(folder: Path, name: str) -> None:
    (folder / "train" / "README").write_text("two classes")
    (folder / "train" / name).write_bytes(PNG.getvalue())
    with pytest.raises(InputError, match=f"train/{name} lies in no class folder; move it"):
        open_dataset(str(folder))


def test_a_class_folder_that_leads_out_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "train" / "ship").rename(tmp_path / "elsewhere" / "ship")
    (folder / "train" / "ship").symlink_to(tmp_path / "elsewhere" / "ship")
    data = open_dataset(str(folder))
    assert np.bincount(data.labels("train")).tolist() == [3, 3] and "train/ship → " in " ".join(data.notes)


def test_what_is_no_picture_is_said(folder: Path) -> None:
    home = folder / "train" / "cat"
    for name in ("a.txt", "b.csv", "c.mp4", "d.png.bak", "README"):
        (home / name).write_text("no picture")
    (note,) = open_dataset(str(folder)).notes
    assert "4 files without the suffix of a picture (train/cat/a.txt, train/cat/b.csv, train/cat/c.mp4 …)" in note
    assert "1 files without a suffix that begin like no picture (train/cat/README)" in note


def test_heic_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptsearch.evaluators.data import encoded_picture

    (folder / "train" / "cat" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 32)
    monkeypatch.setattr(encoded_picture, "openable", lambda: ("PNG",))
    with pytest.raises(PromptSearchError, match=r"train/cat/phone.HEIC is HEIC, .*pip install 'promptsearch\[heic\]'"):
        open_dataset(str(folder))


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../ship", "/"])
def test_links_back_are_passed_over_and_said(folder: Path, target: str) -> None:
    (folder / "train" / "cat" / "more").symlink_to(target, target_is_directory=True)
    assert counts(folder) == PLAIN
    assert "1 links back into the data set (train/cat/more)" in open_dataset(str(folder)).notes[0]


def test_a_class_folder_that_is_a_link_up_is_no_class(folder: Path) -> None:
    (folder / "train" / "loop").symlink_to("..", target_is_directory=True)
    assert counts(folder) == PLAIN


def test_links_to_elsewhere_are_followed_once_and_said(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "9.png").write_bytes(PNG.getvalue())
    (elsewhere / "again").symlink_to(".", target_is_directory=True)
    for name in ("one", "two"):
        (folder / "train" / "cat" / name).symlink_to(elsewhere, target_is_directory=True)
    (folder / "train" / "ship" / "7.png").symlink_to(elsewhere / "deep" / "9.png")
    data = open_dataset(str(folder))
    assert np.bincount(data.labels("train")).tolist() == [4, 4]
    assert "links lead out of the folder and were followed (train/cat/" in data.notes[0]
    assert "links to a folder that was read before" in data.notes[0]


def test_files_that_are_links_are_read_as_the_hubs_cache_has_them(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i, file in enumerate(sorted((folder / "train").rglob("*.png"))):
        file.rename(blobs / str(i))
        file.symlink_to(blobs / str(i))
    assert counts(folder) == PLAIN and open_dataset(str(folder)).notes == []


def test_pipes_sockets_and_devices_are_not_opened(folder: Path) -> None:
    home = folder / "train" / "cat"
    os.mkfifo(home / "pipe.png")
    os.mkfifo(home / "pipe")
    os.mkfifo(folder / "train-0.parquet")
    (home / "null.png").symlink_to("/dev/null")
    (home / "endless.jpg").symlink_to("/dev/zero")
    here = os.getcwd()
    os.chdir(home)  # a socket's path has 108 characters at most
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket.png")
    os.chdir(here)
    assert counts(folder) == PLAIN
    assert "5 pipes, sockets and devices" in open_dataset(str(folder)).notes[0]


@pytest.mark.parametrize("target", ["/nowhere/x.png", "9.png", "../../../../../../../../nowhere"])
def test_links_that_lead_nowhere(folder: Path, target: str) -> None:
    (folder / "train" / "cat" / "9.png").symlink_to(target)
    with pytest.raises(PromptSearchError, match="train/cat/9.png cannot be read .a link that leads nowhere.*remove it"):
        open_dataset(str(folder))
    (folder / "train" / "cat" / "9.png").rename(folder / "train" / "cat" / "notes.txt")
    if target != "9.png":
        assert "1 links that lead nowhere (train/cat/notes.txt)" in open_dataset(str(folder)).notes[0]


@pytest.mark.parametrize(
    "place", ["train/cat/1.png", "train", "train/cat", "test/ship", "train/cat/deep", ".", "plain"]
)
def test_what_may_not_be_read_is_named(folder: Path, place: str) -> None:
    """In a process without root's right to read everything."""
    if place == "plain":
        (folder / "train" / "cat" / "plain").write_bytes(PNG.getvalue())
        place = "train/cat/plain"
    (folder / "train" / "cat" / "deep").mkdir()
    (folder / place).chmod(0)
    code = (
        "import sys; from promptsearch.evaluators.data import open_dataset\n"
        "from promptsearch.errors import PromptSearchError\n"
        "try: [open_dataset(sys.argv[1]).fingerprint(s) for s in ('train', 'test')]\n"
        "except PromptSearchError as e: print('ERROR', e)\n"
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked([str(folder)], code=f"{DROP}\n{code}", imports=MODELS, **streams) as process:
        out, err = process.communicate(timeout=120)
    (folder / place).chmod(0o755)
    assert out.startswith("ERROR"), err
    assert place in out and "cannot be read" in out and "make it readable" in out


def test_names_that_are_no_utf8(folder: Path) -> None:
    home = os.fsencode(folder / "train" / "cat")
    os.rename(home + b"/0.png", home + b"/caf\xe9.png")
    data = open_dataset(str(folder))
    assert np.bincount(data.labels("train")).tolist() == [3, 3] and len(list(data.pictures("train", range(6)))) == 6
    data.fingerprint("train")
    with open(home + b"/\xff\xfe.png", "wb") as f:
        f.write(b"broken")
    with pytest.raises(PromptSearchError, match=r"\\xff\\xfe.png") as broken:
        list(open_dataset(str(folder)).pictures("train", range(7)))
    str(broken.value).encode()
    os.rename(home, os.fsencode(folder / "train") + b"/c\xe9t")
    with pytest.raises(InputError, match=r"class 'c.*t' cannot be used as a class name") as refused:
        open_dataset(str(folder))
    str(refused.value).encode()


def test_hidden_parquet_files_are_no_part_of_a_split(folder: Path, tmp_path: Path) -> None:
    data = open_dataset(str(folder))
    tables = tmp_path / "tables"
    for split in ("train", "test"):
        rows = {"image": list(data.pictures(split, range(4))), "label": data.labels(split)[:4].tolist()}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ship"])})
        (tables / ".ipynb_checkpoints").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict({**rows, "label": [0, 0, 1, 1]}, features=features)
        table.to_parquet(tables / f"{split}.parquet")
        table.to_parquet(tables / ".ipynb_checkpoints" / f"{split}-checkpoint.parquet")
    assert counts(tables) == {"train": [2, 2], "test": [2, 2]}


NAMES = st.sampled_from(
    ["a", "b.png", "c.JPG", ".d", "e.txt", "@eaDir", "f", "Thumbs.db", "g.png", "lost+found", "é.png", "h i.webp"]
)
KINDS = st.sampled_from(["picture", "text", "folder", "link up", "link away", "link nowhere", "pipe", "empty"])


@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), KINDS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_tree_is_walked_or_refused_in_one_line(entries: list[tuple[list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = make(Path(scratch) / "pets")
        expected = 3
        for parts, kind in entries:
            path = (home / "train" / "cat").joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path):
                    continue
                if kind in ("picture", "text", "empty"):
                    path.write_bytes({"picture": PNG.getvalue(), "text": b"hello", "empty": b""}[kind])
                elif kind == "folder":
                    path.mkdir()
                elif kind == "pipe":
                    os.mkfifo(path)
                else:
                    path.symlink_to({"link up": home, "link away": scratch, "link nowhere": "/nowhere"}[kind])
            except (FileExistsError, NotADirectoryError):
                continue
        hidden = {*TOOLS, ".d"}
        for found, _, files in os.walk(home / "train" / "cat"):
            for name in files:
                file = Path(found) / name
                relative = [p.lower() for p in file.relative_to(home / "train" / "cat").parts]
                if name == "0.png" or name == "1.png" or name == "2.png" or not file.is_file():
                    continue
                picture = file.suffix.lower() in SUFFIXES or (not file.suffix and file.read_bytes()[:1] == b"\x89")
                expected += picture and not any(p in hidden or p.startswith(".") for p in relative)
        try:
            data = open_dataset(str(home))
        except PromptSearchError as e:
            assert "leads nowhere" in str(e) and "\n" not in str(e)
        else:
            assert np.bincount(data.labels("train")).tolist() == [expected, 3]
            data.fingerprint("train")


SAME = [
    ("cat", "cat_"),
    ("cat", "Cat"),
    ("sea_lion", "sea lion"),
    ("sea__lion", "Sea Lion "),
    ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"),
    ("tab\tbed", "tab bed"),
    ("no\N{NO-BREAK SPACE}break", "no break"),
    ("fish", "\N{LATIN SMALL LIGATURE FI}sh"),
    ("cat", "\N{FULLWIDTH LATIN CAPITAL LETTER C}AT"),
    ("dog's", "dog\N{RIGHT SINGLE QUOTATION MARK}s"),
    ("bread&butter", "bread&amp;butter"),
    ("heart", "heart\N{VARIATION SELECTOR-16}"),
    ("num", "nu\N{ZERO WIDTH JOINER}m"),
]
NONE = ["_", " ", "__", " _ ", "a\x1b[31mb", "bell\x07", "\N{ZERO WIDTH SPACE}", "turn\N{RIGHT-TO-LEFT OVERRIDE}ed"]


def tables(home: Path, names: list[str], texts: bool) -> Path:
    label = datasets.Value("string") if texts else datasets.ClassLabel(names=names)
    for split in ("train", "test"):
        home.mkdir(exist_ok=True)
        rows = {"image": [{"bytes": PNG.getvalue(), "path": None}] * len(names)}
        rows["label"] = names if texts else list(range(len(names)))  # type: ignore[assignment]
        features = datasets.Features({"image": datasets.Image(), "label": label})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(home / f"{split}.parquet")
    return home


@pytest.mark.parametrize("form", ["folder", "parquet", "texts"])
@pytest.mark.parametrize("pair", SAME, ids=lambda p: repr(p))
def test_classes_that_read_the_same_are_refused(tmp_path: Path, form: str, pair: tuple[str, str]) -> None:
    home = tmp_path / "named"
    if form == "folder":
        make(home)
        for split, name in ((s, n) for s in ("train", "test") for n in pair):
            shutil.copytree(home / split / "ship", home / split / name, dirs_exist_ok=True)
        shutil.rmtree(home / "train" / "cat") if "cat" not in pair else None
        shutil.rmtree(home / "test" / "cat") if "cat" not in pair else None
    else:
        tables(home, [*pair, "ship"], form == "texts")
    with pytest.raises(InputError, match=r"classes .* and .* both read .*rename one"):
        open_dataset(str(home))


@pytest.mark.parametrize("form", ["folder", "parquet", "texts"])
@pytest.mark.parametrize("name", NONE, ids=repr)
def test_empty_and_unprintable_class_names_are_refused(tmp_path: Path, form: str, name: str) -> None:
    home = tmp_path / "named"
    if form == "folder":
        make(home)
        for split in ("train", "test"):
            (home / split / "cat").rename(home / split / name)
    else:
        tables(home, [name, "ship"], form == "texts")
    with pytest.raises(InputError, match="cannot be used as a class name in prompts") as refused:
        open_dataset(str(home))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["می\N{ZERO WIDTH NON-JOINER}خواهم", "犬", "chien-loup", "St. Bernard", "ß"])
def test_names_of_every_script_are_names(tmp_path: Path, name: str) -> None:
    assert open_dataset(str(tables(tmp_path / "named", [name, "ship"], False))).class_names == (name, "ship")
