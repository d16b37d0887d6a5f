"""Data as people have it: every layout of own pictures, from the first command on, and every way it can be wrong."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from drawn import (
    SHAPES,
    as_coop,
    as_csv,
    as_folders,
    as_jsonl,
    as_parquet,
    as_parquet_of_paths,
    as_tars,
    as_train_only,
    class_folders,
    encoded,
    listed,
    shape,
    write_csv,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from promptsearch import PromptSearch
from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Cache, open_problem
from promptsearch.evaluators.data import open_dataset
from promptsearch.evaluators.data.check import check_data
from promptsearch.evaluators.data.holdout import choose, hash_image, near_duplicates, no_hash, picture_hashes
from promptsearch.evaluators.data.parts import in_order

EACH = 6


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of each shape in class folders."""
    return class_folders(tmp_path_factory.mktemp("drawn") / "shapes", EACH)


LAYOUTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "class folders": (as_folders, "a folder of class folders without splits"),
    "a train folder": (as_train_only, "a folder of class folders for each split"),
    "csv": (as_csv, "a CSV file of paths and labels"),
    "jsonl": (as_jsonl, "a file of JSON lines with paths and labels"),
    "coop": (as_coop, "CoOp's split file"),
    "tars": (as_tars, "webdataset archives"),
    "parquet": (as_parquet, "a parquet file"),
    "parquet of paths": (as_parquet_of_paths, "a parquet file"),
}


