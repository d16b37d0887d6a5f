"""A run that is kept in memory only, with the interface of a stored run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from promptsearch.banks import PromptSet
from promptsearch.config import RunConfig
from promptsearch.evaluators import Score
from promptsearch.runs.store.record import RunRecord, Trial


@dataclass
class MemoryRecord:
    """A run without a storage, which can be pickled.

    record = MemoryRecord("my-run", config, {"classes": ["cat", "dog"]})
    result = run_search(problem, bank, record)
    """

    name: str
    config: RunConfig
    about: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    _trials: list[Trial] = field(default_factory=list)

    url = ""

    @property
    def result(self) -> dict[str, Any] | None:
        """The result document of a finished run."""
        found: dict[str, Any] | None = self.attributes.get("result")
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Store the result document."""
        self.attributes["result"] = result

    def leading(self) -> contextlib.AbstractContextManager[bool]:
        """Return a context that is entered with True: no other process can have this run."""
        return contextlib.nullcontext(True)

    def get(self, key: str) -> Any:
        """Return an attribute of the run, or None."""
        return self.attributes.get(key)

    def set(self, key: str, value: Any) -> None:
        """Set an attribute of the run."""
        self.attributes[key] = value

    def attribute_names(self) -> Iterable[str]:
        """Return the names of all attributes."""
        return self.attributes.keys()

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """Return the scored sets of all trials, in order."""
        return [(t.prompt_set, t.score) for t in self._trials if t.score is not None]

    def all_trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        return list(self._trials)

    def add(self, results: Iterable[tuple[PromptSet, Score]], step: int, evaluations: int | None = None) -> None:
        """Record scored prompt sets as trials.

        Args:
            results: prompt sets with their scores.
            step: number of the batch or round.
            evaluations: prompt sets that the search had scored by then.
        """
        for prompt_set, score in results:
            number = len(self._trials)
            self._trials.append(Trial(number, number, prompt_set, score, step, 0, "", False, {}, evaluations))


#: A run, in a study or in memory.
Record = RunRecord | MemoryRecord
