"""What every search command does around its searcher: open the problem, the record, search, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch import __version__
from promptsearch.commands.progress import progress_bar

if TYPE_CHECKING:
    from promptsearch.banks import Bank
    from promptsearch.search import Searcher


def run_search(
    command: str,
    bank: Bank,
    searcher: Searcher,
    own: dict[str, Any],
    *,
    model: str,
    weights: Path | None,
    dataset: str,
    picture_column: str | None,
    label_column: str | None,
    device: str,
    precision: str,
    shots: int,
    seed: int,
    storage: str | None,
    study: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run `searcher` on the problem that the options name, keep it as a study, and print the result.

    Args:
        own: the command's own options, part of what must be the same for the run to be resumed.
    """
    from promptsearch.evaluators import open_problem
    from promptsearch.runs import RunRecord

    with progress_bar(quiet or as_json) as progress:
        started = time.perf_counter()
        problem = open_problem(
            model,
            dataset,
            weights=weights,
            device=device,
            precision=precision,
            picture_column=picture_column,
            label_column=label_column,
            progress=progress,
        )
        spec = problem.encoder.spec
        config = {
            "command": command,
            "model": spec.name,
            "model fingerprint": spec.fingerprint,
            "precision": precision,
            "dataset": problem.source.name,
            "data fingerprint": problem.source.fingerprint,
            "bank": bank.name,
            "bank hash": bank.hash,
            "shots": shots,
            "seed": seed,
            **own,
        }
        record = RunRecord.open(study or default_study(config), storage, config, _about(problem.source.origin))
        result = record.result
        if result is None:
            result = _search(problem, bank, searcher, record, config, started, progress)
            record.finish(result)
        problem.encoder.close()
    emit(result, as_json, quiet)


def _search(
    problem: Any,
    bank: Bank,
    searcher: Searcher,
    record: Any,
    config: dict[str, Any],
    started: float,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    from promptsearch.reports import build_result, standard_baselines
    from promptsearch.runs import search

    task = problem.task(config["shots"], config["seed"])
    record.study.set_user_attr(
        "draw", {"support": task.support.indices.tolist(), "validation": task.validation.indices.tolist()}
    )
    evaluator = problem.evaluator(task)
    outcome = search(searcher, evaluator, record, progress)
    baselines = standard_baselines(bank, searcher, evaluator)
    record.study.set_user_attr("test_opened", datetime.now(timezone.utc).isoformat(timespec="seconds"))
    progress(0, 0, "opening the test split")
    test = task.open_test()
    head = {
        "command": record.config["command"],
        "model": config["model"],
        "dataset": config["dataset"],
        "shots": config["shots"],
        "seed": config["seed"],
        "bank": config["bank"],
        "objective": config.get("objective"),
        "run": {"study": record.name, "storage": record.url},
        "notes": problem.notes,
        "version": __version__,
    }
    return build_result(head, outcome, baselines, evaluator, test, time.perf_counter() - started)


def default_study(config: dict[str, Any]) -> str:
    """A readable name that is another whenever the configuration is: the same command finds its own run again."""
    from promptsearch.evaluators.cache import digest_of

    dataset = str(config["dataset"]).rstrip("/").rsplit("/", 1)[-1]
    return f"{config['command']}-{dataset}-{config['shots']}shots-seed{config['seed']}-{digest_of(config)[:8]}"


def _about(origin: str) -> dict[str, Any]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"version": __version__, "started": started, "pictures": origin}


def emit(result: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Print a result document: as JSON, or as a table."""
    import click

    if as_json:
        import json

        for note in [] if quiet else result.get("notes", []):
            click.echo(note, err=True)
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from promptsearch.reports.table import print_result

    shown = {**result, "notes": []} if quiet else result
    print_result(shown, Console(width=None if Console().is_terminal else 120))
