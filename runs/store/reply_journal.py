"""What was replied at each step of a run, kept in its study."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from promptsearch.runs.store.memory_record import Record

PREFIX = "replies "


class StudyJournal:
    """Raw replies by step, as study attributes "replies WORKER.TOLD", each written once.

    journal = StudyJournal(record)
    journal.put("0.24", {"replies": [["a dark photo of a {}."]]})
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._kept: dict[str, Any] = {
            k[len(PREFIX) :]: record.get(k) for k in record.attribute_names() if k.startswith(PREFIX)
        }

    def get(self, key: str) -> Any:
        return self._kept.get(key)

    def put(self, key: str, value: Any) -> None:
        self._record.set(PREFIX + key, value)
        self._kept[key] = value

    def keys(self) -> Iterable[str]:
        return self._kept.keys()
