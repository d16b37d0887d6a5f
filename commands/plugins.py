"""The command `promptsearch plugins`, which lists the plug-ins of all kinds."""

from __future__ import annotations

import json

import click

from promptsearch.commands.examples import example


@click.command(epilog=example("promptsearch plugins"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List all banks, data sets, objectives, proposers and searchers, and the packages that provide them.

    A plug-in that cannot be loaded is listed with the reason and does not affect the others.
    """
    from promptsearch import banks, evaluators, search  # noqa: F401 (they register what is built in)
    from promptsearch.banks import printable
    from promptsearch.plugins import KINDS, all_plugins, found

    rows = all_plugins()
    shadowed = [line for kind in KINDS for line in found(kind)[1]]
    if as_json:
        listed = [
            {"kind": p.kind, "name": p.name, "object": p.value, "package": p.package, "error": error}
            for p, error in rows
        ]
        click.echo(json.dumps({"plugins": listed, "left_out": shadowed}, indent=2, ensure_ascii=False))
        return
    width = max(len(p.name) for p, _ in rows)
    for kind, what in KINDS.items():
        click.echo(f"{kind}: {what}")
        for plugin, error in rows:
            if plugin.kind == kind:
                click.echo(printable(f"  {plugin.name:{width}}  {plugin.package}{'  (left out)' if error else ''}"))
    for line in [*(e for _, e in rows if e), *shadowed]:
        click.echo(printable(f"Warning: {line}"), err=True)
