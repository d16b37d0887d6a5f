"""Options of what a search goes by, shared by all searchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.config import SearchConfig

F = TypeVar("F", bound=Callable[..., Any])


def objective_options(f: F) -> F:
    """The objective, the pictures of a search without labels, how the winner is chosen and its accuracy estimated."""
    options = [
        click.option(
            "--objective",
            default=None,
            shell_complete=complete.objectives,
            help=(
                "xent, xent-fitted, accuracy, margin or balanced; without labels zpe, mutual-information or agreement."
                "  [default: xent; mutual-information with --shots 0]"
            ),
        ),
        click.option(
            "--unlabelled",
            type=int,
            default=SearchConfig.unlabelled,
            show_default=True,
            help="With --shots 0: training pictures to search on, their labels unread.",
        ),
        click.option(
            "--select",
            default=None,
            shell_complete=complete.words("posterior", "weighted", "bagged", "cv", "bootstrap", "zpe", "none"),
            help=(
                "How the winner is chosen among what was found: posterior, weighted, bagged, cv, bootstrap, zpe"
                " (without labels) or none (the best score).  [default: posterior; none where the objective reads no"
                " labels]"
            ),
        ),
        click.option(
            "--estimate/--no-estimate",
            default=True,
            show_default=True,
            help="Repeat search and choice in folds to estimate the winner's accuracy before the test.",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f
