"""`promptsearch worker`."""

from __future__ import annotations

import json
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.options import output_options, resume_options
from promptsearch.commands.trial_options import timeout_option


@click.command()
@click.option("--study", required=True, shell_complete=complete.studies, help="Name of the run to join.")
@click.option("--storage", help="Where it is kept: a database URL or a SQLite file.")
@resume_options
@timeout_option
@output_options
def worker(
    study: str,
    storage: str | None,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    **here: Any,
) -> None:
    """Join a run, from this machine or another: score trials of it until it has them all.

    Bank, options and fingerprints are in the study; a model or pictures other than the run's are refused.
    """
    import secrets

    from promptsearch.banks import printable
    from promptsearch.commands.equipping import equip
    from promptsearch.commands.progress import progress_bar
    from promptsearch.commands.search_run import interruptible, reopen, say_interrupted
    from promptsearch.errors import InputError
    from promptsearch.runs import Budget, RunRecord, Sharing, prepare, rebuild_searcher
    from promptsearch.search import TrialSearcher

    record = RunRecord.load(study, storage)
    _, searcher = rebuild_searcher(record)
    if not isinstance(searcher, TrialSearcher):
        command, others = record.config["command"], "tpe, climb, random or evolve"
        raise InputError(f"run {study!r}: {command} goes by rounds in one process; join one of {others}")
    searcher.worker = 1 + secrets.randbelow(2**31 - 1)
    total = (record.get("budget") or {}).get("trials")
    with progress_bar(quiet or as_json) as progress:
        problem = reopen(record, **here, progress=progress)
        task = problem.task(record.config["shots"], record.config["seed"], record.config.get("unlabelled"))
        evaluator = problem.evaluator(task)
        equip(searcher, problem, evaluator, record)
        prepare(searcher, evaluator)
        with interruptible() as stopping:
            sharing = Sharing(searcher, evaluator, record, Budget(total, timeout), progress, stopping)
            ended = sharing.run()
        problem.encoder.close()
    trials = [t for t in record.all_trials() if t.score is not None]
    ours = sum(t.worker == searcher.worker for t in trials)
    if as_json:
        summary = {"run": {"study": study, "storage": record.url}, "worker": searcher.worker, "scored": ours}
        click.echo(json.dumps({**summary, "trials": len(trials), "ended": ended}, indent=2))
    elif ended != "interrupted":
        done = f"{ours} of {len(trials)} trials scored here; `promptsearch runs resume {study}` gives the result"
        click.echo(printable(done))
    if ended == "interrupted":
        say_interrupted(record, len(trials), total)
