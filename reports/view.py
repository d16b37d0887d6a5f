"""Reads saved runs in the form in which the HTML report shows them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.evaluators import Score
from promptsearch.reports.table import headline
from promptsearch.runs import Record, RunRecord, RunResult
from promptsearch.search.objective import of_options


@dataclass(frozen=True)
class Point:
    """A recorded prompt set with its score.

    Attributes:
        evaluations: Number of sets that the search had scored by then.
        prompt_set: The prompt set.
        score: Its score on the support set.
    """

    evaluations: int
    prompt_set: PromptSet
    score: Score

    @property
    def labelled(self) -> bool:
        """Whether the pictures had labels, so that the score has an accuracy."""
        return not math.isnan(self.score.accuracy)

    @property
    def words(self) -> int:
        """Number of words in all templates, counting each class name as one word."""
        return sum(len(t.split()) for t in self.prompt_set.templates)


class RunView:
    """A saved run: its recorded sets in the order they were scored, its result, and a headline.

        view = RunView(RunRecord.load("my-run"))
        print(view.headline)
        for point in view.best_so_far():
            print(point.evaluations, point.score.xent)

    Args:
        record: The saved run.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.name = record.name
        self.config, self.about = record.config, record.about
        self.result: dict[str, Any] | None = record.result
        self.details: dict[str, Any] | None = record.get("details")
        self.points = [
            Point(t.evaluations or i, t.prompt_set, t.score)
            for i, t in enumerate((t for t in record.all_trials() if t.score is not None), 1)
            if t.score is not None
        ]
        self._objective = of_options(self.config.search.builder_options())

    @property
    def searcher(self) -> str:
        """The command that made the run, with its Optuna sampler if it has one, e.g. "search (tpe)"."""
        sampler = self.config.search.options.get("sampler")
        command = self.config.command
        return f"{command} ({sampler})" if sampler and sampler != command else command

    @property
    def objective(self) -> str:
        """Name of the objective in words, e.g. "cross-entropy"."""
        name = self.config.search.objective
        return {"xent": "cross-entropy"}.get(name, name)

    @property
    def empty(self) -> bool:
        """Whether the run has neither a result nor a scored set."""
        return self.result is None and not self.points

    @property
    def readable(self) -> bool:
        """Whether the winner consists of prompts that can be read, not of learnt vectors."""
        return self.result is None or self.result["winner"].get("readable", True) is not False

    @property
    def setting(self) -> str:
        """Model, data set, shots and seed in one line."""
        c, shots, seed = self.config, self.config.search.shots, self.config.search.seed
        drawn = f"{shots} shot{'s' if shots != 1 else ''} per class" if shots else "no labels"
        return f"{c.model} on {c.dataset}, {drawn}, seed {seed}"

    def ranked(self) -> list[Point]:
        """Return the distinct prompt sets, best first by the run's own objective."""
        first = {p.prompt_set: p for p in reversed(self.points)}
        return sorted(
            first.values(),
            key=lambda p: (tuple(-v for v in self._objective(p.score)), p.prompt_set.size, p.prompt_set.templates),
        )

    def winner(self) -> dict[str, Any]:
        """Return the winner of the result, or the best set so far if the run is not finished.

        The run must not be empty.
        """
        if self.result is not None:
            found: dict[str, Any] = self.result["winner"]
            return found
        best = self.ranked()[0]
        return {**best.prompt_set.to_dict(), "support": best.score.to_dict()}

    def value(self, point: Point) -> float:
        """Return the value of the run's objective for a recorded set; larger is better."""
        return self._objective(point.score)[0]

    def best_so_far(self) -> list[Point]:
        """Return the recorded sets that were better than all before them."""
        best: list[Point] = []
        for p in self.points:
            if not best or self._objective(p.score) > self._objective(best[-1].score):
                if best and best[-1].evaluations == p.evaluations:
                    best.pop()
                best.append(p)
        return best

    def chosen(self, among: int = 50) -> Counter[str]:
        """Count how many of the best sets use each template.

        Args:
            among: Largest number of sets counted as best; otherwise it is a tenth of all, but at least 5.
        """
        ranked = self.ranked()
        top = ranked[: max(5, min(among, len(ranked) // 10))]
        return Counter(str(t) for p in top for t in p.prompt_set.templates)

    @property
    def headline(self) -> str:
        """One or two sentences that name the winner and say how good it is."""
        if self.empty:
            return "No prompt set was scored yet."
        winner = self.winner()
        accuracy = figure(winner["support"], "accuracy")
        found = "chosen by its score without labels"
        if accuracy is not None:
            found = f"it classifies {100 * accuracy:.1f} % of the few-shot pictures correctly"
        what = _what(winner, self.readable)
        if self.result is None:
            return (
                f"The run is not finished. The best of {len(self.points)} recorded sets so far is {what}: {found}. "
                "The test split was not opened."
            )
        return headline(RunResult.from_dict(self.result))


@dataclass(frozen=True)
class Opened:
    """The runs of a report.

    Attributes:
        views: Runs of searches and gradient baselines.
        comparisons: Documents of `promptsearch compare`.
        empty: Names of the runs that have no scored trial yet.
    """

    views: list[RunView]
    comparisons: list[dict[str, Any]]
    empty: list[str]


def open_views(names: tuple[str, ...], storage: str | None = None) -> Opened:
    """Load the runs of a report.

    Args:
        names: Names of the runs.
        storage: URL of the database; by default the user's own.

    Returns:
        The runs, sorted into searches, comparisons and empty runs.

    Raises:
        InputError: A run does not exist, or all of them are empty.
    """
    opened = Opened([], [], [])
    for name in dict.fromkeys(names):
        record = RunRecord.load(name, storage)
        if record.config.command == "compare":
            if record.result is None:
                opened.empty.append(name)
            else:
                opened.comparisons.append({**record.result, "name": name})
            continue
        view = RunView(record)
        if view.empty:
            opened.empty.append(name)
        else:
            opened.views.append(view)
    if not opened.views and not opened.comparisons:
        empty = opened.empty
        runs = f"run {empty[0]!r} has" if len(empty) == 1 else f"the runs {', '.join(map(repr, empty))} have"
        raise InputError(f"{runs} no scored trial yet; run the same search command again to resume")
    return opened


def by_shots(views: list[RunView]) -> dict[str, list[tuple[int, float, float, int]]]:
    """Average the test accuracies of runs by searcher and shots.

    Args:
        views: The runs; those without a result are left out.

    Returns:
        For each searcher, and for the hand-written prompt, rows (shots, mean test accuracy, standard deviation over
        runs, number of runs) in ascending order of shots. Accuracies are fractions.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for v in views:
        if v.result is None or "paired" not in v.result:
            continue
        shots = v.config.search.shots
        found.setdefault(v.searcher, {}).setdefault(shots, []).append(v.result["winner"]["test"]["accuracy"])
        for b in v.result["baselines"]:
            if b["name"] == "hand-written":
                found.setdefault("hand-written", {}).setdefault(shots, []).append(b["test"]["accuracy"])
    return {
        name: [
            (shots, statistics.fmean(a), statistics.stdev(a) if len(a) > 1 else 0.0, len(a))
            for shots, a in sorted(rows.items())
        ]
        for name, rows in found.items()
    }


def figure(support: Mapping[str, Any], name: str) -> float | None:
    """Return one value of a saved score, or None if it is missing, as accuracy is without labels.

    Args:
        support: A saved score, e.g. the winner's `support`.
        name: Name of the value, e.g. "accuracy".
    """
    value = support.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _what(winner: dict[str, Any], readable: bool) -> str:
    if not readable:
        return "a set of learnt vectors, which cannot be read"
    n = len(winner["templates"])
    return f"“{winner['templates'][0]}”" if n == 1 else f"an ensemble of {n} templates"
