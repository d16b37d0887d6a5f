"""The same search again, on a part of the support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.runs.run import search
from promptsearch.runs.share import Budget
from promptsearch.search import Searcher

Found = list[tuple[PromptSet, Score]]


@dataclass(frozen=True)
class Repeat:
    """Makes a fresh searcher and lets it search as long as the run's own did.

        repeat = Repeat(lambda: BeamSearch(bank, objective), evaluator)
        found = repeat.on(inside)

    Attributes:
        fresh: makes the searcher, with its starting points; None where a search cannot be repeated (it waits for a
            language model, say): then the sets that the run found are scored again instead.
        found: those sets.
        trials: how many the run had, for searchers by trials.
    """

    fresh: Callable[[], Searcher] | None
    evaluator: Evaluator
    found: tuple[PromptSet, ...] = ()
    trials: int | None = None

    def on(self, inside: np.ndarray) -> tuple[Evaluator, Found]:
        """An evaluator of these pictures alone, and what the search records there."""
        part = self.evaluator.part(inside)
        if self.fresh is None:
            return part, list(zip(self.found, part.score(self.found), strict=True))
        return part, search(self.fresh(), part, budget=Budget(self.trials)).ranked
