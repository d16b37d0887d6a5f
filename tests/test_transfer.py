"""Prompts searched on one data set and judged on another; feature packs of the embedded model, and their refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn import SHAPES, class_folders
from made_problem import make_problem

from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, default_cache, open_problem
from promptsearch.evaluators.cache import MODELS
from promptsearch.evaluators.data.picture_features import export_pack, import_pack
from promptsearch.runs import RunResult, open_targets

PACKS = {
    "cifar10": (2000, 5000),
    "cifar10-dark": (2000, 5000),
    "cifar10-lowres": (2000, 5000),
    "cifar10-negative": (2000, 5000),
    "cifar100": (5000, 5000),
    "pacs-photo": (224, 1050),
    "pacs-art": (224, 1050),
    "pacs-sketch": (140, 420),
}


def command(*args: str) -> Result:
    return CliRunner().invoke(main, args)


@pytest.fixture
def bank(tmp_path: Path) -> str:
    (tmp_path / "bank.txt").write_text("a photo of a {}.\na sketch of a {}.\na drawing of the {}.\n")
    return str(tmp_path / "bank.txt")


def photo(bank: str, *more: str) -> Result:
    args = ["beam", "--model", "zeroshot", "--dataset", "pacs-photo", "--bank", bank, "--shots", "2", "--depth", "2"]
    return command(*args, *more)


def test_the_packs_are_whole_and_small() -> None:
    for name, counts in PACKS.items():
        source = open_problem("zeroshot", name).source
        assert tuple(len(source.labels(split)[0]) for split in ("train", "test")) == counts
        vectors = source.features("train", np.arange(20))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    size = sum(f.stat().st_size for f in MODELS.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    assert size < 60e6


def test_prompts_are_judged_on_the_other_pictures_too(bank: str) -> None:
    done = photo(bank, "--transfer", "pacs-sketch", "--transfer", "pacs-art", "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [t["dataset"] for t in document["transfers"]] == ["pacs-sketch", "pacs-art"]
    problem = open_problem("zeroshot", "pacs-sketch")
    task = problem.task(1, 0)
    test, evaluator = task.open_test(), problem.evaluator(task)
    winner = RunResult.from_dict(document).transfers[0].winner
    assert winner.test is not None
    assert winner.test.value == pytest.approx(evaluator.hits(winner.prompt_set, test).mean(), abs=1e-6)
    assert document["transfers"][0]["test_pictures"] == 420 == len(test)
    table = photo(bank, "--transfer", "pacs-sketch").stdout
    assert "Transferred to pacs-sketch (420 test pictures): winner " in table
    assert "pacs-art" not in table


def test_classes_in_another_order_are_the_same_classes(tmp_path: Path) -> None:
    problem = open_problem("zeroshot", "pacs-photo")
    (same,) = open_targets(problem, ["pacs-art"])
    problem.source.class_names = tuple(reversed(problem.source.class_names))
    (turned,) = open_targets(problem, ["pacs-art"])
    np.testing.assert_array_equal(turned.open_test().labels, 6 - same.open_test().labels)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--transfer", "cifar10"), "--transfer cifar10: its 10 classes are not the 7 of pacs-photo ('elephant' is in"),
        (("--transfer", "pacs-photo"), "--transfer pacs-photo: already judged on"),
        (("--transfer", "pacs-art", "--transfer", "pacs-art"), "--transfer pacs-art: already judged on"),
        (("--transfer", "pacs-cartoon"), "--transfer pacs-cartoon: no such folder, and neither cifar10"),
    ],
)
def test_what_cannot_be_transferred_is_refused_before_the_search(
    bank: str, args: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = photo(bank, *args)
    assert done.exit_code == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_a_pack_made_with_other_weights_is_named(tmp_path: Path, bank: str) -> None:
    done = command("beam", "--model", "tiny", "--dataset", "pacs-photo", "--bank", bank)
    assert done.exit_code == 2
    assert "its feature pack was made with another model or other weights (zeroshot (fp32, cpu))" in done.stderr
    cache = Cache(tmp_path / "cache", default_cache().packs)
    problem = open_problem("zeroshot", "pacs-sketch", cache=cache)
    problem.source.labels("train"), problem.source.labels("test")  # loaded under its own name
    problem.source.name = "my-drawings"
    export_pack(problem.source, problem.encoder.spec, tmp_path / "mine")
    import_pack(tmp_path / "mine", cache)
    with pytest.raises(InputError, match="--dataset my-drawings: no pictures, and its feature pack was made with"):
        open_problem("tiny", "my-drawings", cache=cache)


def test_data_sets_that_only_a_pack_has_are_opened_with_its_model() -> None:
    problem = open_problem(dataset="pacs-sketch")
    assert problem.encoder.spec.name == "zeroshot"
    assert problem.notes[0] == "Using the embedded model zeroshot, which has a feature pack of pacs-sketch."


def test_pictures_beside_a_pack_of_their_name_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_problem(tmp_path / "cache", ["a {}."])
    monkeypatch.chdir(tmp_path)
    cache = Cache(tmp_path / "cache")
    assert not any("not read" in note for note in open_problem("tiny", "made", cache=cache).source.notes)
    class_folders(tmp_path / "made", 12)
    notes = open_problem("tiny", "made", cache=cache).source.notes
    assert "The pictures in made are not read, because a feature pack has its name; write ./made." in notes
    with pytest.raises(InputError, match="made is a feature pack with a test split; leave it out, or write ./made for"):
        open_problem("tiny", "made", test_share=0.3, cache=cache)
    assert open_problem("tiny", "./made", test_share=0.3, cache=cache).source.class_names == SHAPES


def test_a_data_set_that_changed_is_judged_on_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name, each in (("own", 4), ("other", 3), ("third", 3)):
        class_folders(tmp_path / name / "train", 4, first=20)
        class_folders(tmp_path / name / "test", each)

    def pictures(*names: str) -> list[int]:
        args = ["random", "--model", "tiny", "--dataset", "own", "--bank", bank, "--shots", "2", "--trials", "2"]
        transfers = [word for name in names for word in ("--transfer", name)]
        done = command(*args, "--no-estimate", "--study", "mine", "--json", *transfers)
        assert done.exit_code == 0, done.output
        return [t["test_pictures"] for t in json.loads(done.stdout)["transfers"]]

    assert pictures("other") == [9]
    (tmp_path / "other" / "test" / SHAPES[0] / "0.png").unlink()
    assert pictures("third") == [9]
    assert pictures("other", "third") == [8, 9]
    assert pictures("other") == [8]


def test_training_pictures_among_those_transferred_to_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: str
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "own" / "train", 4)
    class_folders(tmp_path / "own" / "test", 2, first=10)
    for split, first in (("train", 20), ("test", 2)):  # 2 and 3 of each class are the run's
        class_folders(tmp_path / "other" / split, 4, first=first)
    args = ["random", "--model", "tiny", "--dataset", "own", "--bank", bank, "--shots", "2", "--trials", "2"]
    args += ["--no-estimate", "--study", "leaky", "--transfer", "other"]
    said = "6 of these test pictures are also training pictures of the run's data set, byte for byte."
    assert said in command(*args).output and said in command("runs", "show", "leaky").output
    assert json.loads(command(*args, "--json").stdout)["transfers"][0]["shared"] == 6
