"""`promptsearch climb`."""

from __future__ import annotations

from typing import Any

import click

from promptsearch.commands.lm_options import lm_config, lm_options, split_lm
from promptsearch.commands.options import output_options, problem_options, refuse_unused, run_options
from promptsearch.commands.trial_options import trial_options
from promptsearch.config import ClimbOptions


@click.command()
@trial_options
@lm_options
@click.option(
    "--pool", type=int, default=ClimbOptions.pool, show_default=True, help="With a language model: sets to begin with."
)
@click.option(
    "--shown",
    type=int,
    default=ClimbOptions.shown,
    show_default=True,
    help="With one: best and worst sets that it is shown.",
)
@click.option(
    "--patience",
    type=int,
    default=ClimbOptions.patience,
    show_default=True,
    help="With one: batches until it begins again.",
)
@problem_options
@run_options
@output_options
def climb(ensemble: int, batch: int, pool: int, shown: int, patience: int, **options: Any) -> None:
    """Climb from prompt to better prompt by small edits, and start again on every summit.

    An edit changes one slot of a template, or adds, drops or replaces a template of an ensemble.  With --lm or
    --lm-url a language model is shown the best and the worst so far, and asked for a better one (Liu et al. 2024).
    The same command again resumes a run that was cut off; with more --trials it goes on.
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
        refuse_unused(("pool", "shown", "patience", *given), "it needs a language model; name one with --lm")
    search_command("climb", own, options, writer)
