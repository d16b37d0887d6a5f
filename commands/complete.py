"""Shell completion of banks, models, data sets, runs and plug-ins, without importing any plug-in."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from promptsearch.errors import PromptSearchError

Offered = list[CompletionItem]
Completer = Callable[[click.Context, click.Parameter, str], Offered]

#: The methods of a comparison besides searchers, listed here because `promptsearch.runs.compare.methods` imports torch.
METHODS = (
    "all",
    "hand-written",
    "clip-cifar",
    "clip-imagenet",
    "whole-bank",
    "random-words",
    "single",
    "random-10k",
    "tip-adapter",
    "climb-lm",
    "evolve-lm",
    "coop",
    "coop-4",
    "coop-8",
    "coop-restart",
    "coop-csc",
    "coop-text",
    "coop-text-tuned",
    "kgcoop",
    "coop-hull",
    "coop-sample",
    "names",
    "names-tuned",
    "pez",
    "vpt",
    "vpt-shallow",
    "vpt-deep",
)


#: The built-in phrase banks, listed here because `promptsearch.banks` imports YAML.
PHRASE_BANKS = ("cifar10", "cifar100", "pacs")


def words(*names: str) -> Completer:
    """Return a completer for fixed words."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
        return [CompletionItem(n) for n in names if n.startswith(incomplete)]

    return offer


def words_or_folder(*names: str) -> Completer:
    """Return a completer for fixed words, or else folders."""
    fixed = words(*names)

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
        return fixed(ctx, param, incomplete) or [CompletionItem(incomplete, type="dir")]

    return offer


def words_or_file(*names: str) -> Completer:
    """Return a completer for fixed words, or else files."""
    fixed = words(*names)

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
        return fixed(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]

    return offer


def banks(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete banks, or else files."""
    return _plugins("banks", incomplete) or [CompletionItem(incomplete, type="file")]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete the model names that are known without a download."""
    return [
        CompletionItem(n) for n in ("auto", "zeroshot", "RN50", "local-dir:", "hf-hub:") if n.startswith(incomplete)
    ]


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete named data sets, or else folders."""
    conditions = [f"cifar10-{c}" for c in ("dark", "lowres", "negative")]
    packs = [*conditions, *(f"pacs-{domain}" for domain in ("photo", "art", "sketch"))]
    named = [*_plugins("datasets", incomplete), *(CompletionItem(n) for n in packs if n.startswith(incomplete))]
    return named or [CompletionItem(incomplete, type="dir")]


def objectives(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete objectives."""
    return _plugins("objectives", incomplete)


def proposers(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete proposers."""
    return _plugins("proposers", incomplete)


def searchers(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete the searchers of plug-ins; the built-in ones have commands of their own."""
    return _plugins("searchers", incomplete, ours=False)


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete the last method of a comma-separated list."""
    before, comma, last = incomplete.rpartition(",")
    found = [*words(*METHODS)(ctx, param, last), *_plugins("searchers", last)]
    return [CompletionItem(f"{before}{comma}{i.value}") for i in found]


def method(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete a single method."""
    return [i for i in methods(ctx, param, incomplete) if i.value != "all"]


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete the kinds of vectors in the cache."""
    from promptsearch.evaluators import default_cache

    return [CompletionItem(kind) for kind, _, _ in default_cache().info() if kind.startswith(incomplete)]


def _plugins(kind: str, incomplete: str, ours: bool = True) -> Offered:
    from promptsearch import banks, evaluators, search  # noqa: F401 (they register what is built in)
    from promptsearch.plugins import found

    return [
        CompletionItem(name, help=plugin.package)
        for name, plugin in found(kind)[0].items()
        if name.startswith(incomplete) and (ours or plugin.package != "promptsearch")
    ]


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Complete the runs in the storage of the command line."""
    from promptsearch.runs.store.listing import summaries

    try:
        rows = summaries(ctx.params.get("storage"))
    except PromptSearchError:
        return []
    return [CompletionItem(r["study"]) for r in rows if r["study"].startswith(incomplete)]
