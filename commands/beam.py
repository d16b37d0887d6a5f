"""`promptsearch beam`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.fluency_options import fluency_options
from promptsearch.commands.objective_options import objective_options
from promptsearch.commands.options import output_options, problem_options, run_options
from promptsearch.config import SEARCHER_BANKS, BeamOptions


@click.command()
@click.option(
    "--bank",
    "bank_spec",
    default=SEARCHER_BANKS["beam"],
    show_default=True,
    shell_complete=complete.banks,
    help=("A bank of templates: a file, or the name of a built-in one (`promptsearch banks list`)."),
)
@problem_options
@run_options
@click.option(
    "--width", type=int, default=BeamOptions.width, show_default=True, help="Ensembles kept after each round."
)
@click.option("--depth", type=int, default=BeamOptions.depth, show_default=True, help="Largest ensemble, in templates.")
@click.option(
    "--patience",
    type=int,
    default=BeamOptions.patience,
    show_default=True,
    help="Rounds without a better one before the end.",
)
@objective_options
@fluency_options
@output_options
def beam(width: int, depth: int, patience: int, **options: Any) -> None:
    """Search a bank for the ensemble of templates that classifies best, by beam search.

    The same command again resumes a run that was cut off, and shows one that is finished.
    """
    from promptsearch.commands.search_run import search_command

    search_command("beam", {"width": width, "depth": depth, "patience": patience}, options)
