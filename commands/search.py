"""The command `promptsearch search`, which runs the searcher of a plug-in."""

from __future__ import annotations

import json
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import output_options, problem_options, run_options, trial_options
from promptsearch.errors import InputError


@click.command(epilog=example("promptsearch search short-first --bank templates --trials 200"))
@click.argument("searcher", shell_complete=complete.searchers)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the searcher, with a JSON value; may be repeated.",
)
@trial_options
@problem_options
@run_options
@output_options
def search(searcher: str, settings: tuple[str, ...], ensemble: int, batch: int, **options: Any) -> None:
    """Search with SEARCHER, a searcher of a plug-in (see `promptsearch plugins`).

    Run the same command again to resume an interrupted run; with larger --trials a finished run continues.
    """
    from promptsearch.commands.search_run import search_command
    from promptsearch.search import SEARCHERS
    from promptsearch.search.registry import own_options

    if searcher in SEARCHERS.built_in:
        raise InputError(f"search {searcher}: this searcher has its own command: promptsearch {searcher}")
    if searcher not in SEARCHERS:
        there = ", ".join(n for n in SEARCHERS if n not in SEARCHERS.built_in) or "none"
        raise InputError(f"search {searcher}: no plug-in has a searcher of this name; installed: {there}")
    given = dict(_pair(s) for s in settings)
    if own := own_options(searcher):
        if unknown := given.keys() - own.keys():
            raise InputError(f"--set {unknown.pop()}: {searcher} has {', '.join(own)}")
        given = {**own, **given}
    search_command(searcher, {**given, "ensemble": ensemble, "batch": batch}, options)


def _pair(setting: str) -> tuple[str, Any]:

    name, equals, value = setting.partition("=")
    if not equals or not name.isidentifier() or name in ("seed", "batch", "ensemble", "objective"):
        raise InputError(f"--set {setting}: write NAME=VALUE with an option of the searcher's own")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