def invoke(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, list(words))
    assert "Traceback" not in done.output, done.output
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_the_same_pictures_and_classes(layout: str, drawn: Path, tmp_path: Path) -> None:
    write, kind = LAYOUTS[layout]
    place = str(write(drawn, tmp_path))
    share = {} if layout == "coop" else {"test_share": 0.3}
    data = open_dataset(place, **share)
    assert (data.class_names, data.layout.kind, data.splits) == (SHAPES, kind, ("train", "test"))
    train, test = data.labels("train"), data.labels("test")
    assert np.bincount(train).tolist() == [3 if share == {} else 4] * 3 and np.bincount(test).tolist() == [2] * 3
    pixels = {
        hash_image(p).tobytes()
        for split in ("train", "test")
        for p in data.pictures(split, range(len(data.labels(split))))
    }
    wanted = {hash_image(shape(name, i)).tobytes() for name in SHAPES for i in range(EACH)}
    assert pixels == (wanted if share else {hash_image(shape(n, i)).tobytes() for n in SHAPES for i in (0, 1, 2, 4, 5)})
    again = open_dataset(place, **share)
    assert [again.fingerprint(s) for s in data.splits] == [data.fingerprint(s) for s in data.splits]
    assert len(
        {*map(data.fingerprint, data.splits), open_dataset(place, **share and {"test_share": 0.5}).fingerprint("test")}
    ) == (3 if share else 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_check_says_what_it_is_and_its_command_runs(layout: str, drawn: Path, tmp_path: Path) -> None:
    write, kind = LAYOUTS[layout]
    place = write(drawn, tmp_path)
    code, out, err = invoke("data", "check", str(place))
    assert code == 0, err
    assert f"{place}: {kind}, 3 classes" in out
    assert f"all classes{9 if layout == 'coop' else 18:12}" in out
    assert ("There is no test split" in out) == (layout != "coop")
    assert ("Not used: split val." in out) == (layout == "coop")
    command = out.splitlines()[-1].split()
    assert command[:4] == ["promptsearch", "beam", "--dataset", str(place)]
    assert "--allow-fewer" in command and ("--test-share" in command) == (layout != "coop")
    quick = ["--model", "tiny", "--bank", "simple-imagenet", "--width", "2", "--depth", "1", "--no-estimate", "--json"]
    code, out, err = invoke(*command[1:], *quick)
    assert code == 0, err
    result = json.loads(out)
    assert result["classes"] == list(SHAPES) and result["test_pictures"] == 6
    assert sum("few-shot pictures" in note for note in result["notes"]) == 1
    assert invoke("data", "check", str(place), "--json")[1].startswith("{")


def test_a_run_on_pictures_read_otherwise_is_refused_with_the_difference_named(drawn: Path, tmp_path: Path) -> None:
    place = tmp_path / "shapes"
    shutil.copytree(drawn, place)
    (tmp_path / "names.txt").write_text("disc\nbox\nwedge\n")
    run = ["random", "--model", "tiny", "--bank", "simple-imagenet", "--trials", "2", "--shots", "1", "--no-estimate"]
    run += ["--dataset", str(place), "--study", "drawn", "--storage", str(tmp_path / "runs.db"), "--quiet"]
    assert invoke(*run, "--test-share", "0.3")[0] == 0
    for options, named in {
        ("--test-share", "0.5"): "with test share 0.3 (now 0.5); give",
        ("--test-share", "0.3", "--split-seed", "1"): "with split seed 0 (now 1); give",
        ("--test-share", "0.3", "--class-names", str(tmp_path / "names.txt")): "with class names None (now ['disc',",
        ("--test-share", "0.5", "--seed", "1"): "with seed 0 (now 1); test share 0.3 (now 0.5); give",
    }.items():
        code, _, err = invoke(*run, *options)
        assert code == 2 and f"Error: run 'drawn' was made {named}" in err
    shape("circle", 99).save(place / SHAPES[0] / "99.png")
    code, _, err = invoke(*run, "--test-share", "0.3")
    assert code == 2 and "Error: run 'drawn' was made with other pictures or labels: data fingerprint" in err


def test_the_estimator_holds_out_too(drawn: Path, tmp_path: Path) -> None:
    ps = PromptSearch("tiny", test_share=0.3, shots=16, allow_fewer=True, estimate=False, bank=["a photo of a {}."])
    ps.fit(str(drawn))
    assert ps.result_.test_pictures == 6 and ps.class_names_ == list(SHAPES)
    ps = PromptSearch("tiny", test_share=0.3, shots=16, estimate=False, bank=["a photo of a {}."])
    with pytest.raises(InputError, match="shots 16: class 'circle' has 4 training pictures.* allow_fewer"):
        ps.fit(str(drawn))
    with pytest.raises(InputError, match="test_share 0.3: only a data set by name"):
        ps.fit([shape("circle", 0)], ["circle"])


def test_names_of_validation_splits_are_test_splits(drawn: Path, tmp_path: Path) -> None:
    for name in ("valid", "val", "validation"):
        root = tmp_path / name
        shutil.copytree(drawn, root / "train")
        shutil.copytree(drawn, root / name)
        data = open_dataset(str(root))
        assert data.test_split == name
        with pytest.raises(InputError, match=rf"--test-share 0.3: data set .* has a test split \({name}\)"):
            open_dataset(str(root), test_share=0.3)
    for names in (("Train", "Test"), ("training", "testing"), ("TRAIN", "Valid")):
        root = tmp_path / "-".join(names)
        for name in names:
            shutil.copytree(drawn, root / name)
        data = open_dataset(str(root))
        assert (data.train_split, data.test_split, data.class_names) == (*names, SHAPES)
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(InputError, match="must be above 0 and below 1"):
            open_dataset(str(drawn), test_share=share)


# -- held out -----------------------------------------------------------------------------------------------------


def test_nearly_the_same_pictures_stay_on_one_side(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", 12)
    for name in SHAPES:
        for i in range(6):  # each of the first six again: smaller, or as a JPEG file
            picture = shape(name, i)
            copy = picture.resize((40, 40)) if i % 2 else picture
            (root / name / f"copy{i}.jpg").write_bytes(encoded(copy, "JPEG", quality=80))
    cache = Cache(tmp_path / "cache")
    data = open_dataset(str(root), test_share=0.3, cache=cache)
    sides: dict[str, set[str]] = {}
    for split in ("train", "test"):
        for picture in data.stored(split, range(len(data.labels(split)))):
            file = Path(str(picture.path))
            sides.setdefault(f"{file.parent.name}/{file.stem.removeprefix('copy')}", set()).add(split)
    assert len(sides) == 36 and all(len(of) == 1 for of in sides.values())
    assert data.notes == [
        f"{root}: 15 of 54 pictures are held out as the test split (--test-share 0.3, --split-seed 0); 18 that are "
        "nearly the same as another are on the other's side."
    ]
    assert np.bincount(data.labels("test")).tolist() == [5, 5, 5]
    first = [p.path for p in data.stored("test", range(15))]
    assert first == [p.path for p in open_dataset(str(root), test_share=0.3, cache=cache).stored("test", range(15))]
    other = open_dataset(str(root), test_share=0.3, split_seed=1, cache=cache)
    assert first != [p.path for p in other.stored("test", range(15))]
    assert cache.headers("hashes").__next__()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=8, max_size=60), st.floats(0.05, 0.95))
