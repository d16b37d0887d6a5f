"""`promptsearch tpe`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.options import output_options, problem_options, run_options
from promptsearch.commands.trial_options import trial_options


@click.command()
@trial_options
@click.option(
    "--sampler",
    default="tpe",
    shell_complete=complete.words("tpe", "random", "gp", "nsga2", "qmc", "cmaes"),
    show_default=True,
    help="Optuna's sampler: tpe, random, gp, nsga2, qmc or cmaes.",
)
@click.option("--startup", type=int, default=20, show_default=True, help="Trials at random before the model is used.")
@problem_options
@run_options
@output_options
def tpe(
    bank_spec: str, ensemble: int, objective: str | None, batch: int, sampler: str, startup: int, **options: Any
) -> None:
    """Search the slots of a grammar, or a bank, with Optuna's samplers (TPE unless another is named).

    The same command again resumes a run that was cut off; with more --trials it goes on.  Others can join it:
    `promptsearch worker --study NAME --storage URL`.
    """
    from promptsearch.commands.search_run import run_trials

    own = {"ensemble": ensemble, "objective": objective, "batch": batch, "sampler": sampler, "startup": startup}
    run_trials("tpe", bank_spec, own, **options)
