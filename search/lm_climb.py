"""Hill climbing with a language model, which is shown the best and worst templates and asked for a better one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.banks import Template
from promptsearch.errors import InputError
from promptsearch.search.objective import Objective
from promptsearch.search.proposal_search import Scored, View, Wish, WritingSearcher
from promptsearch.search.proposers.request import Request
from promptsearch.search.space import Space


class AskClimb(WritingSearcher):
    """Asks a language model for templates like the best and unlike the worst of a pool (Liu et al. 2024).

        searcher = AskClimb(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    As in Liu et al. 2024, "Language Models as Black-Box Optimizers for Vision-Language Models", a pool starts with sets
    drawn from the bank, every proposal is added to it, and templates are shown without their scores. In ensembles, the
    written template replaces one of a good ensemble or is added to it.

    Args:
        space: The space of sets.
        objective: What is maximised.
        seed: Seed of all draws.
        batch: Number of sets proposed at a time.
        pool: Number of sets drawn from the bank at the start of a pool (all, if it has fewer).
        shown: Number of best and of worst sets shown.
        patience: Number of batches without a better set after which a new pool is started, if the bank has sets left.

    Raises:
        InputError: An option is below 1, or `shown` is larger than `pool`.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        *,
        seed: int = 0,
        batch: int = 4,
        pool: int = 20,
        shown: int = 3,
        patience: int = 10,
    ) -> None:
        super().__init__(space, objective, seed=seed, batch=batch)
        for option, value in (("pool", pool), ("shown", shown), ("patience", patience)):
            if value < 1:
                raise InputError(f"--{option} {value}: must be at least 1")
        if shown > pool:
            raise InputError(f"--shown {shown}: a pool starts with {pool} sets; give at most that, or a larger --pool")
        self.pool, self.shown, self.patience = pool, shown, patience
        self._pool: list[Scored] = []
        self._without = 0

    def _look(self, news: Sequence[Scored]) -> View:
        before = self._pool[0] if self._pool else None
        full = len(self._pool) >= self.pool
        self._pool = self.ranked(list(dict([*self._pool, *news]).items()))
        better = before is None or self._pool[0] != before
        self._without = 0 if better or not full else self._without + 1
        if self._without >= self.patience and not self._through:
            self._pool, self._without = [], 0
        return View(
            self.trials, tuple(self._pool[: self.shown]), tuple(self._pool[-self.shown :]), since=len(self._pool)
        )

    @property
    def _through(self) -> bool:
        """Whether all sets of the bank were scored, so that no new pool can be started."""
        return self.space.count is not None and self._inside >= self.space.count

    def _wishes(self, view: View, rng: np.random.Generator, n: int) -> list[Wish]:
        if not view.best or (view.since < self.pool and not self._through):
            return []
        good = tuple(str(t) for s, _ in reversed(view.best) for t in s.templates)
        bad = tuple(str(t) for s, _ in reversed(view.worst) for t in s.templates if str(t) not in good)
        request = Request("better", good=good, bad=bad)
        return [self._wish(request, view, rng) for _ in range(n)]

    def _wish(self, request: Request, view: View, rng: np.random.Generator) -> Wish:
        if self.space.ensemble == 1:
            return Wish(request)
        around = view.best[int(rng.integers(len(view.best)))][0]
        if around.size < self.space.ensemble and rng.random() < 0.5:
            return Wish(request, around=around)
        return Wish(request, around=around, old=Template(around.templates[int(rng.integers(around.size))]))
