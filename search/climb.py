"""Hill climbing by slot edits and by adding, dropping and replacing ensemble members, with restarts."""

from __future__ import annotations

from promptsearch.banks import PromptSet
from promptsearch.search.objective import ScoreLike
from promptsearch.search.trial_searcher import TrialSearcher


class HillClimb(TrialSearcher):
    """Tries the neighbours of where it stands in random order, moves to the first better one, restarts on a summit.

        searcher = HillClimb(Space(bank, ensemble=4), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    Another name for a class, where the bank has some, is a neighbour too.  A restart goes to a set drawn from those
    never scored, so the search ends when all of them were.
    """

    at: tuple[PromptSet, ScoreLike] | None = None
    _neighbours: list[PromptSet] | None = None
    _next_unknown = 0

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        rng = self.rng()
        if self.at is None:
            return self._unseen(rng, taken, 1)
        around = [s for s in self._around() if s not in self.known and s not in taken]
        batch = [around[i] for i in rng.permutation(len(around))[: self.batch]]
        if self.space.ensemble > self.at[0].size:  # a member from anywhere: one in four
            drawn = self.space.draw(rng).templates[0]
            wider = self.at[0].add(drawn)
            if rng.random() < 0.25 and wider not in self.known and wider not in taken and wider not in batch:
                batch[-1:] = [wider]
        return batch or self._unseen(rng, taken, 1)

    def _learn(self, prompt_set: PromptSet, score: ScoreLike, repeated: bool) -> None:
        if self.at is None or self.rank_key(prompt_set, score) < self.rank_key(*self.at):
            self.at, self._neighbours = (prompt_set, score), None

    def _learnt(self) -> None:
        if self.at is not None and all(s in self.known for s in self._around()[self._next_unknown :]):
            self.at, self._neighbours = None, None

    def _around(self) -> list[PromptSet]:
        if self._neighbours is None:
            assert self.at is not None  # asked for only where it stands somewhere
            self._neighbours = self.space.neighbours(self.at[0])
            if self.names is not None:
                self._neighbours += self.names.around(self.at[0])
            self._next_unknown = 0
        while self._next_unknown < len(self._neighbours) and self._neighbours[self._next_unknown] in self.known:
            self._next_unknown += 1
        return self._neighbours
