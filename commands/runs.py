"""`promptsearch runs`: the kept runs."""

from __future__ import annotations

import json
from typing import Any

import click

from promptsearch.commands.options import output_options, storage_option


@click.group()
def runs() -> None:
    """List and show the runs that are kept."""


@runs.command("list")
@storage_option
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def list_runs(storage: str | None, as_json: bool) -> None:
    """All runs of a storage, the latest last."""
    from promptsearch.runs.listing import summaries

    rows = summaries(storage)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo("no runs are kept there yet")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "model", "dataset", "shots", "seed", "trials", "state", "test accuracy"):
        table.add_column(name, overflow="fold")
    for r in rows:
        test = "" if r["test"] is None else f"{100 * r['test']:.2f}"
        table.add_row(*(str(r[k]) for k in ("study", "model", "dataset", "shots", "seed", "trials", "state")), test)
    Console(width=None if Console().is_terminal else 160).print(table)


@runs.command()
@click.argument("name")
@storage_option
@output_options
def show(name: str, storage: str | None, as_json: bool, quiet: bool) -> None:
    """The result of a finished run, or how far an unfinished one has come."""
    from promptsearch.commands.searching import emit
    from promptsearch.runs import RunRecord

    record = RunRecord.load(name, storage)
    result = record.result
    if result is not None:
        emit(result, as_json, quiet)
        return
    trials = record.trials()
    state: dict[str, Any] = {"run": {"study": record.name, "storage": record.url}, "state": "unfinished"}
    state |= {"config": record.config, "trials": len(trials)}
    if as_json:
        click.echo(json.dumps(state, indent=2, ensure_ascii=False))
        return
    click.echo(f"{record.name}: unfinished, {len(trials)} trials; the same command again resumes it")
    for key, value in record.config.items():
        click.echo(f"  {key}: {value}")
