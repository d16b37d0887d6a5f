"""The interface of every searcher: it proposes PromptSets and learns from their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from promptsearch.banks import Bank, PromptSet
from promptsearch.search.names import Names
from promptsearch.search.objective import Objective, ScoreLike

Told = Sequence[tuple[PromptSet, ScoreLike]]


class Searcher(ABC):
    """Proposes PromptSets and learns from Scores; knows no evaluator, file or budget.

        while batch := searcher.ask():
            searcher.tell([(s, score(s)) for s in batch])
        print(searcher.best)

    A searcher is a function of (bank, options, seed) and of what it was told, and of nothing else: asking a fresh
    one again and telling it the same leads to the same state.  Runs resume by doing just that.
    """

    #: Where its templates come from, if from one bank: whose consensus the objective `agreement` means.
    bank: Bank | None = None
    #: Where the bank has other names for the task's classes: a move that searches make beside those among templates.
    names: Names | None = None
    #: Of searchers that go by rounds: the most that there can be, if that is known.
    rounds: int | None = None

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.best: tuple[PromptSet, ScoreLike] | None = None

    def name_classes(self, own: Sequence[str]) -> None:
        """Take note of the task's class names; before anything is asked or told."""
        others = {} if self.bank is None else self.bank.class_names
        names = Names(tuple(own), others)
        self.names = names if names.free else None

    @abstractmethod
    def ask(self) -> list[PromptSet]:
        """The next batch to score, without repeats; empty when the search is over."""

    @abstractmethod
    def tell(self, results: Told) -> None:
        """Learn the scores of the batch last asked for, in its order."""

    @abstractmethod
    def record(self) -> list[PromptSet]:
        """Of the batch last told, those worth a trial each in the run's record, in order."""

    def rank_key(self, prompt_set: PromptSet, score: ScoreLike) -> tuple:
        """Sorts best first: the objective, then the smaller set, then the alphabet: no tie is left to chance."""
        return (tuple(-v for v in self.objective(score)), prompt_set.size, prompt_set.templates)

    def ranked(self, results: Told) -> list[tuple[PromptSet, ScoreLike]]:
        """`results` best first; the argument is left as it is."""
        return sorted(results, key=lambda r: self.rank_key(*r))