@settings(max_examples=80, deadline=None)
def test_a_share_is_chosen_by_class_and_whole_groups(pictures: list[tuple[int, int]], share: float) -> None:
    labels = np.array([0, 1, 2, 3, *(label for label, _ in pictures)])
    _, groups = np.unique([100, 101, 102, 103, *(group for _, group in pictures)], return_inverse=True)
    test = choose(labels, groups, share, 0)
    for g in np.unique(groups):
        assert len(set(test[groups == g].tolist())) == 1
    for c in range(4):
        n, held = int((labels == c).sum()), int(test[labels == c].sum())
        assert held <= max(1, round(share * n)) and held < n
    alone = choose(labels, np.arange(len(labels)), share, 0)
    for c in range(4):
        n = int((labels == c).sum())
        assert alone[labels == c].sum() == min(max(1, np.rint(share * n)), n - 1)


def test_other_pictures_are_not_nearly_the_same() -> None:
    pictures = [shape(name, i) for name in SHAPES for i in range(60)]
    hashes = np.stack([*map(hash_image, pictures), no_hash(), no_hash()])
    assert len(np.unique(near_duplicates(hashes))) == len(hashes)
    plain = [shape("circle", 0).resize((1, 1)).resize((32, 32)), shape("square", 4).resize((1, 1)).resize((32, 32))]
    assert len(np.unique(near_duplicates(np.stack([*map(hash_image, plain)])))) == 2  # by their colours


