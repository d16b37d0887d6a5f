"""The command `promptsearch cache`, which shows and clears the cache of encoded pictures and texts."""

from __future__ import annotations

import json

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example


@click.group(epilog=example("promptsearch cache info"))
def cache() -> None:
    """Show or clear the cache of encoded pictures and texts."""


@cache.command(epilog=example("promptsearch cache info"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Show the folder of the cache, and how much it holds of each kind."""
    from promptsearch.evaluators import default_cache

    store = default_cache()
    rows = store.info()
    if as_json:
        kinds = [{"kind": k, "files": n, "bytes": size} for k, n, size in rows]
        click.echo(json.dumps({"path": str(store.root), "kinds": kinds}, indent=2))
        return
    click.echo(f"{store.root}" + ("" if rows else " (empty)"))
    for kind, files, size in rows:
        click.echo(f"  {kind:12s} {files:6d} files {size / 1e6:10.2f} MB")


@cache.command(epilog=example("promptsearch cache clear --kind texts"))
@click.option("--kind", shell_complete=complete.kinds, help="Delete only this kind (see `promptsearch cache info`).")
def clear(kind: str | None) -> None:
    """Delete cached vectors and imported feature packs."""
    from promptsearch.evaluators import default_cache

    store = default_cache()
    click.echo(f"{store.clear(kind) / 1e6:.2f} MB freed in {store.root}")
