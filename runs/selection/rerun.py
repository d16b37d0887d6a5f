"""Repeats a search on a part of the support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptsearch.banks import Bank, PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.runs.loop.search_loop import prepare, search
from promptsearch.runs.loop.shared_loop import Budget
from promptsearch.search import Searcher

#: Larger banks are not scored completely for the choice of a winner, because all their texts would have to be encoded.
WHOLE = 1000

Found = list[tuple[PromptSet, Score]]


@dataclass(frozen=True)
class Repeat:
    """Repeats a run's search with a new searcher and the same budget.

        repeat = Repeat(lambda bank: BeamSearch(bank, objective), bank, evaluator)
        part, found = repeat.on(inside)

    Attributes:
        fresh: Builds the searcher for a bank, with its starting points. None if the search cannot be repeated, e.g.
            because it asks a language model; then the sets in `found` are scored instead.
        bank: The run's bank.
        evaluator: The evaluator on the whole support set.
        found: The sets that the run found.
        trials: Number of trials of the run, for searchers that go by trials.
    """

    fresh: Callable[[Bank], Searcher] | None
    bank: Bank
    evaluator: Evaluator
    found: tuple[PromptSet, ...] = ()
    trials: int | None = None

    def on(self, inside: np.ndarray, among: int | None = None) -> tuple[Evaluator, Found]:
        """Repeat the search on some of the pictures.

        Args:
            inside: Positions of the pictures in the support set.
            among: Search only among this many templates, the best single ones on these pictures.

        Returns:
            An evaluator on these pictures, and the sets that the search recorded with their scores, best first.
        """
        part = self.evaluator.part(inside)
        if self.fresh is None:
            return part, list(zip(self.found, part.score(self.found), strict=True))
        bank = self.bank
        if among is not None and among < len(bank) <= WHOLE:
            bank = self._best(part, among)
        return part, search(self.fresh(bank), part, budget=Budget(self.trials)).ranked

    def _best(self, part: Evaluator, among: int) -> Bank:
        assert self.fresh is not None  # only called if the search can be repeated
        searcher = self.fresh(self.bank)
        prepare(searcher, part)
        singles = [PromptSet.of(t) for t in self.bank]
        ranked = searcher.ranked(list(zip(singles, part.score(singles), strict=True)))
        best = [s.templates[0] for s, _ in ranked[:among]]
        return Bank(self.bank.name, tuple(best), class_names=self.bank.class_names)
