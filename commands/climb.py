"""`promptsearch climb`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands.options import output_options, problem_options, run_options
from promptsearch.commands.trial_options import trial_options


@click.command()
@trial_options
@problem_options
@run_options
@output_options
def climb(bank_spec: str, ensemble: int, objective: str, batch: int, **options: Any) -> None:
    """Climb from prompt to better prompt by small edits, and start again on every summit.

    An edit changes one slot of a template, or adds, drops or replaces a template of an ensemble.
    The same command again resumes a run that was cut off; with more --trials it goes on.
    """
    from promptsearch.commands.searching import run_trials

    run_trials("climb", bank_spec, {"ensemble": ensemble, "objective": objective, "batch": batch}, **options)
