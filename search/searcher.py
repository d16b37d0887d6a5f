"""The interface of all searchers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from promptsearch.banks import Bank, PromptSet
from promptsearch.score import Score
from promptsearch.search.objective import Objective
from promptsearch.search.space import Names

Told = Sequence[tuple[PromptSet, Score]]


class Searcher(ABC):
    """Proposes PromptSets and learns from their Scores, without knowing how they are scored, stored or budgeted.

        while batch := searcher.ask():
            searcher.tell([(s, score(s)) for s in batch])
        print(searcher.best)

    Its state depends only on (bank, options, seed) and on what it was told. A run is resumed by telling a new searcher
    the recorded scores.

    Args:
        objective: What is maximised.

    Attributes:
        best: The best set so far and its score, or None.
    """

    #: The bank that is searched, if any; the objective `agreement` compares with the consensus of its templates.
    bank: Bank | None = None
    #: The classes' alternative names, if the bank has any.
    names: Names | None = None
    #: The largest number of rounds, if the searcher works in rounds and their number is known.
    rounds: int | None = None

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.best: tuple[PromptSet, Score] | None = None

    def name_classes(self, own: Sequence[str]) -> None:
        """Set the task's class names, before the first `ask` or `tell`."""
        others = {} if self.bank is None else self.bank.class_names
        names = Names(tuple(own), others)
        self.names = names if names.free else None

    @abstractmethod
    def ask(self) -> list[PromptSet]:
        """Return the next batch of sets to score, without repetition; an empty list when the search is over."""

    @abstractmethod
    def tell(self, results: Told) -> None:
        """Learn the scores of the last batch, in the same order."""

    @abstractmethod
    def record(self) -> list[PromptSet]:
        """Return the sets of the last batch that should be recorded as trials, in order."""

    def rank_key(self, prompt_set: PromptSet, score: Score) -> tuple:
        """Return a key that sorts best first: by the objective, then by size, then alphabetically."""
        templates = prompt_set.templates
        return (tuple([-v for v in self.objective(score)]), len(templates), templates)

    def ranked(self, results: Told) -> list[tuple[PromptSet, Score]]:
        """Return a sorted copy of `results`, best first."""
        return sorted(results, key=lambda r: self.rank_key(*r))
