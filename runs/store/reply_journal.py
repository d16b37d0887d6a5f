"""Stores a language model's replies in the run's study."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from promptsearch.runs.store.memory_record import Record

PREFIX = "replies "


class StudyJournal:
    """The raw replies of each step, as study attributes "replies WORKER.TRIALS" that are written once.

        journal = StudyJournal(record)
        journal.put("0.24", {"replies": [["a dark photo of a {}."]]})

    Args:
        record: The run.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._kept: dict[str, Any] = {
            k[len(PREFIX) :]: record.get(k) for k in record.attribute_names() if k.startswith(PREFIX)
        }

    def get(self, key: str) -> Any:
        """Return what was stored for a step, or None."""
        return self._kept.get(key)

    def put(self, key: str, value: Any) -> None:
        """Store the replies of a step."""
        self._record.set(PREFIX + key, value)
        self._kept[key] = value

    def keys(self) -> Iterable[str]:
        """Return the steps with stored replies."""
        return self._kept.keys()
