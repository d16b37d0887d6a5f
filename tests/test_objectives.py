"""Objectives: what their figures are, and that every searcher goes by each of them, without labels too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_problem import make_problem
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from promptsearch.banks import BASELINE, PromptSet, Template
from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Score, Split, Task
from promptsearch.evaluators.task import draw_unlabelled
from promptsearch.search import OBJECTIVES, choose_objective, get_objective

TEMPLATES = [Template(f"wording {i} of a {{}}.") for i in range(9)]
FIGURES = ("margin", "balanced", "worst_class", "xent_fitted", "zpe", "mutual_information", "agreement")
CLASSES, DIM, SCALE = 4, 12, 15.0


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def encode(texts: Any) -> np.ndarray:
    return unit(np.array([np.random.default_rng(list(t.encode())).normal(size=DIM) for t in texts]))


def evaluator(labelled: bool = True, n: int = 30) -> Evaluator:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, n) if labelled else np.full(n, -1)
    support = Split(unit(rng.normal(size=(n, DIM))), labels, np.arange(n))
    names = tuple(f"class{c}" for c in range(CLASSES))
    return Evaluator(Task("made", names, int(labelled), 0, support, support, lambda: support), encode, SCALE)


def logits_of(ev: Evaluator, s: PromptSet) -> np.ndarray:
    """(N, C) in float64."""
    return SCALE * ev.task.support.features.astype(float) @ ev.class_weights(s).astype(float).T


def test_figures_equal_their_plain_formulas() -> None:
    ev = evaluator()
    ev.require(FIGURES, TEMPLATES)
    consensus = np.mean([softmax(logits_of(ev, PromptSet.of(t)), axis=1) for t in TEMPLATES], axis=0).argmax(axis=1)
    y = ev.task.support.labels
    rows = np.arange(len(y))
    for s in (PromptSet.of(TEMPLATES[0]), PromptSet.of(*TEMPLATES[2:5]), PromptSet(TEMPLATES[:2], weights=(1.0, 2.5))):
        (score,) = ev.score([s])
        z = logits_of(ev, s)
        p = softmax(z, axis=1)
        others = np.where(np.arange(CLASSES) == y[:, None], -1, p).max(axis=1)
        assert score.margin == pytest.approx((p[rows, y] - others).mean(), abs=1e-5)
        hits = z.argmax(axis=1) == y
        assert score.balanced == pytest.approx(np.mean([hits[y == c].mean() for c in range(CLASSES)]), abs=1e-9)
        assert score.worst_class == pytest.approx(min(hits[y == c].mean() for c in range(CLASSES)), abs=1e-9)
        at = minimize_scalar(lambda g, z=z: -log_softmax(g * z, axis=1)[rows, y].mean(), bounds=(0.25, 4)).fun
        assert score.xent_fitted == pytest.approx(at, abs=5e-4)
        assert score.xent_fitted <= score.xent + 1e-6
        assert score.zpe == pytest.approx((z - z.mean(axis=0)).max(axis=1).mean(), abs=1e-4)
        mean = p.mean(axis=0)
        information = -(mean * np.log(mean)).sum() + (p * np.log(p)).sum(axis=1).mean()
        assert score.mutual_information == pytest.approx(information, abs=1e-5)
        assert score.agreement == pytest.approx(p[rows, consensus].mean(), abs=1e-5)


def test_a_fitted_scale_stays_bounded_where_all_pictures_are_right() -> None:
    from promptsearch.evaluators.scoring.metrics import FITTED, xent_fitted

    logits = np.where(np.eye(3) > 0, 2.0, -1.0).astype(np.float32)[None]  # (1, C, N): three pictures, all right
    labels = np.arange(3)
    expected = -log_softmax(FITTED[1] * logits[0].T, axis=1)[labels, labels].mean()
    assert xent_fitted(logits, labels, None)[0] == pytest.approx(expected, rel=0.02)


def test_further_figures_do_not_depend_on_the_batch() -> None:
    sets = [PromptSet(TEMPLATES[i : i + 1 + i % 3]) for i in range(7)]
    together, alone = evaluator(), evaluator()
    for ev in (together, alone):
        ev.require(FIGURES, TEMPLATES)
    assert together.score(sets) == [alone.score([s])[0] for s in sets]  # to the bit


def test_figures_are_computed_only_when_they_are_asked_for() -> None:
    (score,) = evaluator().score([PromptSet.of(TEMPLATES[0])])
    assert score.to_dict().keys() == {"accuracy", "xent"}
    ev = evaluator()
    ev.require(("margin",))
    assert ev.score([PromptSet.of(TEMPLATES[0])])[0].to_dict().keys() == {"accuracy", "xent", "margin"}


def test_without_labels_there_are_no_figures_that_need_them() -> None:
    ev = evaluator(labelled=False)
    ev.require(("zpe", "agreement"), TEMPLATES)
    assert ev.score([PromptSet.of(TEMPLATES[0])])[0].to_dict().keys() == {"zpe", "agreement"}
    with pytest.raises(InputError, match="needs labelled pictures"):
        ev.require(("margin",))
    with pytest.raises(InputError, match="give a bank"):
        evaluator().require(("agreement",))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_larger_keys_are_better(name: str) -> None:
    good = Score(0.9, 0.1, None, 0.8, 0.9, 0.1, 2.0, 2.0, 0.9, worst_class=0.7)
    bad = Score(0.5, 0.9, None, 0.1, 0.5, 0.8, 1.0, 1.0, 0.4, worst_class=0.2)
    objective = get_objective(name)
    assert objective(good) > objective(bad)


def test_the_default_follows_from_the_shots() -> None:
    assert choose_objective(None, 16) == "xent" and not get_objective(choose_objective(None, 0)).labels
    with pytest.raises(InputError, match="--shots 0 has none; choose from zpe"):
        choose_objective("accuracy", 0)


def test_unlabelled_draws_are_nested_and_bounded() -> None:
    few, many = draw_unlabelled(100, 10, 3), draw_unlabelled(100, 20, 3)
    assert set(few) < set(many) and len(set(many)) == 20
    for count in (0, 101):
        with pytest.raises(InputError, match=f"--unlabelled {count}: there are 100"):
            draw_unlabelled(100, count, 0)


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    """Options of a made-up problem whose prompts need no torch."""
    make_problem(tmp_path / "cache", TEMPLATES)
    bank = tmp_path / "bank.txt"
    bank.write_text("".join(f"{t}\n" for t in TEMPLATES))
    return ["--model", "tiny", "--dataset", "made", "--bank", str(bank), "--storage", str(tmp_path / "runs.db")]


def run(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.mark.parametrize(
    ("command", "name"),
    [*(("beam", name) for name in OBJECTIVES), ("tpe", "balanced"), ("climb", "xent-fitted"), ("random", "margin")],
)
def test_every_searcher_goes_by_every_objective(made: list[str], command: str, name: str) -> None:
    few = ["--depth", "2"] if command == "beam" else ["--trials", "12"]
    given = ["--shots", "3", "--objective", name, "--select", "none", "--no-estimate"]
    doc = json.loads(run(command, *made, *few, *given, "--json").stdout)
    key = get_objective(name)
    assert doc["selection"]["method"] == "none" and "estimate" not in doc
    figures = [doc["winner"], *doc["runners_up"]]
    keys = [key(Score(**r["support"])) for r in figures]
    assert keys[0] == max(keys) and doc["objective"] == name


@pytest.mark.parametrize("command", ["beam", "tpe", "climb", "random", "evolve"])
def test_no_labels_at_all(made: list[str], command: str) -> None:
    few = ["--depth", "2"] if command == "beam" else ["--trials", "12"]
    if command == "evolve":
        few += ["--population", "4", "--offspring", "3", "--proposer", "grammar"]  # no prompt that is not in the cache
    options = [command, *made, *few, "--shots", "0", "--unlabelled", "50"]
    doc = json.loads(run(*options, "--json").stdout)
    assert doc["shots"] == 0 and doc["winner"]["support"].keys() == {"mutual_information"}
    assert 0 <= doc["winner"]["test"]["accuracy"] <= 1
    text = run(*options).stdout
    for words in ("No label was read", "50 unlabelled training pictures by mutual-information", "no accuracy"):
        assert words in text
    assert "nan" not in text.replace("(nats", "").split("Run ")[0]


def test_a_small_data_set_is_searched_whole_without_labels(made: list[str]) -> None:
    """The default is 500 pictures, and the data set has 160."""
    assert "160 unlabelled training pictures" in run("beam", *made, "--shots", "0", "--depth", "1").stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--objective", "xent"], "needs labelled pictures and --shots 0 has none; choose from zpe"),
        (["--unlabelled", "0"], "--unlabelled 0: there are 160 training pictures"),
        (["--unlabelled", "161"], "choose from 1 to 160"),
        (["--objective", "f1"], "'f1' is not known; choose from accuracy, xent"),
    ],
)
def test_bad_options_without_labels(made: list[str], args: list[str], message: str) -> None:
    error = run("beam", *made, "--shots", "0", *args, code=2).stderr
    assert message in error and len(error.strip().splitlines()) == 1


def test_labels_of_the_pool_are_never_read_without_shots(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled training labels change nothing."""
    from promptsearch.evaluators.data.picture_features import PackFeatures

    first = json.loads(run("beam", *made, "--shots", "0", "--unlabelled", "60", "--json").stdout)
    honest = PackFeatures.labels

    def shuffled(self: PackFeatures, split: str) -> tuple[np.ndarray, np.ndarray]:
        labels, indices = honest(self, split)
        return (np.random.default_rng(1).permutation(labels) if split == "train" else labels), indices

    monkeypatch.setattr(PackFeatures, "labels", shuffled)
    again = json.loads(run("beam", *made, "--shots", "0", "--unlabelled", "60", "--study", "again", "--json").stdout)
    assert again["winner"] == first["winner"]
    assert [BASELINE] in [b["templates"] for b in again["baselines"]]
