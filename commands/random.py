"""The command `promptsearch random`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands.examples import example
from promptsearch.commands.options import output_options, problem_options, run_options, trial_options


@click.command("random", epilog=example("promptsearch random --bank templates --trials 500"))
@trial_options
@problem_options
@run_options
@output_options
def random(ensemble: int, batch: int, **options: Any) -> None:
    """Score prompts drawn at random from a bank, as a baseline for the other searches.

    Run the same command again to resume an interrupted run; with larger --trials a finished run continues.
    """
    from promptsearch.commands.search_run import search_command

    search_command("random", {"ensemble": ensemble, "batch": batch}, options)
