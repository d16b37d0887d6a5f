"""Hill climbing with restarts; a step edits a slot, or adds, drops or replaces a template of the ensemble."""

from __future__ import annotations

from promptsearch.banks import PromptSet
from promptsearch.score import Score
from promptsearch.search.trial_searcher import TrialSearcher


class HillClimb(TrialSearcher):
    """Tries neighbours of the current set in random order and moves to the first better one; restarts at an optimum.

        searcher = HillClimb(Space(bank, ensemble=4), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    Changing the name of one class is also a step, if the bank has other names for it. A restart draws a set that was
    not scored yet; the search ends when there is no such set.
    """

    at: tuple[PromptSet, Score] | None = None
    _neighbours: list[PromptSet] | None = None
    _next_unknown = 0

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        rng = self.rng()
        if self.at is None:
            return self._unseen(rng, taken, 1)
        around = [s for s in self._around() if s not in self.known and s not in taken]
        batch = [around[i] for i in rng.permutation(len(around))[: self.batch]]
        if self.space.ensemble > self.at[0].size:  # in one of four batches, add a template from the whole bank
            drawn = self.space.draw(rng).templates[0]
            wider = self.at[0].add(drawn)
            if rng.random() < 0.25 and wider not in self.known and wider not in taken and wider not in batch:
                batch[-1:] = [wider]
        return batch or self._unseen(rng, taken, 1)

    def _learn(self, prompt_set: PromptSet, score: Score, repeated: bool) -> None:
        if self.at is None or self.rank_key(prompt_set, score) < self.rank_key(*self.at):
            self.at, self._neighbours = (prompt_set, score), None

    def _learnt(self) -> None:
        if self.at is not None and all(s in self.known for s in self._around()[self._next_unknown :]):
            self.at, self._neighbours = None, None

    def _around(self) -> list[PromptSet]:
        if self._neighbours is None:
            assert self.at is not None  # this is called only while there is a current set
            self._neighbours = self.space.neighbours(self.at[0])
            if self.names is not None:
                self._neighbours += self.names.around(self.at[0])
            self._next_unknown = 0
        while self._next_unknown < len(self._neighbours) and self._neighbours[self._next_unknown] in self.known:
            self._next_unknown += 1
        return self._neighbours
