"""Searchers whose every proposal is a trial: what random search, hill climbing and TPE have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.search.encoding import SlotEncoding
from promptsearch.search.objective import Objective, ScoreLike
from promptsearch.search.searcher import Searcher, Told
from promptsearch.search.space import Space


class TrialSearcher(Searcher):
    """Proposes a few sets at a time; each that is told is one trial, whoever proposed it.

        searcher = RandomSearch(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 100:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    The state is a function of the trials told, in their order; randomness comes from (seed, trials told, worker).  So
    telling a fresh searcher a run's trials, without asking it, resumes the run; and several workers may share one.

    Attributes:
        start: sets to be proposed before all others.
        worker: tells apart those who share a run; they draw differently.
        total: trials of the run, where whoever runs it has said so.
        bounded: whether all that is ever proposed is in the space, so that the search ends with it.
        trials: how many were told.
        known: the score of every set told.

    Raises:
        InputError: a batch below one, a negative seed.
    """

    def __init__(self, space: Space, objective: Objective, *, seed: int = 0, batch: int = 1) -> None:
        super().__init__(objective)
        self.bank = space.bank
        if batch < 1:
            raise InputError(f"--batch {batch}: must be at least 1")
        if seed < 0:
            raise InputError(f"--seed {seed}: a seed is 0 or larger")
        self.space, self.seed, self.batch = space, seed, batch
        self.encoding = SlotEncoding(space)
        self.start: tuple[PromptSet, ...] = ()
        self.worker = 0
        self.total: int | None = None
        self.bounded = True
        self.trials = 0
        self.known: dict[PromptSet, ScoreLike] = {}
        self._inside = 0
        self._asked: list[PromptSet] | None = None
        self._last: list[PromptSet] = []

    def ask(self, in_hand: Collection[PromptSet] = ()) -> list[PromptSet]:
        """The next batch, without repeats; empty when nothing is left to propose.

        Args:
            in_hand: what other workers are scoring now.
        """
        if in_hand:
            return self._next(set(in_hand))
        if self._asked is None:
            self._asked = self._next(set())
        return list(self._asked)

    def tell(self, results: Told) -> None:
        for prompt_set, score in results:
            repeated = prompt_set in self.known
            self._learn(prompt_set, score, repeated)
            if not repeated:
                self.known[prompt_set] = score
                self._inside += self.space.holds(prompt_set)
                if self.best is None or self.rank_key(prompt_set, score) < self.rank_key(*self.best):
                    self.best = (prompt_set, score)
            self.trials += 1
            self._learnt()
        self._last = [s for s, _ in results]
        self._asked = None

    def name_classes(self, own: Sequence[str]) -> None:
        super().name_classes(own)
        self.encoding.names = self.names

    def record(self) -> list[PromptSet]:
        return list(self._last)

    def params(self, prompt_set: PromptSet) -> dict[str, Any]:
        """The parameters that a trial of this set is recorded with; none where it is not of the space."""
        return self.encoding.params(prompt_set) or {}

    def notes(self, prompt_set: PromptSet) -> dict[str, Any]:
        """What else a trial of this set is recorded with: where it comes from."""
        return {}

    def finish(self) -> None:
        """End what still goes on beside the search; it is over, or will be resumed by another process."""

    def recall(self, params: Mapping[str, Any]) -> None:
        """Take note of the parameters of a recorded trial before it is told."""
        if self.space.bank.sampled and params:
            self.encoding.recall(params)

    def rng(self) -> np.random.Generator:
        """The generator of the next batch."""
        return np.random.default_rng(self.entropy())

    def entropy(self) -> np.random.SeedSequence:
        # SeedSequence pads with zeros, so the first worker draws as if it were the only one.
        return np.random.SeedSequence([self.seed, self.trials, self.worker])

    def _next(self, taken: set[PromptSet]) -> list[PromptSet]:
        starting = [s for s in dict.fromkeys(self.start) if s not in self.known and s not in taken]
        if starting:
            return starting[: self.batch]
        if self.bounded and self.names is None and self.space.count is not None and self._inside >= self.space.count:
            return []
        return self._propose(taken)

    @abstractmethod
    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Up to `batch` distinct sets that are not in `taken`; does not change what the searcher knows."""

    def _learn(self, prompt_set: PromptSet, score: ScoreLike, repeated: bool) -> None:
        """One trial more; called before it is among the known."""

    def _learnt(self) -> None:
        """Called when that trial is among the known."""

    def _unseen(self, rng: np.random.Generator, taken: set[PromptSet], n: int) -> list[PromptSet]:
        """Up to `n` distinct sets drawn from what is neither known nor taken."""
        seen = _Either(self.known, set(taken))
        found: list[PromptSet] = []
        while len(found) < n and (drawn := self.space.draw_unseen(rng, seen)) is not None:
            found.append(drawn)
            seen.more.add(drawn)
        return found


class _Either(set[PromptSet]):
    """What is in either of two collections, without copying the larger one."""

    def __init__(self, one: Mapping[PromptSet, ScoreLike], more: set[PromptSet]) -> None:
        super().__init__()
        self.one, self.more = one, more

    def __contains__(self, item: object) -> bool:
        return item in self.one or item in self.more


def starting_points(sets: Sequence[PromptSet]) -> tuple[PromptSet, ...]:
    """Starting points, each once, in order."""
    return tuple(dict.fromkeys(sets))
