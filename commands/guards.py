"""Checks whether a saved run has a winner that consists of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.runs import RunRecord


def refuse_comparison(record: RunRecord) -> None:
    """Check that a run is not a comparison, which has no winner.

    Raises:
        InputError: It is a comparison.
    """
    if record.config.command == "compare":
        raise InputError(
            f"run {record.name!r} is a comparison and has no winner; show it with `promptsearch runs show "
            f"{record.name}`, write its results with its own command and --csv FILE, or name the run of a single method"
        )


def refuse_vectors(record: RunRecord) -> None:
    """Check that the result of a run is not a set of learnt vectors; the words found by pez count as prompts.

    Raises:
        InputError: The run's method learnt vectors.
    """
    winner, command = (record.result or {}).get("winner", {}), record.config.command
    if winner.get("readable", True) is False and command != "pez":
        raise InputError(
            f"run {record.name!r}: {command} learnt vectors, so there are no prompts to export; "
            f"write the vectors with `promptsearch {command} … --save FILE`"
        )
