"""Returns the winner of a saved run, and checks that the run has one that consists of prompts."""

from __future__ import annotations

import warnings

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError, PromptSearchWarning
from promptsearch.runs.open_run import best_first
from promptsearch.runs.store.record import Record


class UnfinishedWarning(PromptSearchWarning):
    """A run is not finished, and the best of its prompt sets so far is used."""


def winner_of(record: Record) -> PromptSet:
    """Return the winner of a run; of an unfinished run the best set so far, with an `UnfinishedWarning`.

    Raises:
        InputError: Nothing was scored yet, or the run is a comparison or learnt vectors.
    """
    refuse_comparison(record)
    refuse_vectors(record)
    if record.result is not None:
        return PromptSet.of_row(record.result["winner"])
    ranked = best_first(record)
    if not ranked:
        raise InputError(f"run {record.name!r} has no scored trial yet; run the same search command again to resume")
    warnings.warn(
        f"run {record.name!r} is not finished; this is the best of its {len(ranked)} trials so far",
        UnfinishedWarning,
        stacklevel=2,
    )
    return ranked[0][0]


def refuse_comparison(record: Record) -> None:
    """Check that a run is not a comparison, which has no winner.

    Raises:
        InputError: It is a comparison.
    """
    if record.config.command == "compare":
        raise InputError(
            f"run {record.name!r} is a comparison and has no winner; show it with `promptsearch runs show "
            f"{record.name}`, write its results with its own command and --csv FILE, or name the run of a single method"
        )


def refuse_vectors(record: Record) -> None:
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
