"""`promptsearch random`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands.options import output_options, problem_options, run_options
from promptsearch.commands.trial_options import trial_options


@click.command("random")
@trial_options
@problem_options
@run_options
@output_options
def random(ensemble: int, batch: int, **options: Any) -> None:
    """Score prompts drawn at random from a bank: what other searches must beat.

    The same command again resumes a run that was cut off; with more --trials it goes on.
    """
    from promptsearch.commands.search_run import search_command

    search_command("random", {"ensemble": ensemble, "batch": batch}, options)
