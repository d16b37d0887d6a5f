"""What every search command does around its searcher: open the problem, the record, search, report."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch import __version__
from promptsearch.commands.progress import progress_bar

if TYPE_CHECKING:
    from promptsearch.banks import Bank, PromptSet
    from promptsearch.evaluators import Problem
    from promptsearch.runs import RunRecord
    from promptsearch.search import Searcher

Progress = Callable[[int, int, str], None]

#: Best sets of a run that a fork of it begins with.
FORKED = 10


def run_trials(
    command: str,
    bank_spec: str,
    own: dict[str, Any],
    *,
    seed: int,
    enqueue: str | None,
    trials: int,
    timeout: float | None,
    **options: Any,
) -> None:
    """Run a searcher by trials: the hand-written prompt and the templates of `enqueue` first."""
    from promptsearch.banks import BASELINE, PromptSet, load_bank
    from promptsearch.commands.fluency_options import fluency_config
    from promptsearch.search import build_searcher, choose_objective

    own = {**own, "objective": choose_objective(own["objective"], options["shots"]), **fluency_config(options)}
    bank = load_bank(bank_spec)
    start = [PromptSet.of(BASELINE)]
    if enqueue is not None:
        first = load_bank(enqueue)
        start += [PromptSet.of(t) for t in first]
        own = {**own, "enqueued": first.hash}
    searcher = build_searcher(command, bank, {**own, "seed": seed})
    run_search(command, bank, searcher, own, start, seed=seed, trials=trials, timeout=timeout, **options)


def run_search(
    command: str,
    bank: Bank,
    searcher: Searcher,
    own: dict[str, Any],
    start: list[PromptSet] | None = None,
    *,
    model: str,
    weights: Path | None,
    dataset: str,
    picture_column: str | None,
    label_column: str | None,
    device: str,
    memory: int | None,
    encode_batch: int | None,
    precision: str,
    ray: str | None,
    shots: int,
    seed: int,
    storage: str | None,
    study: str | None,
    as_json: bool,
    quiet: bool,
    unlabelled: int = 500,
    select: str | None = None,
    estimate: bool = True,
    fork: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    named_lm: dict[str, Any] | None = None,
) -> None:
    """Run `searcher` on the problem that the options name, keep it as a study, and print the result.

    Args:
        own: the command's own options, part of what must be the same for the run to be resumed.
        unlabelled: pictures to search on where there are no shots.
        select: how the winner is chosen among what was found.
        estimate: whether to estimate its accuracy by repeating search and choice.
        start: sets to begin with, for searchers that can.
        fork: name of the run to begin, from the best of the one that `study` names.
        named_lm: how the language model was named; a server may have moved since the run began.
    """
    from promptsearch.evaluators import open_problem
    from promptsearch.runs import Budget, RunRecord, choose_selection

    start = list(start or [])
    if fork is not None:
        start += _best_of(study, storage, fork)
    with progress_bar(quiet or as_json) as progress:
        started = time.perf_counter()
        opened = {
            "model": model,
            "weights": None if weights is None else str(weights),
            "dataset": dataset,
            "picture_column": picture_column,
            "label_column": label_column,
            "precision": precision,
        }
        how: dict[str, Any] = {"device": device, "memory": memory, "encode_batch": encode_batch, "ray": ray}
        problem = open_problem(**{**opened, **how, "weights": weights}, progress=progress)
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
            **({} if shots else {"unlabelled": unlabelled}),
            "select": choose_selection(select, shots, own.get("objective") or "xent", "fluency lm" in own),
            **own,
        }
        about = {**_about(problem.source.origin), "opened": {**opened, "model": spec.name}}
        about["classes"] = list(problem.source.class_names)
        if fork is not None:
            about["forked from"] = study
        record = RunRecord.open(fork or study or default_study(config), storage, config, about)
        keep(record, bank, start, trials)
        if named_lm is not None and record.get("lm") != named_lm:
            record.set("lm", named_lm)
        result = carry_on(problem, bank, searcher, record, Budget(trials, timeout), started, progress, estimate)
        problem.encoder.close()
    emit(result, as_json, quiet)


def _best_of(study: str | None, storage: str | None, fork: str) -> list[PromptSet]:
    from promptsearch.errors import InputError
    from promptsearch.runs import RunRecord

    if study is None:
        raise InputError(f"--fork {fork}: name the run to start from with --study")
    record = RunRecord.load(study, storage)
    return [s for s, _ in best_first(record)[:FORKED]]


def best_first(record: RunRecord) -> list[tuple[PromptSet, Any]]:
    """The scored sets of a run, each once, by its own objective."""
    from promptsearch.search import of_options

    objective = of_options(record.config)
    found = dict(record.trials())
    return sorted(found.items(), key=lambda r: (tuple(-v for v in objective(r[1])), r[0].size, r[0].templates))


def keep(record: RunRecord, bank: Bank, start: list[PromptSet], trials: int | None) -> None:
    """Keep in the study what a worker needs to join it: the bank, the starting points, the budget."""
    from promptsearch.runs import bank_to_dict

    if record.get("bank") is None:
        record.set("start", [s.to_dict() for s in start])
        record.set("bank", bank_to_dict(bank))
    if (record.get("budget") or {}).get("trials") != trials:
        record.set("budget", {"trials": trials})


def carry_on(
    problem: Problem,
    bank: Bank,
    searcher: Searcher,
    record: RunRecord,
    budget: Any,
    started: float,
    progress: Progress,
    estimate: bool = True,
) -> dict[str, Any]:
    """The result of a run: the recorded one where its budget is spent, else searched for and recorded."""
    from promptsearch.commands.choosing import choose, open_test_once
    from promptsearch.commands.equipping import equip, reported
    from promptsearch.reports import build_details, build_result, front_rows, standard_baselines
    from promptsearch.runs import search
    from promptsearch.runs.store.restore import give_start
    from promptsearch.search import TrialSearcher

    by_trials = isinstance(searcher, TrialSearcher)
    config, result = record.config, record.result
    if result is not None and (not by_trials or _spent(record, result, budget)):
        return result
    give_start(record, searcher)
    task = problem.task(config["shots"], config["seed"], config.get("unlabelled"))
    if record.get("draw") is None:
        drawn = {"support": task.support.indices.tolist(), "validation": task.validation.indices.tolist()}
        record.set("draw", drawn)
    evaluator = problem.evaluator(task)
    equip(searcher, problem, evaluator, record)
    with interruptible() as stopping:
        outcome = search(searcher, evaluator, record, progress, budget, stopping)
    if outcome.ended == "interrupted":
        say_interrupted(record, len(record.trials()), budget.trials)
    baselines = standard_baselines(bank, searcher, evaluator)
    winner, chosen = choose(bank, searcher, evaluator, outcome, record, progress, estimate)
    outcome = dataclasses.replace(outcome, winner=(winner, evaluator.score([winner])[0]))
    opened = open_test_once(record, winner)
    progress(0, 0, "opening the test split")
    test = task.open_test()
    head = {
        "command": config["command"],
        "model": config["model"],
        "dataset": config["dataset"],
        "shots": config["shots"],
        "seed": config["seed"],
        "bank": config["bank"],
        "objective": config.get("objective"),
        "run": {
            "study": record.name,
            "storage": record.url,
            "trials": len(record.trials()),
            "ended": outcome.ended,
        },
        "notes": [
            *problem.notes,
            *([] if task.labelled else [_unlabelled_note(config)]),
            *(_ended_note(outcome.ended, len(record.trials()), budget.trials) if by_trials else []),
        ],
        "version": __version__,
        **reported(searcher),
        **({"front": front_rows(outcome, searcher.objective)} if config.get("pareto") else {}),
        **chosen,
        "test_opened": opened,
    }
    result = build_result(head, outcome, baselines, evaluator, test, time.perf_counter() - started)
    before, after = (evaluator.predictions(s, test) for s in (baselines[0].prompt_set, outcome.winner[0]))
    record.set("details", build_details(task.class_names, test, before, after, baselines[0].name))
    record.finish(result)
    return result


def _ended_note(ended: str, done: int, total: int | None) -> list[str]:
    if ended != "exhausted" or total is None or done >= total:
        return []
    return [f"The search ended after {done} of {total} trials: nothing was proposed that had not been scored."]


def _unlabelled_note(config: dict[str, Any]) -> str:
    return (
        f"No label was read: searched on {config['unlabelled']} unlabelled training pictures by {config['objective']}, "
        "which is no accuracy. How good the winner is, only the labelled test split says."
    )


def _spent(record: RunRecord, result: dict[str, Any], budget: Any) -> bool:
    if result["run"].get("ended") == "exhausted":
        return True
    return budget.trials is not None and len(record.trials()) >= budget.trials


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C sets what the yielded function answers: the trial in hand is finished; the second cuts."""
    import click

    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def first(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        click.echo("stopping after the trials in hand (Ctrl-C again: at once)", err=True)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def say_interrupted(record: RunRecord, done: int, total: int | None) -> None:
    """Say how to go on, and exit with 130."""
    import click

    from promptsearch.banks import printable

    of, name = f" of {total}" if total is not None else "", printable(record.name)
    click.echo(
        f"interrupted after {done}{of} trials of run {name}; the same command again resumes, "
        f"or: promptsearch runs resume {name}",
        err=True,
    )
    sys.exit(130)


def reopen(
    record: RunRecord,
    *,
    model: str | None = None,
    weights: Path | None = None,
    dataset: str | None = None,
    progress: Progress,
    **how: Any,
) -> Problem:
    """The problem of a run, opened here, perhaps from other paths.

    Args:
        how: what `open_problem` takes beside them: `device`, `memory`, `encode_batch`, `ray`.

    Raises:
        InputError: the model or the data here are not those of the run.
    """
    from promptsearch.errors import InputError
    from promptsearch.evaluators import open_problem

    config, opened = record.config, dict(record.about["opened"])
    kept = opened.pop("weights")
    if model is not None:
        opened["model"] = model
    elif weights is None and kept is not None:
        weights = Path(kept)
    if dataset is not None:
        opened["dataset"] = dataset
    problem = open_problem(**opened, weights=weights, **how, progress=progress)
    here = {
        "model fingerprint": problem.encoder.spec.fingerprint,
        "data fingerprint": problem.source.fingerprint,
    }
    if different := [f"{k} {config[k]!r} (here {v!r})" for k, v in here.items() if config[k] != v]:
        raise InputError(
            f"run {record.name!r} was made with {'; '.join(different)}; "
            "name its own model and pictures with --model, --weights and --dataset"
        )
    return problem


def default_study(config: dict[str, Any]) -> str:
    """A readable name that is another whenever the configuration is: the same command finds its own run again."""
    from promptsearch.evaluators.cache.store import digest_of

    dataset = str(config["dataset"]).rstrip("/").rsplit("/", 1)[-1]
    return f"{config['command']}-{dataset}-{config['shots']}shots-seed{config['seed']}-{digest_of(config)[:8]}"


def _about(origin: str) -> dict[str, Any]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"version": __version__, "started": started, "pictures": origin}


def _printable(value: Any) -> Any:
    """A document in which nothing is left that a terminal would obey."""
    from promptsearch.banks import printable

    if isinstance(value, dict):
        return {k: _printable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_printable(v) for v in value]
    return printable(value) if isinstance(value, str) else value


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

    from promptsearch.reports.comparison_table import print_comparison
    from promptsearch.reports.table import print_result

    shown = _printable({**result, "notes": []} if quiet else result)
    comparison = result["command"] == "compare"
    console = Console(width=None if Console().is_terminal else 200 if comparison else 120)
    (print_comparison if comparison else print_result)(shown, console)
