"""The command `promptsearch runs`, which manages saved runs."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import out_option, output_options, resume_options, storage_option, timeout_option
from promptsearch.errors import InputError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(epilog=example("promptsearch runs list"))
def runs() -> None:
    """List, show, resume, export and delete saved runs."""


@runs.command("list", epilog=example("promptsearch runs list"))
@storage_option
@json_option
def list_runs(storage: str | None, as_json: bool) -> None:
    """List all runs of a storage, the latest last."""
    from promptsearch.runs.store.listing import summaries

    rows = summaries(storage)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo("there are no runs yet")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "model", "dataset", "shots", "seed", "trials", "state", "test accuracy"):
        table.add_column(name, overflow="fold")
    for r in rows:
        test = "" if r["test"] is None else f"{100 * r['test']:.2f}"
        seed = r["seed"] if "draws" not in r else f"{r['draws']} draw{'s' if r['draws'] != 1 else ''}"
        shown = (r["study"], r["model"], r["dataset"], r["shots"], seed, r["trials"], r["state"])
        table.add_row(*(Text(_cell(v)) for v in shown), test)
    Console(width=None if Console().is_terminal else 160).print(table)


def _reads_run(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that a damaged record of its run is reported as one line."""

    @functools.wraps(command)
    def call(name: str, **options: Any) -> None:
        from promptsearch.runs.store.storage import sound

        with sound(f"run {name!r}"):
            command(name, **options)

    return call


def _cell(value: Any) -> str:
    from promptsearch.banks import printable

    if isinstance(value, list):
        return printable(", ".join(map(str, value)))
    return "" if value is None else printable(value)


@runs.command(epilog=example("promptsearch runs show my-run"))
@click.argument("name", shell_complete=complete.studies)
@storage_option
@output_options
@_reads_run
def show(name: str, storage: str | None, as_json: bool, quiet: bool) -> None:
    """Show the result of a run, or its progress."""
    from promptsearch.banks import printable
    from promptsearch.commands.search_run import emit
    from promptsearch.runs import RunRecord, best_first

    record = RunRecord.load(name, storage)
    result = record.result
    if result is not None:
        emit(result, as_json, quiet)
        return
    trials, ranked = record.trials(), best_first(record)
    state: dict[str, Any] = {"run": {"study": record.name, "storage": record.url}, "state": "unfinished"}
    state |= {"config": record.config.to_dict(), "trials": len(trials)}
    if ranked:
        state["best"] = {**ranked[0][0].to_dict(), "support": ranked[0][1].to_dict()}
    if as_json:
        click.echo(json.dumps(state, indent=2, ensure_ascii=False))
        return
    resume_it = "run the same search command again to resume"
    click.echo(printable(f"{record.name}: unfinished, {len(trials)} trials; {resume_it}"))
    for template in ranked[0][0].templates if ranked else ():
        click.echo(f"  best so far: {template}")
    for key, value in record.config.to_dict().items():
        click.echo(printable(f"  {key}: {value}"))


@runs.command(epilog=example("promptsearch runs best my-run"))
@click.argument("name", shell_complete=complete.studies)
@storage_option
@json_option
@_reads_run
def best(name: str, storage: str | None, as_json: bool) -> None:
    """Print the winner's templates as a bank, one per line."""
    from promptsearch.banks import Bank, PromptSet
    from promptsearch.evaluators import Score
    from promptsearch.runs import RunRecord, best_first
    from promptsearch.runs.winner import refuse_comparison, refuse_vectors

    record = RunRecord.load(name, storage)
    refuse_comparison(record)
    refuse_vectors(record)
    kept = (record.result or {}).get("winner", {})
    ranked = [(PromptSet.of_row(kept), Score(**kept["support"]))] if "support" in kept else best_first(record)
    if not ranked:
        raise InputError(f"run {name!r} has no scored trial yet; run the same search command again to resume")
    prompt_set, score = ranked[0]
    if as_json:
        document = {"run": {"study": record.name, "storage": record.url}, **prompt_set.to_dict()}
        click.echo(json.dumps({**document, "support": score.to_dict()}, indent=2, ensure_ascii=False))
        return
    click.echo(Bank.of(name, prompt_set.templates).to_txt(), nl=False)


@runs.command(epilog=example("promptsearch runs resume my-run"))
@click.argument("name", shell_complete=complete.studies)
@storage_option
@click.option("--trials", type=click.IntRange(1), help="New total number of trials.  [default: the run's own]")
@timeout_option
@resume_options
@output_options
def resume(name: str, storage: str | None, trials: int | None, timeout: float | None, **here: Any) -> None:
    """Resume an interrupted run and print its result."""
    from promptsearch.commands.search_run import emit, resume_run
    from promptsearch.runs import RunRecord
    from promptsearch.runs.winner import refuse_comparison

    record = RunRecord.load(name, storage)
    refuse_comparison(record)
    emit(resume_run(record, here, trials, timeout, storage is not None), here["as_json"], here["quiet"])


@runs.command(epilog=example("promptsearch runs delete my-run"))
@click.argument("name", shell_complete=complete.studies)
@storage_option
@click.option("--yes", is_flag=True, help="Delete without asking.")
@json_option
def delete(name: str, storage: str | None, yes: bool, as_json: bool) -> None:
    """Delete the run NAME and its trials permanently."""
    from promptsearch.banks import printable
    from promptsearch.runs import RunRecord

    record = RunRecord.load(name, storage)
    trials = len(record.all_trials())
    if not yes:
        if as_json:
            raise InputError(f"runs delete {name} --json: cannot ask for confirmation with --json; give --yes")
        click.confirm(printable(f"delete run {name} ({trials} trials) from {record.url}?"), abort=True)
    record.delete()
    if as_json:
        click.echo(json.dumps({"deleted": name, "trials": trials}))
    else:
        click.echo(printable(f"deleted {name} ({trials} trials)"))


@runs.command(epilog=example("promptsearch runs export my-run --out trials.csv"))
@click.argument("name", shell_complete=complete.studies)
@storage_option
@out_option
@json_option
@_reads_run
def export(name: str, storage: str | None, out: Path | None, as_json: bool) -> None:
    """Write all trials of the run NAME as CSV, or as JSON with --json."""
    from promptsearch.reports.comparison import no_formula
    from promptsearch.runs import RunRecord
    from promptsearch.runs.winner import refuse_comparison

    record = RunRecord.load(name, storage)
    refuse_comparison(record)
    rows = [
        {"number": t.number, "step": t.step, **t.prompt_set.to_dict(), **t.score.to_dict(), "params": dict(t.params)}
        for t in record.all_trials()
        if t.score is not None
    ]
    if as_json:
        document = {"run": record.name, "config": record.config.to_dict(), "about": record.about, "trials": rows}
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        other = ("templates", "weights", "class_names", "phrases", "params")
        figures = [k for k in rows[0] if k not in other] if rows else ["number", "step"]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([*figures, "templates"])
        for row in rows:
            cells = (*(row[k] for k in figures), " | ".join(row["templates"]))
            writer.writerow([no_formula(c) for c in cells])
        text = buffer.getvalue()
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, "utf-8")
    except OSError as e:
        raise InputError(f"--out {out}: cannot be written ({e.strerror}); name another file") from e
    click.echo(f"wrote {out}", err=as_json)
