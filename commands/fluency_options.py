"""The options for fluency, which keep prompts readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptsearch.commands import complete

if TYPE_CHECKING:
    from promptsearch.config import FluencyConfig

F = TypeVar("F", bound=Callable[..., Any])


def fluency_options(f: F) -> F:
    """Add the options for fluency, as a part of the objective or as an aim of its own."""
    options = [
        click.option(
            "--fluency-weight",
            type=float,
            default=0.0,
            show_default=True,
            help="Weight of fluency, the prompts' log-likelihood per token (nats), in the objective.",
        ),
        click.option(
            "--pareto",
            is_flag=True,
            help="Also keep and show the Pareto front of objective, fluency and number of words.",
        ),
        click.option(
            "--fluency-lm",
            shell_complete=complete.words_or_folder("embedded", "smollm2"),
            help="Language model that rates fluency: embedded, smollm2, a GGUF file, a folder or a hub id."
            "  [default: --lm, or embedded]",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f


def fluency_config(options: dict[str, Any]) -> FluencyConfig | None:
    """Take these options out of a command's others; what of them must be the same for a run to be resumed.

    Raises:
        InputError: a bad weight, no such language model.
    """
    from promptsearch.config import FluencyConfig
    from promptsearch.search.objective import check_weight

    weight, pareto, named = (options.pop(k) for k in ("fluency_weight", "pareto", "fluency_lm"))
    check_weight(weight)
    if not weight and not pareto:
        from promptsearch.commands.options import refuse_unused

        refuse_unused(["fluency_lm"], "it rates what --fluency-weight or --pareto ask for; give one of them")
        return None
    from promptsearch.lm import EMBEDDED, locate

    writer = (options.get("named_lm") or {}).get("lm")
    place = locate(named or writer or EMBEDDED, option="--fluency-lm" if named else "--lm")
    return FluencyConfig(place.name, place.fingerprint, weight, pareto)
