"""The options for the objective and the choice of the winner, shared by all searchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.config import SearchConfig

F = TypeVar("F", bound=Callable[..., Any])


def objective_options(f: F) -> F:
    """Add the options for the objective, unlabelled pictures, the choice of the winner, and its estimate."""
    options = [
        click.option(
            "--objective",
            default=None,
            shell_complete=complete.objectives,
            help=(
                "What to maximise: xent, xent-fitted, accuracy, margin, balanced, worst-class, or without labels zpe,"
                " mutual-information, agreement.  [default: xent; mutual-information with --shots 0]"
            ),
        ),
        click.option(
            "--unlabelled",
            type=int,
            default=SearchConfig.unlabelled,
            show_default=True,
            help="With --shots 0: number of training pictures to search on, without their labels.",
        ),
        click.option(
            "--select",
            default=None,
            shell_complete=complete.words("posterior", "weighted", "bagged", "cv", "bootstrap", "zpe", "none"),
            help=(
                "How the winner is chosen among the sets found: posterior, weighted, bagged, cv, bootstrap, zpe"
                " (without labels) or none (the best score).  [default: posterior; none if the objective needs no"
                " labels]"
            ),
        ),
        click.option(
            "--estimate/--no-estimate",
            default=True,
            show_default=True,
            help="Estimate the winner's accuracy before the test by repeating search and choice in folds.",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f
