"""`promptsearch beam`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.fluency_options import fluency_options
from promptsearch.commands.objective_options import objective_options
from promptsearch.commands.options import output_options, problem_options, run_options


@click.command()
@click.option(
    "--bank",
    "bank_spec",
    default="templates",
    show_default=True,
    shell_complete=complete.banks,
    help=("A bank of templates: a file, or the name of a built-in one (`promptsearch banks list`)."),
)
@problem_options
@run_options
@click.option("--width", type=int, default=8, show_default=True, help="Ensembles kept after each round.")
@click.option("--depth", type=int, default=6, show_default=True, help="Largest ensemble, in templates.")
@click.option("--patience", type=int, default=2, show_default=True, help="Rounds without a better one before the end.")
@objective_options
@fluency_options
@output_options
def beam(bank_spec: str, width: int, depth: int, patience: int, objective: str | None, **options: Any) -> None:
    """Search a bank for the ensemble of templates that classifies best, by beam search.

    The same command again resumes a run that was cut off, and shows one that is finished.
    """
    from promptsearch.banks import load_bank
    from promptsearch.commands.fluency_options import fluency_config
    from promptsearch.commands.search_run import run_search
    from promptsearch.search import build_searcher, choose_objective

    bank = load_bank(bank_spec)
    objective = choose_objective(objective, options["shots"])
    own: dict[str, Any] = {"width": width, "depth": depth, "patience": patience, "objective": objective}
    own |= fluency_config(options)
    searcher = build_searcher("beam", bank, own)
    run_search("beam", bank, searcher, own, **options)
