"""The command `promptsearch climb`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands.examples import example
from promptsearch.commands.options import (
    lm_config,
    lm_options,
    output_options,
    problem_options,
    refuse_unused,
    run_options,
    split_lm,
    trial_options,
)
from promptsearch.config import ClimbOptions


@click.command(epilog=example("promptsearch climb --bank grammar --trials 200"))
@trial_options
@lm_options
@click.option(
    "--pool",
    type=int,
    default=ClimbOptions.pool,
    show_default=True,
    help="With a language model: number of prompt sets drawn from the bank at the start.",
)
@click.option(
    "--shown",
    type=int,
    default=ClimbOptions.shown,
    show_default=True,
    help="With a language model: number of best and of worst prompt sets that it is shown.",
)
@click.option(
    "--patience",
    type=int,
    default=ClimbOptions.patience,
    show_default=True,
    help="With a language model: batches without a better set before a restart.",
)
@problem_options
@run_options
@output_options
def climb(ensemble: int, batch: int, pool: int, shown: int, patience: int, **options: Any) -> None:
    """Improve prompts step by step by hill climbing, with restarts.

    A step changes one slot of a template, or adds, drops or replaces a template of an ensemble. With --lm or --lm-url,
    a language model is shown the best and worst templates and asked for a better one (Liu et al. 2024).

    Run the same command again to resume an interrupted run; with larger --trials a finished run continues.
    """
    from promptsearch.commands.search_run import search_command

    own: dict[str, Any] = {"ensemble": ensemble, "batch": batch}
    writer = None
    given = split_lm(options)
    if given["lm"] is not None or given["lm_url"] is not None or given["lm_model"] is not None:
        own |= {"pool": pool, "shown": shown, "patience": patience}
        writer = lm_config(given)
        options["named_lm"] = given
    else:
        refuse_unused(("pool", "shown", "patience", *given), "needs a language model; name one with --lm")
    search_command("climb", own, options, writer)
