"""A searcher whose every set is a trial; budgets, recording, resuming and sharing come with the class."""

from itertools import islice

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.search import Objective, Space, TrialSearcher


class ShortFirst(TrialSearcher):
    """Tries a bank's templates from the shortest to the longest.

    Keyword arguments besides seed and batch are options: `promptsearch search short-first --set longest=8`.
    """

    def __init__(self, space: Space, objective: Objective, *, seed: int = 0, batch: int = 1, longest: int = 99) -> None:
        super().__init__(space, objective, seed=seed, batch=batch)
        if not isinstance(longest, int) or longest < 2:
            raise InputError(f"--set longest={longest}: give a number of words, 2 or more")
        short = [t for t in space.bank.templates if len(t.split()) <= longest]
        self.order = [PromptSet.of(t) for t in sorted(short, key=lambda t: (len(t.split()), t))]

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Up to `batch` sets that are new: what was told and what others have in hand is left out."""
        return list(islice((s for s in self.order if s not in self.known and s not in taken), self.batch))
