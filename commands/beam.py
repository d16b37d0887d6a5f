"""The command `promptsearch beam`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import (
    fluency_options,
    objective_options,
    output_options,
    problem_options,
    run_options,
)
from promptsearch.config import SEARCHER_BANKS, BeamOptions


@click.command(epilog=example("promptsearch beam --bank templates --shots 16"))
@click.option(
    "--bank",
    "bank_spec",
    default=SEARCHER_BANKS["beam"],
    show_default=True,
    shell_complete=complete.banks,
    help="Bank of templates: a file, or a built-in bank (see `promptsearch banks list`).",
)
@problem_options
@run_options
@click.option(
    "--width", type=int, default=BeamOptions.width, show_default=True, help="Number of ensembles kept after each round."
)
@click.option(
    "--depth", type=int, default=BeamOptions.depth, show_default=True, help="Largest ensemble, in number of templates."
)
@click.option(
    "--patience",
    type=int,
    default=BeamOptions.patience,
    show_default=True,
    help="Stop after this many rounds without a better ensemble.",
)
@objective_options
@fluency_options
@output_options
def beam(width: int, depth: int, patience: int, **options: Any) -> None:
    """Search a bank for the ensemble of templates that classifies best, by beam search.

    Run the same command again to resume an interrupted run, or to show the result of a finished one.
    """
    from promptsearch.commands.search_run import search_command

    search_command("beam", {"width": width, "depth": depth, "patience": patience}, options)