@pytest.mark.parametrize("size", [47, 48, 97])
def test_mirrored_copies_are_nearly_the_same(size: int) -> None:
    pictures = [shape(name, i, size) for name in SHAPES for i in range(20)]
    turned = [p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in pictures]
    small = [p.resize((size - size // 8, size - size // 8)) for p in turned]
    groups = near_duplicates(np.stack([hash_image(p) for p in (*pictures, *turned, *small)]))
    assert groups.tolist() == groups[: len(pictures)].tolist() * 3 and len(np.unique(groups)) == len(pictures)


def test_the_check_proposes_no_share_that_cannot_be_held_out(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for name in SHAPES:  # of each class one picture and its copies, one of them mirrored
        (root / name).mkdir(parents=True)
        picture = shape(name, 0)
        copies = [picture, picture.resize((44, 44)), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        for i, copy in enumerate(copies):
            copy.save(root / name / f"{i}.png")
    check = check_data(str(root))
    (said,) = (p for p in check.problems if "--test-share" in p)
    assert said.startswith("There is no test split, and --test-share cannot hold one out: they have one picture")
    assert "--test-share" not in check.command
    with pytest.raises(InputError, match="no picture of .* can be held out"):  # as the search would say
        open_dataset(str(root), test_share=0.3)
    class_folders(root, 6, first=1, names=SHAPES[:2])
    check = check_data(str(root))
    (said,) = (p for p in check.problems if "--test-share" in p)
    assert "of 1 of 3 classes it holds out none (triangle): they have one picture" in said
    assert "--test-share" in check.command
    assert np.bincount(open_dataset(str(root), test_share=0.3).labels("test"), minlength=3)[2] == 0


def test_a_broken_picture_is_alone_and_named_by_the_check(drawn: Path, tmp_path: Path) -> None:
    root = as_folders(drawn, tmp_path)
    (root / "circle" / "0.png").write_bytes(b"no picture")
    (root / "square" / "notes.txt").write_text("x")
    assert picture_hashes(open_dataset(str(root)), "train", None)[:, -1].tolist().count(0) == 1
    assert len(open_dataset(str(root), test_share=0.3).labels("test")) == 6
    code, out, _ = invoke("data", "check", str(root))
    assert code == 0 and "1 pictures cannot be decoded" in out and "circle/0.png" in out
    assert "Left out: 1 files without the suffix of a picture (square/notes.txt)" in out


def test_one_picture_per_class_cannot_be_held_out(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", 1)
    with pytest.raises(InputError, match="no picture of .* can be held out, because each class has one picture"):
        open_dataset(str(root), test_share=0.3)


def test_the_check_names_what_would_go_wrong(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(drawn, root / "train")
    shutil.copytree(drawn / "circle", root / "test" / "circle")
    shutil.copy(drawn / "circle" / "0.png", root / "train" / "square" / "9.png")
    code, out, _ = invoke("data", "check", str(root))
    assert code == 0
    assert "2 of 3 classes have no test picture (square, triangle)" in out
    assert "6 of 6 test pictures are also training pictures" in out
    assert "1 pictures are there with two labels, byte for byte (the first as circle and square)" in out
    assert out.splitlines()[-1].split()[-3:] == ["--shots", "16", "--allow-fewer"]
    enough = class_folders(tmp_path / "enough" / "train", 20)
    class_folders(tmp_path / "enough" / "test", 3, first=50)
    code, out, _ = invoke("data", "check", str(enough.parent))
    assert "Nothing that would go wrong was found." in out and "--shots" not in out


def test_numbers_are_named_by_a_file(drawn: Path, tmp_path: Path) -> None:
    rows = listed(drawn, path=str, label=lambda f: str(SHAPES.index(f.parent.name)))
    file = write_csv(tmp_path / "numbers.csv", rows)
    with pytest.raises(InputError, match=r"numbers.csv: the labels are numbers \(0, 1, 2 …\).*--class-names FILE"):
        open_dataset(str(file), test_share=0.3)
    code, out, _ = invoke("data", "check", str(file))
    assert code == 0 and "The class names are numbers (0, 1, 2)" in out and "--class-names names.txt" in out
    (tmp_path / "names.txt").write_text("\n".join(SHAPES))
    code, out, _ = invoke("data", "check", str(file), "--class-names", str(tmp_path / "names.txt"))
    assert code == 0 and "names are numbers" not in out and f"--class-names {tmp_path / 'names.txt'}" in out
    problem = open_problem("tiny", str(file), test_share=0.3, class_names=str(tmp_path / "names.txt"))
    assert problem.source.class_names == SHAPES
    pq.write_table(
        pa.table({"image": [encoded(shape("circle", i)) for i in range(4)], "label": [7, 8, 7, 8]}),
        tmp_path / "n.parquet",
    )
    with pytest.raises(InputError, match="'label' .int64. has no class names; name the classes with --class-names"):
        open_dataset(str(tmp_path / "n.parquet"))
    assert open_dataset(str(tmp_path / "n.parquet"), renamed=True).class_names == ("7", "8")


def test_numbered_folders_need_names_too(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        class_folders(tmp_path / "part", 2, first=number)
        (tmp_path / "part" / "circle").rename(tmp_path / "part" / "moved")
        (tmp_path / "numbered").mkdir(exist_ok=True)
        (tmp_path / "part" / "moved").rename(tmp_path / "numbered" / str(number))
    with pytest.raises(InputError, match="the labels are numbers .1, 10, 2 …..*--class-names FILE"):
        open_dataset(str(tmp_path / "numbered"))
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nten\n")
    with pytest.raises(InputError, match="names.txt: the data set has class '10' before '2', but the names may not"):
        open_problem("tiny", str(tmp_path / "numbered"), test_share=0.3, class_names=str(names))
    names.write_text("1\tone\n2\ttwo\n10\tten\n")
    problem = open_problem("tiny", str(tmp_path / "numbered"), test_share=0.3, class_names=str(names))
    assert problem.source.class_names == ("one", "ten", "two")


@pytest.mark.parametrize("name", ["train", "Testing", "val"])
def test_a_class_that_is_called_like_a_split_is_explained(name: str, tmp_path: Path) -> None:
    class_folders(tmp_path, 2, names=("circle", "square"))
    (tmp_path / "circle").rename(tmp_path / name)
    with pytest.raises(InputError, match=f"move it to {name}/CLASS/0.png, or rename {name}/ if that is a class as squ"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (["10.0", "2.0", "0.0"], ["0.0", "2.0", "10.0"]),
        (["1", "-1", "0"], ["-1", "0", "1"]),
        (["01", "1", "2"], ["01", "1", "2"]),
    ],
)
def test_numbers_as_programs_write_them_are_numbers(labels: list[str], ordered: list[str], tmp_path: Path) -> None:
    assert in_order(labels) == ordered
    rows = [{"path": f"{i}.png", "label": label} for i, label in enumerate(labels)]
    for i in range(len(labels)):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="the labels are numbers"):
        open_dataset(str(write_csv(tmp_path / "l.csv", rows)))


def test_paths_that_two_folders_have_are_refused(drawn: Path, tmp_path: Path) -> None:
    rows = []
    for i, name in enumerate(SHAPES * 2):
        for folder in ("annotations", "images"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shape(name, i + (folder == "images")).save(tmp_path / folder / f"{i}.png")
        rows.append({"path": f"{i}.png", "label": name})
    file = write_csv(tmp_path / "l.csv", rows)
    with pytest.raises(InputError, match="l.csv:2: 0.png may be in the folder annotations or in images; write the"):
        open_dataset(str(file))
    (tmp_path / "annotations" / "0.png").rename(tmp_path / "annotations" / "x.png")
    with pytest.raises(InputError, match="l.csv:3: 1.png may be in"):
        open_dataset(str(file))
    shutil.rmtree(tmp_path / "annotations")
    shutil.copytree(tmp_path / "images", tmp_path / "backup")  # the same pictures
    assert open_dataset(str(file)).class_names == SHAPES
    (tmp_path / "backup" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match="l.csv:5: 3.png may be in the folder backup or in images"):
        open_dataset(str(file))
    write_csv(file, [{**row, "path": f"images/{row['path']}"} for row in rows])
    assert open_dataset(str(file)).class_names == SHAPES


# -- lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("path", "label"), [("path", "label"), ("File Name", "Class"), ("image_path", "category")])
def test_csv_as_programs_write_it(
    delimiter: str, encoding: str, path: str, label: str, drawn: Path, tmp_path: Path
) -> None:
    rows = listed(drawn, **{"id": lambda f: "1, 2; 3", path: str, label: lambda f: f"{f.parent.name} é"})
    file = write_csv(tmp_path / "list.csv", rows, delimiter, encoding)
    data = open_dataset(str(file))
    assert data.class_names == tuple(f"{s} é" for s in SHAPES) and len(data.labels("train")) == 18


def test_a_column_of_splits(drawn: Path, tmp_path: Path) -> None:
    rows = listed(drawn, path=str, label=lambda f: f.parent.name, split=lambda f: "dev" if f.stem == "5" else "Train")
    data = open_dataset(str(write_csv(tmp_path / "s.csv", rows)))
    assert (data.train_split, data.test_split, len(data.labels("test"))) == ("train", "val", 3)
    rows[3]["split"] = "holdout"
    with pytest.raises(InputError, match="s.csv:5: split 'holdout' is not known; write train, test or val"):
        open_dataset(str(write_csv(tmp_path / "s.csv", rows)))
    for row in rows:
        row["split"] = "test"
    with pytest.raises(InputError, match="s.csv: no picture is in the split train"):
        open_dataset(str(write_csv(tmp_path / "s.csv", rows)))


def wrong_csv(drawn: Path) -> dict[str, tuple[str, str]]:
    """Texts of a list and what is said of them; LINE is a sound line."""
    a, b, c = (f"{drawn}/{s}/0.png,{s}" for s in SHAPES)
    head = "path,label"
    return {
        "no header": (f"{a}\n{b}\n", r"l.csv:1: no header; the first line must name the columns, such as path,label"),
        "no paths": (f"name,label\nx,{a}\n", r"l.csv:1: no column of paths \(there are 'name', 'label'\)"),
        "no labels": (f"path,kind\n{a}\n", r"l.csv:1: no column of labels"),
        "empty": ("", "l.csv is empty"),
        "only a header": (head + "\n", "l.csv: no picture is listed"),
        "missing file": (f"{head}\n{a}\n{b}\nnowhere/1.png,circle\n{c}\n", r"l.csv:4: nowhere/1.png does not exist;"),
        "missing files": (f"{head}\n{a}\nx.png,q\ny.png,q\n", r"l.csv:3: x.png does not exist \(2 of 3 pictures are"),
        "two labels": (
            f"{head}\n{a}\n{b}\n{drawn}/circle/0.png,square\n",
            r"l.csv:4: .* 'square' here and 'circle' in l.csv:2",
        ),
        "two labels, spelled": (
            f"{head}\n{a}\n{drawn}/circle/../circle/0.png,square\n",
            "l.csv:3: .*give each picture one label",
        ),
        "two splits": (f"{head},split\n{a},train\n{b},train\n{a},test\n", "l.csv:4: .* split 'test' here and 'train'"),
        "test class": (
            f"{head},split\n{a},train\n{b},train\n{c},test\n",
            "l.csv:4: class 'triangle' is not among the 2 classes",
        ),
        "one class": (f"{head}\n{a}\n", "one class .circle."),
        "a carriage return in the header": (
            f"path,la\rbel\n{a}\n",
            "l.csv:1: new-line character seen in unquoted field; ",
        ),
        "lines that end with a carriage return": (
            f"{head}\r{a}\r{b}\r",
            "l.csv:1: .*the first line must name the columns",
        ),
        "a header without an end": ("path," + "l" * 200_000, "l.csv:1: field larger than field limit"),
        "a field more": (f"{head}\n{a}\n{b},x\n", "l.csv:3: 3 fields, and the header has 2"),
        "a field less": (f"{head}\n{a}\n\n{drawn}/circle/1.png\n", "l.csv:4: 1 fields, and the header has 2"),
        "open quote": (f'{head}\n{a}\n"{b}\n', "l.csv:3: .*double quotes"),
        "no label": (f"{head}\n{a}\n{drawn}/square/0.png,\n", "l.csv:3: no label; each line needs"),
        "no path": (f"{head}\n{a}\n,square\n", "l.csv:3: no path; each line needs"),
        "zero byte": (f"{head}\n{a}\n{b}\0\n", "l.csv:3: contains a zero byte"),
        "not utf-8": (f"{head}\n{a}\n{b}\udce9\n", "l.csv:3: not UTF-8 text"),
        "lfs": ("version https://git-lfs.github.com/spec/v1\n", "l.csv is a Git LFS pointer"),
        "web page": ("<!DOCTYPE html><html>", "l.csv is a web page"),
        "numbers": (f"{head}\n{drawn}/circle/0.png,0\n{drawn}/square/0.png,1\n", "l.csv: the labels are numbers"),
        "same name": (f"{head}\n{drawn}/circle/0.png,cat\n{drawn}/square/0.png,Cat\n", "both read"),
    }


KINDS = list(wrong_csv(Path("x")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_csv_is_one_line_with_file_and_line(kind: str, drawn: Path, tmp_path: Path) -> None:
    text, says = wrong_csv(drawn)[kind]
    (tmp_path / "l.csv").write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(InputError, match=says) as refused:
        open_dataset(str(tmp_path / "l.csv"))
    assert str(refused.value).isprintable()
    code, out, err = invoke("beam", "--model", "tiny", "--dataset", str(tmp_path / "l.csv"), "--test-share", "0.3")
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1, err


def test_rows_that_repeat_are_left_out_and_said(drawn: Path, tmp_path: Path) -> None:
    rows = listed(drawn, path=str, label=lambda f: f.parent.name)
    data = open_dataset(str(write_csv(tmp_path / "l.csv", [*rows, rows[0], rows[4]])))
    assert len(data.labels("train")) == 18
    assert data.notes[0].endswith("Left out: 2 rows that list a picture again (l.csv:20, l.csv:21).")


def test_named_columns_and_lists_in_a_folder(drawn: Path, tmp_path: Path) -> None:
    as_csv(drawn, tmp_path)
    assert open_dataset(str(tmp_path)).layout.kind == "a CSV file of paths and labels"
    rows = listed(drawn, where=str, kind=lambda f: f.parent.name)
    named = {"picture_column": "where", "label_column": "kind"}
    assert open_dataset(str(write_csv(tmp_path / "x.csv", rows)), **named).class_names == SHAPES
    with pytest.raises(InputError, match="x.csv:1: --label-column colour: no such column"):
        open_dataset(str(tmp_path / "x.csv"), picture_column="where", label_column="colour")
    shutil.copy(tmp_path / "x.csv", tmp_path / "labels.tsv")
    with pytest.raises(InputError, match=r"several lists of pictures \(labels.csv, labels.tsv\)"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"l.jsonl:3: not valid JSON \(column 2\)"),
        ("[1, 2]", "l.jsonl:3: not a JSON object"),
        ("path,label", "l.jsonl:3: not valid JSON"),
        ('{"path": "x.png"}', "l.jsonl:3: no label"),
        ('{"label": "circle"}', "l.jsonl:3: no path"),
        ('{"path": "x.png", "label": ["circle"]}', "l.jsonl:3: label ..circle.., which is not text"),
        ('{"path": "x.png", "label": true}', "l.jsonl:3: label True, which is not text"),
        ('{"path": "x.png", "label": "circle"}', "l.jsonl:3: x.png does not exist"),
        ('{"path": "\\u0000", "label": "circle"}', "l.jsonl:3: .* is not a path"),
        ("[" * 100_000, "l.jsonl:3: not valid JSON"),
    ],
)
def test_a_broken_line_of_json_is_named(line: str, says: str, drawn: Path, tmp_path: Path) -> None:
    sound = [json.dumps({"path": f"{drawn}/{s}/0.png", "label": s}) for s in SHAPES]
    (tmp_path / "l.jsonl").write_text("\n".join([sound[0], sound[1], line, sound[2]]))
    with pytest.raises(InputError, match=says) as refused:
        open_dataset(str(tmp_path / "l.jsonl"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["train"].append(["x.png", 0]), r"split_zhou_Shapes.json: train\[9\]: .* is not \[path, number"),
        (lambda d: d["train"].append(["x.png", 0, "ring"]), r"train\[9\]: class 0 is 'ring' here and 'circle' before"),
        (lambda d: d["train"].append(["x.png", 0, "circle"]), r"train\[9\]: x.png does not exist"),
        (
            lambda d: d["test"].append([*d["train"][0][:1], 2 - d["train"][0][1], SHAPES[2 - d["train"][0][1]]]),
            r"test\[6\]: ",
        ),
        (lambda d: d.pop("train"), "no lists train, val and test"),
        (lambda d: d.update(train="x"), "no lists train, val and test"),
    ],
)
def test_a_wrong_split_file_of_coop(change: Callable[[Any], Any], says: str, drawn: Path, tmp_path: Path) -> None:
    file = as_coop(drawn, tmp_path) / "split_zhou_Shapes.json"
    document = json.loads(file.read_text())
    for split in document:
        document[split].sort(key=lambda r: (r[1], r[0]))
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        open_dataset(str(file))
    file.write_text(json.dumps(document)[:-20])
    with pytest.raises(InputError, match="split_zhou_Shapes.json:1: not valid JSON"):
        open_dataset(str(file))


# -- archives -----------------------------------------------------------------------------------------------------


def tar(file: Path, *members: tuple[str, bytes], **types: bytes) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), types.get(name, tarfile.REGTYPE)
            info.linkname = "/etc/passwd" if info.type != tarfile.REGTYPE else ""
            archive.addfile(info, io.BytesIO(content))
    return file


PICTURE = encoded(shape("circle", 0))
SOUND = (("a.png", PICTURE), ("a.cls", b"ring"), ("b.png", encoded(shape("square", 0))), ("b.cls", b"box"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../x.png", PICTURE)], "w.tar: member '../x.png' leads out of the archive"),
        ([("a/../../x.png", PICTURE)], "leads out of the archive"),
        ([("/etc/x.png", PICTURE)], "leads out of the archive"),
        ([("a.png", PICTURE)], "w.tar: member 'a.png' occurs twice"),
        ([("c.png", PICTURE)], r"w.tar: sample c has no label \(it has .png\); add a .cls file"),
        ([("c.png", PICTURE), ("c.cls", b"  ")], "w.tar: sample c has no label"),
        ([("c.png", PICTURE), ("c.json", b"{}")], "w.tar: sample c has no label"),
        ([("c.png", PICTURE), ("c.json", b"{")], "w.tar: sample c: its .json file is not valid JSON"),
        ([("c.png", PICTURE), ("c.cls", b"\xff")], "w.tar: sample c: c.cls is not UTF-8 text"),
        ([("c.png", PICTURE), ("c.jpg", PICTURE), ("c.cls", b"box")], r"several pictures \(png, jpg\)"),
        ([("c.png", PICTURE), ("c.cls", b"x" * (2 << 20))], "c.cls has 2 MB and holds no label"),
    ],
)
def test_a_wrong_archive_is_one_line(members: list[tuple[str, bytes]], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as refused:
        open_dataset(str(tar(tmp_path / "w.tar", *SOUND, *members)))
    assert str(refused.value).isprintable()


def test_archives_that_are_none(tmp_path: Path) -> None:
    file = tar(tmp_path / "w.tar", *SOUND)
    whole = file.read_bytes()
    for content, says in (
        (b"", "is empty"),
        (b"<html>", "is a web page"),
        (b"\x1f\x8b\x08" + b"x" * 600, "is compressed; decompress it first"),
        (b"no archive" * 100, "cannot be read"),
        (whole[:1700], "cannot be read|ends within"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=says):
            data = open_dataset(str(file))
            list(data.pictures("train", range(2)))


def test_data_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="w.tar has no picture"):
        open_dataset(str(tar(tmp_path / "w.tar", ("a.txt", b"x"))))
    (tmp_path / "d" / "circle").mkdir(parents=True)
    (tmp_path / "d" / "circle" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="this folder holds no parquet files .*, pictures in class folders"):
        open_dataset(str(tmp_path / "d"))
    class_folders(tmp_path / "d" / "train", 1)
    (tmp_path / "d" / "test").mkdir()
    with pytest.raises(InputError, match="test holds no pictures in class folders"):
        open_dataset(str(tmp_path / "d"))
    (tmp_path / "nest").mkdir()
    shutil.move(tmp_path / "d" / "train", tmp_path / "nest" / "inner")
    with pytest.raises(
        InputError, match="it holds a single folder, which holds others; if those are the classes, name .*inner"
    ):
        open_dataset(str(tmp_path / "nest"))


def test_labels_in_json_links_and_hidden_members(tmp_path: Path) -> None:
    members = [(f"{s}.png", encoded(shape(s, 1))) for s in SHAPES]
    members += [(f"{s}.json", json.dumps({"label": s, "text": "x"}).encode()) for s in SHAPES]
    file = tar(
        tmp_path / "w.tar",
        *members,
        ("._circle.png", b"x"),
        ("link.png", b""),
        ("z.txt", b"x"),
        **{"link.png": tarfile.SYMTYPE},
    )
    data = open_dataset(str(file))
    assert data.class_names == SHAPES and len(data.labels("train")) == 3
    for part in ("1 hidden or tool files", "1 members that are not regular files", "1 samples without a picture"):
        assert part in data.notes[0]
    names = {SHAPES[i]: p for i, p in zip(data.labels("train"), data.pictures("train", range(3)), strict=True)}
    assert all((np.asarray(p) == np.asarray(shape(s, 1))).all() for s, p in names.items())


def test_numbered_archives_need_names(drawn: Path, tmp_path: Path) -> None:
    folder = as_tars(drawn, tmp_path)
    (folder / "classnames.txt").write_text("circle\nsquare\n")
    with pytest.raises(InputError, match="classnames.txt has 2 names and there is a label 2"):
        open_dataset(str(folder))
    (folder / "classnames.txt").unlink()
    with pytest.raises(InputError, match=r"the labels are numbers \(0, 1, 2 …\)"):
        open_dataset(str(folder))
    for split, file in (("train", "part-0.tar"), ("test", "part-1.tar")):
        (folder / split).mkdir()
        (folder / file).rename(folder / split / "0.tar")
    assert open_dataset(str(folder), renamed=True).splits == ("train", "test")


@pytest.mark.parametrize("column", ["path", "label"])
def test_parquet_of_texts_that_are_no_utf_8(drawn: Path, tmp_path: Path, column: str) -> None:
    files = sorted(map(str, drawn.rglob("*.png")))[:2]
    offsets, texts = np.array([0, 3, 6], np.int32), b"\x84xyabc"  # what a flipped bit leaves; pyarrow does not check it
    damaged = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(texts))
    table = {"path": pa.array(files), "label": pa.array(["circle", "square"]), column: damaged}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=rf"column '{column}' holds text that is not UTF-8; .*: write it again"):
        open_dataset(str(tmp_path / "p.parquet"))


def test_parquet_of_wrong_paths(drawn: Path, tmp_path: Path) -> None:
    for paths, says in (
        (["x.png", "y.png"], r"split 'all', row 0: x.png does not exist \(2 of 2"),
        (["x.png", None], "row 1: column 'path' has no path"),
    ):
        pq.write_table(pa.table({"path": paths, "label": ["circle", "square"]}), tmp_path / "p.parquet")
        with pytest.raises(InputError, match=says):
            open_dataset(str(tmp_path / "p.parquet"))
    pq.write_table(
        pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.string())}), tmp_path / "p.parquet"
    )
    with pytest.raises(InputError, match="p.parquet has no row; it holds 0 pictures"):
        open_dataset(str(tmp_path / "p.parquet"))


@given(st.binary(max_size=300), st.sampled_from(["l.csv", "l.jsonl", "l.json", "l.tar"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptSearchError) as refused:
        open_dataset(str(tmp_path / name))
    assert "\n" not in str(refused.value)


# -- fewer pictures than shots ------------------------------------------------------------------------------------


def test_fewer_pictures_are_taken_and_the_imbalance_is_said(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(drawn, root / "test")
    class_folders(root / "train", 2, names=("circle",))
    class_folders(root / "train", 30, names=("square", "triangle"))
    problem = open_problem("tiny", str(root), allow_fewer=True)
    task = problem.task(16, 0)
    assert np.bincount(task.support.labels).tolist() == [2, 16, 16]
    assert np.bincount(task.validation.labels, minlength=3).tolist() == [0, 4, 4]
    assert not set(task.support.indices) & set(task.validation.indices)
    said = task.imbalance()
    assert said is not None and said.startswith(
        "1 of 3 classes have fewer than 16 few-shot pictures (circle 2), 34 pictures"
    )
    assert problem.task(1, 0).imbalance() is None
    problem.allow_fewer = False
    with pytest.raises(InputError, match="at most --shots 1 is possible, or what there is with --allow-fewer"):
        problem.task(16, 0)
    quick = ["--model", "tiny", "--bank", "simple-imagenet", "--width", "2", "--depth", "1", "--json", "--quiet"]
    for objective in ("balanced", "worst-class"):
        args = ["beam", "--dataset", str(root), "--allow-fewer", "--objective", objective, "--select", "none", *quick]
        code, out, err = invoke(*args)
        assert code == 0, err
        found = json.loads(out)
        assert found["notes"][-1] == said and objective.replace("-", "_") in found["winner"]["support"]
