"""Options that the searchers by trials share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.commands.fluency_options import fluency_options
from promptsearch.commands.objective_options import objective_options
from promptsearch.config import BANK, TrialOptions

F = TypeVar("F", bound=Callable[..., Any])

trials_option = click.option(
    "--trials",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Trials in all, those of earlier runs of it too.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Stop after so many seconds; the same command again goes on.",
)


batch_option = click.option(
    "--batch", type=int, default=TrialOptions.batch, show_default=True, help="Trials proposed and scored together."
)


def trial_options(f: F) -> F:
    """The space, the objective, the budget and the size of a batch."""
    return space_options(batch_option(f))


def space_options(f: F) -> F:
    """The space, the objective with fluency, and the budget."""
    f = fluency_options(f)
    options = [
        click.option(
            "--bank",
            "bank_spec",
            default=BANK,
            shell_complete=complete.banks,
            show_default=True,
            help="A bank of templates: a file, or the name of a built-in one (`promptsearch banks list`).",
        ),
        click.option(
            "--ensemble",
            type=int,
            default=TrialOptions.ensemble,
            show_default=True,
            help="Most templates of one prompt set.",
        ),
        trials_option,
        timeout_option,
        click.option(
            "--enqueue",
            shell_complete=complete.banks,
            help="A bank whose templates are tried first, after the hand-written prompt.",
        ),
    ]
    f = objective_options(f)
    for option in reversed(options):
        f = option(f)
    return f
