"""The command `promptsearch tpe`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import output_options, problem_options, run_options, trial_options
from promptsearch.config import TpeOptions


@click.command(epilog=example("promptsearch tpe --bank grammar --trials 200"))
@trial_options
@click.option(
    "--sampler",
    default=TpeOptions.sampler,
    shell_complete=complete.words("tpe", "random", "gp", "nsga2", "qmc", "cmaes"),
    show_default=True,
    help="Optuna's sampler: tpe, random, gp, nsga2, qmc or cmaes.",
)
@click.option(
    "--startup",
    type=int,
    default=TpeOptions.startup,
    show_default=True,
    help="Number of random trials before the sampler's model is used.",
)
@problem_options
@run_options
@output_options
def tpe(ensemble: int, batch: int, sampler: str, startup: int, **options: Any) -> None:
    """Search the slots of a grammar, or the templates of a bank, with one of Optuna's samplers.

    Run the same command again to resume an interrupted run; with larger --trials a finished run continues. Other
    processes can join the run with `promptsearch worker --study NAME --storage URL`.
    """
    from promptsearch.commands.search_run import search_command

    own = {"ensemble": ensemble, "batch": batch, "sampler": sampler, "startup": startup}
    search_command("tpe", own, options)
