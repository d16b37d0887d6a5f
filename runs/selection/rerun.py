"""The same search again, on a part of the support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptsearch.banks import Bank, PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.runs.loop.search_loop import prepare, search
from promptsearch.runs.loop.shared_loop import Budget
from promptsearch.search import Searcher

#: Banks of more templates are not scored whole for a choice alone: their texts would have to be encoded for it.
WHOLE = 1000

Found = list[tuple[PromptSet, Score]]


@dataclass(frozen=True)
class Repeat:
    """Makes a fresh searcher and lets it search as long as the run's own did.

        repeat = Repeat(lambda bank: BeamSearch(bank, objective), bank, evaluator)
        part, found = repeat.on(inside)

    Attributes:
        fresh: makes the searcher over a bank, with its starting points; None where a search cannot be repeated (it
            waits for a language model, say): then the sets that the run found are scored again instead.
        bank: the run's own.
        found: those sets.
        trials: how many the run had, for searchers by trials.
    """

    fresh: Callable[[Bank], Searcher] | None
    bank: Bank
    evaluator: Evaluator
    found: tuple[PromptSet, ...] = ()
    trials: int | None = None

    def on(self, inside: np.ndarray, among: int | None = None) -> tuple[Evaluator, Found]:
        """An evaluator of these pictures alone, and what the search records there.

        Args:
            among: search only among so many templates, those that are best alone on these pictures.
        """
        part = self.evaluator.part(inside)
        if self.fresh is None:
            return part, list(zip(self.found, part.score(self.found), strict=True))
        bank = self.bank
        if among is not None and among < len(bank) <= WHOLE:
            bank = self._best(part, among)
        return part, search(self.fresh(bank), part, budget=Budget(self.trials)).ranked

    def _best(self, part: Evaluator, among: int) -> Bank:
        assert self.fresh is not None  # whoever asks for this repeats a search
        searcher = self.fresh(self.bank)
        prepare(searcher, part)
        singles = [PromptSet.of(t) for t in self.bank]
        ranked = searcher.ranked(list(zip(singles, part.score(singles), strict=True)))
        best = [s.templates[0] for s, _ in ranked[:among]]
        return Bank(self.bank.name, tuple(best), class_names=self.bank.class_names)
