"""Random search, the baseline for all other searchers at an equal number of evaluations."""

from __future__ import annotations

from promptsearch.banks import PromptSet
from promptsearch.search.trial_searcher import TrialSearcher


class RandomSearch(TrialSearcher):
    """Draws sets uniformly (first the size, then the templates) without repetition.

    searcher = RandomSearch(Space(bank, ensemble=4), get_objective("xent"), seed=0, batch=8)
    while (batch := searcher.ask()) and searcher.trials < 300:
        searcher.tell(list(zip(batch, evaluator.score(batch))))
    """

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        return self._unseen(self.rng(), taken, self.batch)
