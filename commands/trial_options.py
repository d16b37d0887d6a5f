"""The options shared by all searchers that go by trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.commands.fluency_options import fluency_options
from promptsearch.commands.objective_options import objective_options
from promptsearch.config import BANK, TRIALS, TrialOptions

F = TypeVar("F", bound=Callable[..., Any])

trials_option = click.option(
    "--trials",
    type=click.IntRange(1),
    default=TRIALS,
    show_default=True,
    help="Total number of trials, including recorded ones.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Stop after this many seconds; the same command resumes later.",
)


batch_option = click.option(
    "--batch", type=int, default=TrialOptions.batch, show_default=True, help="Trials proposed and scored at a time."
)


def trial_options(f: F) -> F:
    """Add the options for the space, the objective, the budget and the batch size."""
    return space_options(batch_option(f))


def space_options(f: F) -> F:
    """Add the options for the space, the objective, fluency and the budget."""
    f = fluency_options(f)
    options = [
        click.option(
            "--bank",
            "bank_spec",
            default=BANK,
            shell_complete=complete.banks,
            show_default=True,
            help="Bank of templates: a file, or a built-in bank (see `promptsearch banks list`).",
        ),
        click.option(
            "--ensemble",
            type=int,
            default=TrialOptions.ensemble,
            show_default=True,
            help="Largest number of templates in a prompt set.",
        ),
        trials_option,
        timeout_option,
        click.option(
            "--enqueue",
            shell_complete=complete.banks,
            help="Bank whose templates are tried first, after the hand-written prompt.",
        ),
    ]
    f = objective_options(f)
    for option in reversed(options):
        f = option(f)
    return f
