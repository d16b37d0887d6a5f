"""The command `promptsearch worker`."""

from __future__ import annotations

import json
import secrets
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import language_tools, output_options, own_server, resume_options, timeout_option
from promptsearch.commands.terminal import progress_bar
from promptsearch.errors import InputError, Interrupted


@click.command(epilog=example("promptsearch worker --study my-run --storage runs.db"))
@click.option("--study", required=True, shell_complete=complete.studies, help="Name of the run to join.")
@click.option("--storage", help="Storage of the run: a database URL or a SQLite file.")
@resume_options
@timeout_option
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="Seconds to wait for the run to begin if it does not exist yet.",
)
@output_options
def worker(
    study: str,
    storage: str | None,
    wait: float,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    **here: Any,
) -> None:
    """Join a run from this or another machine, and score trials until the run has all of them.

    The worker reads bank and options from the study, and refuses a model or pictures other than the run's.
    """
    from promptsearch.banks import printable
    from promptsearch.commands.search_run import interruptible, machine_config
    from promptsearch.runs import Budget, Watch, join_search, reopen, restore_bank, shareable
    from promptsearch.runs.open_run import await_run

    def waiting() -> None:
        if wait and not quiet:
            click.echo(printable(f"waiting up to {wait:g} s for run {study} to begin"), err=True)

    record = await_run(study, storage, wait, waiting)
    bank = restore_bank(record)
    if not shareable(record, bank):
        command, others = record.config.command, "tpe, climb, random or evolve"
        raise InputError(f"run {study!r}: {command} works in rounds in one process; join one of {others}")
    server = own_server(record, {**here, "as_json": as_json}, storage is not None)
    number = 1 + secrets.randbelow(2**31 - 1)
    total = (record.get("budget") or {}).get("trials")
    with progress_bar(quiet or as_json) as progress:
        where = {k: here[k] for k in ("model", "weights", "dataset")}
        problem = reopen(record, **where, machine=machine_config(here), progress=progress)
        ended = join_search(
            problem,
            bank,
            record,
            number,
            language=language_tools(record.config.search, server),
            budget=Budget(total, timeout),
            watch=Watch(progress, interruptible),
        )
        problem.encoder.close()
    trials = [t for t in record.all_trials() if t.score is not None]
    ours = sum(t.worker == number for t in trials)
    if as_json:
        summary = {"run": {"study": study, "storage": record.url}, "worker": number, "scored": ours}
        click.echo(json.dumps({**summary, "trials": len(trials), "ended": ended}, indent=2))
    elif ended != "interrupted":
        done = f"{ours} of {len(trials)} trials scored here; `promptsearch runs resume {study}` gives the result"
        click.echo(printable(done))
    if ended == "interrupted":
        raise Interrupted(record.name, len(trials), total)
