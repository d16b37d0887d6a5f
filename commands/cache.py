"""`promptsearch cache`: what was encoded before."""

from __future__ import annotations

import json

import click

from promptsearch.commands import complete


@click.group()
def cache() -> None:
    """Show or clear the cache of encoded pictures and texts."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout and nothing else.")
def info(as_json: bool) -> None:
    """Where the cache is and what it holds."""
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


@cache.command()
@click.option("--kind", shell_complete=complete.kinds, help="Only this kind, as `cache info` names them.")
def clear(kind: str | None) -> None:
    """Remove what is cached; it is computed again when needed.  Imported feature packs go too."""
    from promptsearch.evaluators import default_cache

    store = default_cache()
    click.echo(f"{store.clear(kind) / 1e6:.2f} MB freed in {store.root}")
