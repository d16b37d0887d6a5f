"""What the shell offers after an option: banks, models, data sets, runs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

Offered = list[CompletionItem]


def banks(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Built-in banks, then files."""
    from promptsearch.banks import builtin_banks

    named = [CompletionItem(n, help=d) for n, d in builtin_banks().items() if n.startswith(incomplete)]
    return named or [CompletionItem(incomplete, type="file")]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """The model names that need no download of a list."""
    return [CompletionItem(n) for n in ("auto", "tiny", "RN50", "local-dir:", "hf-hub:") if n.startswith(incomplete)]


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """CIFAR and its conditions, then folders."""
    names = ["cifar10", "cifar100", *(f"cifar10-{c}" for c in ("dark", "lowres", "negative"))]
    named = [CompletionItem(n) for n in names if n.startswith(incomplete)]
    return named or [CompletionItem(incomplete, type="dir")]


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """The runs of the storage that the command line names, else of the default one."""
    from promptsearch.errors import PromptSearchError
    from promptsearch.runs.listing import summaries

    try:
        rows = summaries(ctx.params.get("storage"))
    except PromptSearchError:
        return []
    return [CompletionItem(r["study"]) for r in rows if r["study"].startswith(incomplete)]
