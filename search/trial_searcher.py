"""The base class of searchers that record every scored set as a trial: random search, hill climbing, TPE, evolution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.score import Score
from promptsearch.search.encoding import SlotEncoding
from promptsearch.search.objective import Objective
from promptsearch.search.searcher import Searcher, Told
from promptsearch.search.space import Space


class TrialSearcher(Searcher):
    """Proposes a few sets at a time, each of which becomes a trial of the run.

        searcher = RandomSearch(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 100:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    The state depends only on the trials that were told, in their order, and randomness on (seed, number of trials,
    worker). A run is therefore resumed by telling a new searcher the recorded trials, and several workers can share it.

    Args:
        space: The space of sets.
        objective: What is maximised.
        seed: Seed of all draws.
        batch: Number of sets proposed at a time.

    Attributes:
        start: Sets to propose first.
        worker: Number of the worker; workers of the same run draw different sets.
        total: Number of trials of the run, if known.
        bounded: Whether the searcher only proposes sets of the space, so that it ends when all were scored.
        trials: Number of trials told.
        known: Score of every set that was told.

    Raises:
        InputError: `batch` is below 1 or `seed` is negative.
    """

    def __init__(self, space: Space, objective: Objective, *, seed: int = 0, batch: int = 1) -> None:
        super().__init__(objective)
        self.bank = space.bank
        if batch < 1:
            raise InputError(f"--batch {batch}: must be at least 1")
        if seed < 0:
            raise InputError(f"--seed {seed}: must be 0 or larger")
        self.space, self.seed, self.batch = space, seed, batch
        self.encoding = SlotEncoding(space)
        self.start: tuple[PromptSet, ...] = ()
        self.worker = 0
        self.total: int | None = None
        self.bounded = True
        self.trials = 0
        self.known: dict[PromptSet, Score] = {}
        self._inside = 0
        self._asked: list[PromptSet] | None = None
        self._last: list[PromptSet] = []

    def ask(self, in_hand: Collection[PromptSet] = ()) -> list[PromptSet]:
        """Return the next batch of sets, without repetition; an empty list when nothing is left to propose.

        Args:
            in_hand: Sets that other workers are scoring now.
        """
        if in_hand:
            return self._next(set(in_hand))
        if self._asked is None:
            self._asked = self._next(set())
        return list(self._asked)

    def tell(self, results: Told) -> None:
        """Learn the scores of sets, whoever proposed them."""
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
        """Set the task's class names, before the first `ask` or `tell`."""
        super().name_classes(own)
        self.encoding.names = self.names

    def record(self) -> list[PromptSet]:
        """Return all sets that were last told."""
        return list(self._last)

    def params(self, prompt_set: PromptSet) -> dict[str, Any]:
        """Return the Optuna parameters of a set's trial; empty if the set does not belong to the space."""
        return self.encoding.params(prompt_set) or {}

    def progress(self) -> str:
        """Return what the progress line says besides the best score so far; empty for nothing."""
        return ""

    def notes(self, prompt_set: PromptSet) -> dict[str, Any]:
        """Return further attributes of a set's trial, such as its origin."""
        return {}

    def finish(self) -> None:
        """Stop background work, because the search is over or will be resumed by another process."""

    def recall(self, params: Mapping[str, Any]) -> None:
        """Learn the parameters of a recorded trial before it is told."""
        if self.space.bank.sampled and params:
            self.encoding.recall(params)

    def rng(self) -> np.random.Generator:
        """Return the random generator of the next batch."""
        return np.random.default_rng(self.entropy())

    def entropy(self) -> np.random.SeedSequence:
        """Return the seed of the next batch."""
        # SeedSequence pads with zeros, so worker 0 draws the same as a run without workers.
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
        """Return up to `batch` distinct sets that are not in `taken`, without changing the searcher's state."""

    def _learn(self, prompt_set: PromptSet, score: Score, repeated: bool) -> None:
        """Learn a trial; `tell` calls this before it adds the trial to `known`."""

    def _learnt(self) -> None:
        """Do what is due after `tell` has added a trial to `known`."""

    def _unseen(self, rng: np.random.Generator, taken: set[PromptSet], n: int) -> list[PromptSet]:
        """Draw up to `n` distinct sets that are neither known nor taken."""
        seen = _Either(self.known, set(taken))
        found: list[PromptSet] = []
        while len(found) < n and (drawn := self.space.draw_unseen(rng, seen)) is not None:
            found.append(drawn)
            seen.more.add(drawn)
        return found


class _Either(set[PromptSet]):
    """The union of two collections, for membership tests only; the larger one is not copied."""

    def __init__(self, one: Mapping[PromptSet, Score], more: set[PromptSet]) -> None:
        super().__init__()
        self.one, self.more = one, more

    def __contains__(self, item: object) -> bool:
        return item in self.one or item in self.more
