"""`promptsearch plugins`: what can be named, and which package brings it."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
def plugins(as_json: bool) -> None:
    """List banks, data sets, objectives, proposers and searchers: promptsearch's own, and those of other packages.

    One that cannot be loaded is named with the reason; the others work all the same.
    """
    from promptsearch.plugins import KINDS, all_plugins, found

    rows = all_plugins()
    shadowed = [line for kind in KINDS for line in found(kind)[1]]
    if as_json:
        listed = [
            {"kind": p.kind, "name": p.name, "object": p.point.value, "package": p.package, "error": error}
            for p, error in rows
        ]
        click.echo(json.dumps({"plugins": listed, "left_out": shadowed}, indent=2, ensure_ascii=False))
        return
    width = max(len(p.name) for p, _ in rows)
    for kind, what in KINDS.items():
        click.echo(f"{kind}: {what}")
        for plugin, error in rows:
            if plugin.kind == kind:
                click.echo(f"  {plugin.name:{width}}  {plugin.package}{'  (left out)' if error else ''}")
    for line in [*(e for _, e in rows if e), *shadowed]:
        click.echo(f"Warning: {line}", err=True)
