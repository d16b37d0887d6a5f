"""The common part of all search commands: read the options, run the pipeline, print the result."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptsearch.commands.options import (
    check_trackers,
    fluency_config,
    language_tools,
    log_to,
    own_server,
    refuse_unused,
)
from promptsearch.commands.terminal import progress_bar
from promptsearch.config import MachineConfig, ProblemConfig, SearchConfig
from promptsearch.errors import PromptSearchWarning

if TYPE_CHECKING:
    from promptsearch.banks import PromptSet
    from promptsearch.config import WriterConfig
    from promptsearch.runs import RunRecord


def search_command(
    searcher: str, own: Mapping[str, Any], options: dict[str, Any], writer: WriterConfig | None = None
) -> None:
    """Run a search and print its result.

    Args:
        searcher: Name of the searcher.
        own: The searcher's own options, which are part of the run's identity.
        options: All other options of the command line, by parameter name.
        writer: The language model that writes, if any; the options of `--lm` are then in `options["named_lm"]`.
    """
    from promptsearch.banks import load_bank
    from promptsearch.evaluators import open_configured
    from promptsearch.runs import (
        Budget,
        Watch,
        begin_estimate,
        check_search,
        open_run,
        open_targets,
        run_search,
        transfer,
    )
    from promptsearch.runs.open_run import Place, keep_budget, with_phrases

    check_trackers(options["log_to"])
    if options["shots"]:
        refuse_unused(["unlabelled"], "it counts the pictures of --shots 0; leave one of the two out")
    bank = load_bank(options.pop("bank_spec"))
    start: list[PromptSet] = []
    if "enqueue" in options:
        start, own = _start(options.pop("enqueue"), own)
    search = SearchConfig(
        searcher,
        options["shots"],
        options["seed"],
        objective=options["objective"] or "auto",
        select=options["select"] or "auto",
        unlabelled=SearchConfig.unlabelled if options["unlabelled"] is None else options["unlabelled"],
        fluency=fluency_config(options),
        writer=writer,
        options=own,
    )
    search = check_search(search, bank)
    opened, budget = problem_config(options), Budget(options.get("trials"), options.get("timeout"))
    quiet = options["quiet"] or options["as_json"]
    with progress_bar(quiet) as progress:
        problem = open_configured(opened, machine_config(options), progress=progress)
        if options["unlabelled"] is None:
            search = replace(search, unlabelled=min(search.unlabelled, len(problem.source.labels("train")[0])))
        bank = with_phrases(bank, options["phrases"], problem, moved=options["move_phrases"])
        targets = open_targets(problem, options["transfer"])
        place = Place(options["storage"], options["study"], options["fork"])
        named = options.get("named_lm")
        first = {"budget": {"trials": budget.trials}, **({} if named is None else {"lm": named})}
        begin = begin_estimate(problem, bank, search) if options["estimate"] else contextlib.nullcontext()
        with begin as begun:  # other processes work while the record is opened
            record = open_run(problem, bank, search, place, opened=opened, start=start, first=first)
            keep_budget(record, budget.trials)
            if named is not None and record.get("lm") != named:
                record.set("lm", named)
            result = run_search(
                problem,
                bank,
                record,
                language=language_tools(search, named or {}),
                budget=budget,
                watch=Watch(progress, interruptible),
                estimate=options["estimate"],
                begun=begun,
            )
        if options["estimate"] and result.shots and result.estimate is None:
            warnings.warn(
                f"run {record.name!r} was finished with --no-estimate; for an estimate, search anew with --study NAME",
                PromptSearchWarning,
                stacklevel=1,
            )
        if targets:
            result = transfer(problem, record, result, targets)
        problem.encoder.close()
    document = result.to_dict()
    emit(document, options["as_json"], options["quiet"])
    log_to(options["log_to"], record, document, options["quiet"])


def _start(enqueue: str | None, own: Mapping[str, Any]) -> tuple[list[PromptSet], Mapping[str, Any]]:
    """Return the first sets of a search by trials: the hand-written prompt and the templates of --enqueue."""
    from promptsearch.banks import BASELINE, PromptSet, load_bank

    start = [PromptSet.of(BASELINE)]
    if enqueue is None:
        return start, own
    first = load_bank(enqueue)
    return [*start, *(PromptSet.of(t) for t in first)], {**own, "enqueued": first.hash}


def problem_config(options: Mapping[str, Any]) -> ProblemConfig:
    """Return the configuration of model and data set from the options."""
    if options["test_share"] is None:
        refuse_unused(["split_seed"], "it is the seed of --test-share; give that too")
    names = ("model", "dataset", "precision", "picture_column", "label_column", "test_share", "split_seed")
    weights, pictures = options.get("weights"), options.get("pictures")
    of = {k: options[k] for k in names}
    of["class_names"], of["allow_fewer"] = options.get("class_names"), options.get("allow_fewer", False)
    return ProblemConfig(**of, weights=None if weights is None else str(weights), pictures=pictures)


def machine_config(options: Mapping[str, Any]) -> MachineConfig:
    """Return the configuration of this machine from the options."""
    return MachineConfig(**{k: options[k] for k in ("device", "memory", "encode_batch", "ray") if k in options})


def resume_run(
    record: RunRecord, here: dict[str, Any], trials: int | None, timeout: float | None, shared: bool
) -> dict[str, Any]:
    """Resume a recorded run, and return its result document.

    Args:
        record: The run.
        here: The options of `resume_options` and `output_options`.
        trials: New total number of trials; None for the run's own.
        timeout: Seconds after which to stop.
        shared: Whether the user named the storage, so that others may write to it.
    """
    from promptsearch.runs import Budget, Watch, reopen, restore_bank, run_search
    from promptsearch.runs.open_run import keep_budget

    bank = restore_bank(record)
    server = own_server(record, here, shared)
    with progress_bar(here["quiet"] or here["as_json"]) as progress:
        where = {k: here[k] for k in ("model", "weights", "dataset")}
        problem = reopen(record, **where, machine=machine_config(here), progress=progress)
        total = trials or (record.get("budget") or {}).get("trials")
        keep_budget(record, total)
        result = run_search(
            problem,
            bank,
            record,
            language=language_tools(record.config.search, server),
            budget=Budget(total, timeout),
            watch=Watch(progress, interruptible),
        )
        problem.encoder.close()
    return result.to_dict()


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after the first Ctrl-C; the second Ctrl-C raises KeyboardInterrupt."""
    import click

    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def first(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        click.echo("stopping after the current trials (press Ctrl-C again to stop at once)", err=True)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _printable(value: Any) -> Any:
    """Return a document without the characters in its texts that would control the terminal."""
    from promptsearch.banks import printable

    if isinstance(value, dict):
        return {k: _printable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_printable(v) for v in value]
    return printable(value) if isinstance(value, str) else value


def emit(document: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Print a result document as JSON or as a table."""
    import click

    if as_json:
        for note in [] if quiet else document.get("notes", []):
            click.echo(note, err=True)
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from promptsearch.reports.comparison_table import print_comparison
    from promptsearch.reports.table import print_result
    from promptsearch.runs import RunResult

    shown = _printable({**document, "notes": []} if quiet else document)
    terminal = Console().is_terminal
    verbose = logging.getLogger("promptsearch").isEnabledFor(logging.INFO)
    if document["command"] == "compare":
        print_comparison(shown, Console(width=None if terminal else 200), verbose)
        return
    print_result(RunResult.from_dict(shown), Console(width=None if terminal else 120), verbose)
