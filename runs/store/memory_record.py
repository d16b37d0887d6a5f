"""A run that is kept in memory only, read like one in a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from promptsearch.banks import PromptSet
from promptsearch.config import RunConfig
from promptsearch.evaluators import Score
from promptsearch.runs.store.record import RunRecord, Trial


@dataclass
class MemoryRecord:
    """What a `RunRecord` holds, without a storage: plain data that can be pickled.

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
        """The result document, once the run is finished."""
        found: dict[str, Any] | None = self.attributes.get("result")
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Keep the result document."""
        self.attributes["result"] = result

    def get(self, key: str) -> Any:
        """An attribute of the run, or None."""
        return self.attributes.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep an attribute of the run."""
        self.attributes[key] = value

    def attribute_names(self) -> Iterable[str]:
        """The names of all attributes."""
        return self.attributes.keys()

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """What was scored and recorded, in order."""
        return [(t.prompt_set, t.score) for t in self._trials if t.score is not None]

    def all_trials(self) -> list[Trial]:
        """Every trial, by its number."""
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
