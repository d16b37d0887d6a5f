"""Phrases on the command line: searched with, stored, resumed, shown, exported, compared, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_problem import CLASSES, make_problem

from promptsearch.banks import Template
from promptsearch.banks.formats import parse_class_names
from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.runs.baselines.tip_adapter import ALPHA, BETA, cache_of, score_cached
from promptsearch.runs.selection.phrase_choice import MORE_PHRASES

TEMPLATES = ("a photo of a {}.", "a sketch of a {}.", "a {} at night.")
KINDS = ("old", "small", "red")


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert result.stderr.count("\n") == 1 and "Traceback" not in result.output
    return result


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    with_kinds = [Template(t.replace("{}", f"{kind} {{}}")) for t in TEMPLATES for kind in KINDS]
    make_problem(tmp_path / "cache", [*(Template(t) for t in TEMPLATES), *with_kinds])
    Path("bank.txt").write_text("".join(f"{t}\n" for t in TEMPLATES))
    Path("phrases.txt").write_text("".join(f"{c}\t{kind} {c}\n" for c in CLASSES for kind in KINDS))
    return ["--model", "tiny", "--dataset", "made", "--bank", "bank.txt", "--storage", "runs.db", "--shots", "8"]


def test_a_search_with_phrases_is_stored_resumed_shown_and_exported(made: list[str]) -> None:
    command = ["beam", *made, "--phrases", "phrases.txt", "--study", "mine"]
    first = json.loads(run(*command, "--json").stdout)
    winner = first["winner"]
    assert first["classes"] == list(CLASSES) and len(winner["phrases"]) == len(CLASSES)
    allowed = [{c, *(f"{kind} {c}" for kind in KINDS)} for c in CLASSES]
    for said, may in zip(winner["phrases"], allowed, strict=True):
        assert said.keys() <= may and len(said) <= MORE_PHRASES and sum(said.values()) == pytest.approx(1)
    assert "gain" in first["estimate"]
    assert json.loads(run(*command, "--json").stdout) == first
    assert (
        json.loads(run("runs", "best", "mine", "--storage", "runs.db", "--json").stdout)["phrases"] == winner["phrases"]
    )
    shown = run(*command, "--quiet").stdout
    assert "The winner's phrases for the classes:" in shown and " points)" not in shown
    gains = first["gains"]
    assert gains["where"] == "test" and len(gains["classes"]) == len(CLASSES)
    told = run("-v", *command, "--quiet").stdout
    assert "and what they gained in test accuracy" in told
    for c, gain in zip(CLASSES, gains["classes"], strict=True):
        line = next((line for line in told.splitlines() if line.startswith(f"  {c}: ")), "")
        assert line.endswith(f"({100 * gain:+.2f} points)") if gain is not None else not line
    out = run("export", "mine", "--storage", "runs.db", "--to", "clip-benchmark").stdout
    prompts = json.loads(out)["made"]
    assert prompts.keys() == set(CLASSES) and any(
        "old" in p or "small" in p or "red" in p for p in sum(prompts.values(), [])
    )
    run("report", "mine", "--storage", "runs.db", "--out", "report.html")
    page = Path("report.html").read_text()
    assert (
        "The winner's phrases for the classes, and what they gained in test accuracy" in page
        and " points)</li>" in page
    )
    other = run("beam", *made, "--phrases", "none", "--study", "mine", code=2)
    assert "bank hash" in other.stderr


def test_without_labels_phrases_are_chosen_by_the_objective(made: list[str]) -> None:
    unlabelled = [*made[:-1], "0", "--unlabelled", "40", "--json"]
    found = json.loads(run("beam", *unlabelled, "--phrases", "phrases.txt").stdout)
    assert found["objective"] == "mutual-information" and "estimate" not in found
    assert found["winner"]["phrases"] and max(map(len, found["winner"]["phrases"])) <= 3
    plain = json.loads(run("beam", *unlabelled, "--phrases", "none").stdout)
    assert found["winner"]["support"]["mutual_information"] > plain["winner"]["support"]["mutual_information"]


def test_a_searcher_may_move_phrases_itself(made: list[str]) -> None:
    found = json.loads(
        run("climb", *made, "--phrases", "phrases.txt", "--move-phrases", "--trials", "40", "--json").stdout
    )
    assert "phrases" not in found["winner"]
    tried = [*found["runners_up"], found["winner"]]
    assert any("class_names" in row for row in tried)


def test_classes_get_names_from_a_file(made: list[str]) -> None:
    Path("names.txt").write_text("cat, small cat\ndog\nship, old ship\ntruck\n")
    found = json.loads(run("beam", *made, "--class-names", "names.txt", "--study", "named", "--json").stdout)
    assert found["classes"] == list(CLASSES)
    assert {p for said in found["winner"].get("phrases", []) for p in said} <= {*CLASSES, "small cat", "old ship"}
    resumed = run("runs", "resume", "named", "--storage", "runs.db", "--json").stdout
    assert json.loads(resumed)["winner"] == found["winner"]
    Path("names.txt").write_text("cat\ndog\n")
    assert "2 names for 4 classes" in run("beam", *made, "--class-names", "names.txt", code=2).stderr
    assert "nowhere.txt" in run("beam", *made, "--class-names", "nowhere.txt", code=2).stderr


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("beam", ["--unlabelled", "5"], "--unlabelled would do nothing: it counts the pictures of --shots 0"),
        ("random", ["--split-seed", "3"], "--split-seed would do nothing: it is the seed of --test-share"),
        ("names", ["--split-seed", "0"], "--split-seed would do nothing"),
        ("compare", ["--split-seed", "3"], "--split-seed would do nothing"),
    ],
)
def test_options_that_another_one_gives_a_meaning_are_refused_alone(command: str, args: list[str], said: str) -> None:
    assert said in run(command, "--model", "tiny", "--dataset", "made", *args, code=2).stderr


@pytest.mark.parametrize(
    ("classes", "names", "why"),
    [
        (["1", "10", "2"], "one\nten\ntwo\n", "class '10' before '2'"),
        (["class 1", "class 10", "class 9"], "a\nb\nc\n", "class 'class 10' before 'class 9'"),
        (["Zebra", "ant"], "zebra\nant\n", "class 'Zebra' before 'ant'"),
        (["zebra", "élan"], "stripes\nantlers\n", "class 'zebra' before 'élan'"),
        (["cat", "dog"], "dog\ncat\n", "class 'cat' would be called 'dog'"),
        (["big dog", "cat"], "tom\nbig_Dog\n", "class 'cat' would be called 'big_Dog'"),
    ],
)
def test_names_whose_order_is_in_doubt_are_refused(classes: list[str], names: str, why: str) -> None:
    with pytest.raises(InputError, match=f"n.txt: .*{why}.*; write lines of the class, a tab and its name"):
        parse_class_names(names, "n.txt").of(classes)
    said = names.split()
    lines = "".join(f"{c.replace(' ', '_')}\t{n}\n" for c, n in zip(classes, said, strict=True))
    assert parse_class_names(lines, "n.txt").of(classes)[0] == said


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["1", "2", "10"], ["one", "two", "ten"]),
        (["-1", "0", "1"], ["no", "zero", "one"]),
        (["n01440764", "n01443537"], ["tench", "goldfish"]),
        (["airplane", "automobile", "cat"], ["plane", "car", "cat"]),
        (["dog", "cat", "Zebra"], ["hound", "tom", "stripes"]),
    ],
)
def test_names_in_the_only_order_that_there_is_are_taken(classes: list[str], names: list[str]) -> None:
    assert parse_class_names("\n".join(names), "n.txt").of(classes)[0] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cow\tbull\n", "p.txt:1: phrases for class 'cow', which is not in the data set"),
        ("cat\tdog\n", "p.txt:1: phrase 'dog' of class 'cat' names another class"),
        ("cat\tpet\ndog\tpet\n", "p.txt:2: phrase 'pet' of class 'dog' is one of class 'cat' too"),
        ("", "p.txt: no phrases"),
    ],
)
def test_wrong_phrases_are_refused_in_one_line(made: list[str], text: str, said: str) -> None:
    Path("p.txt").write_text(text)
    assert said in run("beam", *made, "--phrases", "p.txt", code=2).stderr


def test_a_bank_of_phrases_that_is_not_there_is_named(made: list[str]) -> None:
    error = run("beam", *made, "--phrases", "cifar11", code=2).stderr
    assert "cifar11: no such file or bank; built-in phrase banks: cifar10, cifar100, pacs" in error


def test_tip_adapter_adds_the_shots_to_the_text() -> None:
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(6, 5)), np.array([0, 0, 1, 1, 2, 2])
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    weights, pictures = rng.normal(size=(3, 5)), keys[::-1] + 0.1
    hits, xent = score_cached(weights, cache_of(keys, labels), pictures, labels[::-1], 2.0)
    for n, x in enumerate(pictures):
        logits = 2.0 * weights @ x
        for key, c in zip(keys, labels, strict=True):
            logits[c] += ALPHA * np.exp(-BETA * (1 - x @ key))
        assert hits[n] == (logits.argmax() == labels[::-1][n])
    assert xent > 0


def test_of_equal_logits_the_true_class_is_none_of_tip_adapters_hits() -> None:
    picture, labels = np.array([[1.0, 0.0]]), np.array([0, 1])
    cache = cache_of(np.repeat(picture, 2, axis=0), labels)  # one shot of each class, both alike
    for true in labels:
        assert not score_cached(np.repeat(picture, 2, axis=0), cache, picture, np.array([true]), 10.0)[0].any()


def test_tip_adapter_and_phrases_are_compared(made: list[str]) -> None:
    options = ["--model", "tiny", "--dataset", "made", "--bank", "bank.txt", "--storage", "runs.db", "--shots", "4"]
    methods = "hand-written,beam,tip-adapter"
    options += ["--seeds", "2", "--methods", methods, "--against", "hand-written", "--phrases", "phrases.txt"]
    found = json.loads(run("compare", *options, "--json").stdout)
    rows = {(c["method"], c["seed"]): c for c in found["cells"]}
    assert rows["tip-adapter", 0]["test_accuracy"] >= rows["hand-written", 0]["test_accuracy"] - 0.1
    assert not rows["tip-adapter", 0]["readable"]
    assert any(" / " in name for seed in (0, 1) for name in rows["beam", seed]["class_names"] or [])
    assert json.loads(run("compare", *options, "--json").stdout)["cells"] == found["cells"]
