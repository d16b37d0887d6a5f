"""Beam search over prompt ensembles, which grows the best sets by one template at a time."""

from __future__ import annotations

import heapq

from promptsearch.banks import Bank, PromptSet
from promptsearch.errors import InputError
from promptsearch.score import Score
from promptsearch.search.objective import Objective
from promptsearch.search.pareto import aims, front
from promptsearch.search.searcher import Searcher, Told


class BeamSearch(Searcher):
    """Keeps the `width` best ensembles of each round and grows them by every template of the bank.

        searcher = BeamSearch(bank, get_objective("xent"), width=8, depth=6)
        while batch := searcher.ask():
            searcher.tell(list(zip(batch, evaluator.score(batch))))
        print(searcher.best)

    If the bank has other names for classes, each round also tries them on the ensembles of the beam.

    Args:
        bank: The templates to choose from; their order does not matter.
        objective: What is maximised.
        width: Number of ensembles kept after each round.
        depth: Largest number of templates in an ensemble.
        patience: Number of rounds without a better ensemble after which the search stops.
        pareto: Whether to keep the Pareto front of objective, fluency and brevity as well.

    Raises:
        InputError: `width`, `depth` or `patience` is below 1.
    """

    def __init__(
        self,
        bank: Bank,
        objective: Objective,
        *,
        width: int = 8,
        depth: int = 6,
        patience: int = 2,
        pareto: bool = False,
    ) -> None:
        super().__init__(objective)
        for name, value in {"width": width, "depth": depth, "patience": patience}.items():
            if value < 1:
                raise InputError(f"--{name} {value}: must be at least 1")
        self.bank: Bank = bank
        self.width, self.depth, self.patience = width, depth, patience
        self.pareto = pareto
        self.rounds = depth
        self.round = 0
        self._beam: list[tuple[PromptSet, Score]] = []
        self._front: list[tuple[PromptSet, Score]] = []
        self._recorded: list[PromptSet] = []
        self._stale = 0
        self._met: set[PromptSet] = set()

    def ask(self) -> list[PromptSet]:
        """Return all single templates in the first round, then every ensemble of the beam with one more template."""
        if self.round == 0:
            return [PromptSet.of(t) for t in self.bank.templates]
        if self.round >= self.depth or self._stale >= self.patience:
            return []
        grown: dict[PromptSet, None] = {}  # a dict used as an ordered set
        for parent, _ in self._beam:
            grown.update(dict.fromkeys(parent.grown(self.bank.templates)))
            if self.names is not None:
                grown.update((s, None) for s in self.names.around(parent) if s not in self._met)
        return list(grown)

    def tell(self, results: Told) -> None:
        """Keep the best ensembles of the round as the next beam."""
        self.round += 1
        if self.names is not None:
            self._met.update(s for s, _ in results)
        ranked = self.ranked(results if self.pareto else self._leading(results))
        self._beam = ranked[: self.width]
        self._recorded = [s for s, _ in self._beam]
        if self.pareto:
            every = [*self._front, *ranked]
            self._front = [every[i] for i in front([aims(s, v, self.objective) for s, v in every])]
            new = {s for s, _ in self._front} - set(self._recorded)
            self._recorded += [s for s, _ in ranked if s in new]
        leader = self._beam[0]
        if self.best is None or self.objective(leader[1]) > self.objective(self.best[1]):
            self.best, self._stale = leader, 0
        else:
            self._stale += 1

    def _leading(self, results: Told) -> Told:
        """Return the results among which the first `width` are: only these need to be ranked, by size and words too."""
        values = [self.objective(score) for _, score in results]
        least = heapq.nlargest(self.width, values)[-1]
        kept = [result for result, value in zip(results, values, strict=True) if value >= least]
        return kept if len(kept) >= self.width else results  # values that are no numbers are in no order

    def record(self) -> list[PromptSet]:
        """Return the ensembles of the beam, and with `pareto` those new on the front."""
        return list(self._recorded)
