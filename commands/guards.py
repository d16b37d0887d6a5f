"""What a kept run can be asked for: a comparison has no winner, and what a baseline learnt are no templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.runs import RunRecord


def refuse_comparison(record: RunRecord) -> None:
    """Raises InputError for a comparison of methods, and says what shows it."""
    if record.config.command == "compare":
        raise InputError(
            f"run {record.name!r} compares methods and has no winner: `promptsearch runs show {record.name}` shows it, "
            "its own command again goes on and writes its rows with --csv FILE; name a run of one method"
        )


def refuse_vectors(record: RunRecord) -> None:
    """Raises InputError for a finished run whose method learnt vectors, and says what writes them.

    What pez finds nobody reads, but it is text.
    """
    winner, command = (record.result or {}).get("winner", {}), record.config.command
    if winner.get("readable", True) is False and command != "pez":
        raise InputError(
            f"run {record.name!r}: {command} learnt vectors, there are no prompts to export; "
            f"`promptsearch {command} … --save FILE` writes the vectors"
        )
