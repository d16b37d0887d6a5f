"""Searchers, objectives and figures of one's own, in Python: what is wrong with them is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_problem import CLASSES, make_problem

from promptsearch import PromptSearch
from promptsearch.banks import Bank, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, mid_p, open_problem, paired_difference, wilson
from promptsearch.evaluators.intervals import compare_paired
from promptsearch.runs import search
from promptsearch.search import BeamSearch, Searcher, get_objective
from promptsearch.search.objective import Plugged

TEMPLATES = ("a photo of a {}.", "a dark photo of the {}.", "a {}.")
A, B = PromptSet.of(TEMPLATES[0]), PromptSet.of(TEMPLATES[1])


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    make_problem(tmp_path / "cache", TEMPLATES)
    problem = open_problem("tiny", Path("made"), device="cpu")
    return problem.evaluator(problem.task(2, 0))


class Own(Searcher):
    """Asks once; each part can be replaced."""

    def __init__(self, ask: Any = (A, B), record: Any = None, best: bool = True, objective: Any = "xent") -> None:
        super().__init__(get_objective(objective) if isinstance(objective, str) else objective)
        self.asked, self.recorded, self.keeps = [ask], record, best

    def ask(self) -> Any:
        return self.asked.pop() if self.asked else []

    def tell(self, results: Any) -> None:
        self.told = [s for s, _ in results]
        self.best = self.ranked(results)[0] if self.keeps else None

    def record(self) -> Any:
        return self.told if self.recorded is None else self.recorded


def test_a_searcher_may_ask_by_any_iterable(evaluator: Evaluator) -> None:
    known = search(Own(), evaluator)
    for ask in ([A, B], iter([A, B])):
        assert search(Own(ask), evaluator).ranked == known.ranked


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Own(["a {}."]), "Own.ask: gives 'a {}.', which is no PromptSet"),
        (lambda: Own([Template("a {}.")]), "Own.ask: gives"),
        (lambda: Own(best=False), "Own.tell: sets no `best`; keep the best set"),
        (lambda: Own(record=[PromptSet.of("never {}.")]), "Own.record: PromptSet(['never {}.']) was not asked for"),
        (lambda: Own(objective=len), "Own.objective: <built-in function len> is no Objective; give that of"),
        (lambda: BeamSearch(Bank.of("b", TEMPLATES), "xent"), "BeamSearch.objective: 'xent' is no Objective; give"),
        (lambda: Own([A.saying([["a"], ["b"]])]), "a prompt set has phrases for 2 classes, and the task has 4"),
        # as many texts as classes, which could be taken for one of each
        (lambda: Own([A.saying([["a", "b"], ["c", "d"]])]), "a prompt set has phrases for 2 classes, and the task has"),
    ],
)
def test_what_a_searcher_does_wrong_is_named(evaluator: Evaluator, make: Callable[[], Searcher], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        search(make(), evaluator)


@pytest.mark.parametrize("value", [math.nan, (math.nan,), 0.5, None, (), ("high",), (0.5, None), [0.5]])
def test_an_objective_that_ranks_by_chance_is_refused(evaluator: Evaluator, value: Any) -> None:
    objective = Plugged("mine", "accuracy", "of a plug-in", function=lambda score: value)
    with pytest.raises(
        InputError, match=f"objective 'mine' gives {re.escape(repr(value))} for Score.*tuple of numbers"
    ):
        search(Own(objective=objective), evaluator)


def test_an_objective_of_ones_own_may_give_any_numbers(evaluator: Evaluator) -> None:
    objective = Plugged(
        "mine", "accuracy", "", function=lambda score: (np.float32(score.accuracy), -score.xent, -math.inf)
    )
    assert search(Own(objective=objective), evaluator).winner == search(Own(objective="accuracy"), evaluator).winner


@pytest.mark.parametrize("interval", [wilson, mid_p])
@pytest.mark.parametrize(("hits", "n"), [(0, 0), (6, 5), (-1, 5)])
def test_an_interval_needs_pictures_and_their_hits(interval: Any, hits: int, n: int) -> None:
    with pytest.raises(InputError, match=f"^{hits} hits of {n} pictures: give at least one picture"):
        interval(hits, n)


@pytest.mark.parametrize("compare", [paired_difference, compare_paired])
def test_a_paired_comparison_is_one_of_the_same_pictures(compare: Any) -> None:
    ours, theirs = np.array([True, True, False, True]), np.array([True, False, False, False])
    known = compare(ours, theirs)
    for same in (ours.tolist(), ours.astype(int), ours.astype(float)):
        assert compare(same, theirs) == known
    for wrong in (theirs[:1], theirs[:0], theirs[None], True):  # numpy would repeat some of them
        with pytest.raises(InputError, match="give one for each of the same pictures"):
            compare(ours, wrong)
    for labels in ([3, 1, 0, 2], [0.5, 1, 0, 1], ["cat"] * 4):
        with pytest.raises(InputError, match="^hits that are neither true nor false: compare the predicted labels"):
            compare(ours, np.array(labels))


def test_given_pictures_of_uneven_classes_are_said_to_be(tmp_path: Path) -> None:
    make_problem(tmp_path / "cache", TEMPLATES)
    source = open_problem("tiny", "made", device="cpu").source
    labels, _ = source.labels("train")
    features = source.features("train", np.arange(len(labels)))
    some = np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate((9, 9, 5, 2))])
    for at, said in (
        (some, "2 of 4 classes have fewer than 9 few-shot pictures (truck 2, ship 5), 25"),
        (slice(8), ""),
    ):
        ps = PromptSearch("tiny", bank=list(TEMPLATES), device="cpu", estimate=False)
        ps.fit(features[at], labels[at], class_names=CLASSES)
        notes = [n for n in ps.result_.notes if "few-shot pictures" in n]
        assert notes[0].startswith(said) if said else not notes
