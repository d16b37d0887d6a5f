"""The command `promptsearch compare`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import (
    check_trackers,
    fewer_option,
    lm_config,
    lm_options,
    model_options,
    output_options,
    pictures_option,
    reading_options,
    refuse_idle_pictures,
    refuse_unused,
    split_lm,
    tracker_option,
)
from promptsearch.commands.options import log_to as log_result
from promptsearch.commands.terminal import progress_bar
from promptsearch.config import TRIALS, BankId, RunConfig, SearchConfig
from promptsearch.errors import InputError
from promptsearch.version import __version__

if TYPE_CHECKING:
    from promptsearch.banks import Bank
    from promptsearch.evaluators import Problem, Progress
    from promptsearch.runs import RunRecord
    from promptsearch.runs.compare.comparison import Tested
    from promptsearch.runs.compare.methods import Writer
    from promptsearch.search.proposers.language import AskedModel


@click.command(epilog=example("promptsearch compare --methods beam,coop --shots 1,16 --seeds 3"))
@click.option(
    "--methods",
    default="all",
    show_default=True,
    shell_complete=complete.methods,
    help='List of methods, e.g. "beam,coop", or "all,pez:1" to run pez on one draw only.',
)
@model_options
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    default=["auto"],
    shell_complete=complete.datasets,
    help="Data set, as for searches; may be repeated.",
)
@pictures_option
@reading_options
@click.option("--shots", default="1,2,4,8,16", show_default=True, help="Numbers of labelled pictures per class.")
@fewer_option
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of draws (seeds 0, 1, …).")
@click.option(
    "--bank",
    "bank_spec",
    default="templates",
    show_default=True,
    shell_complete=complete.banks,
    help="Bank that all methods use: a file, or a built-in bank.",
)
@click.option(
    "--phrases",
    default="auto",
    show_default=True,
    shell_complete=complete.words_or_file("auto", "none", *complete.PHRASE_BANKS),
    help="Phrases of the classes for the searches: a file, a built-in bank, none, or auto (see `promptsearch beam`).",
)
@click.option(
    "--transfer",
    "transfers",
    multiple=True,
    shell_complete=complete.datasets,
    help="Also test all results on this data set, which must have the same classes; may be repeated.",
)
@click.option("--trials", type=click.IntRange(1), default=TRIALS, show_default=True, help="Trials of each search.")
@click.option("--ensemble", type=int, default=6, show_default=True, help="Largest number of templates in a prompt set.")
@lm_options
@click.option(
    "--against",
    default="coop",
    shell_complete=complete.method,
    show_default=True,
    help="Method from which the differences of the others are computed.",
)
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all results as CSV.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables as Markdown.")
@click.option(
    "--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw accuracy against shots (png, svg or pdf)."
)
@click.option("--storage", help="Storage of runs: a database URL or a SQLite file.")
@click.option(
    "--study", shell_complete=complete.studies, help="Name of the run.  [default: made from the model and the bank]"
)
@tracker_option
@output_options
def compare(
    methods: str,
    datasets: tuple[str, ...],
    shots: str,
    seeds: int,
    bank_spec: str,
    phrases: str,
    transfers: tuple[str, ...],
    trials: int,
    ensemble: int,
    against: str,
    csv_file: Path | None,
    markdown: Path | None,
    figure: Path | None,
    storage: str | None,
    study: str | None,
    log_to: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare methods on the same draws of labelled pictures; each test split is opened once at the end.

    Run the same command again to resume an interrupted comparison; with more methods, shots, seeds or data sets only
    the new results are computed. The same command in several terminals shares the work.

    \b
    Methods besides beam, random, climb, tpe, evolve and plug-ins' searchers:
    hand-written, clip-cifar, clip-imagenet, whole-bank  fixed prompts
    single, random-words, random-10k, beam-no-phrases    controls
    tip-adapter                                          few shots as a cache
    climb-lm, evolve-lm                                  with a language model
    coop, coop-4, coop-8, coop-text, coop-csc            learnt contexts
    coop-restart, coop-text-tuned, kgcoop, coop-hull     variants of CoOp
    coop-sample, names, names-tuned, pez                 other gradient baselines
    vpt, vpt-shallow, vpt-deep                           visual prompts
    """
    from promptsearch.banks import load_bank
    from promptsearch.commands.search_run import emit
    from promptsearch.reports.comparison import build_comparison, to_csv
    from promptsearch.reports.comparison_table import to_markdown
    from promptsearch.reports.figure import draw_figure
    from promptsearch.runs.compare.cells import Cells
    from promptsearch.runs.compare.comparison import Comparison
    from promptsearch.runs.compare.methods import WRITTEN_FOR, all_methods, choose_methods, searcher_options
    from promptsearch.runs.store.storage import learnt_folder
    from promptsearch.runs.transfer import targets_of_each

    _check_files(csv_file, markdown, figure)
    check_trackers(log_to)
    counts = _numbers(shots)
    bank = load_bank(bank_spec)
    given = split_lm(options)
    known = all_methods(bank, searcher_options({"ensemble": ensemble}, phrases), trials, _writer(given))
    chosen = choose_methods(known, methods)
    if not {f"{n}-lm" for n in WRITTEN_FOR} & chosen.keys():
        refuse_unused(given, "none of the methods uses a language model; add evolve-lm or climb-lm to --methods")
    if against not in known:
        raise InputError(f"--against {against}: unknown method; choose from {', '.join(known)}")
    reference = against if against in chosen else next(iter(chosen))
    started = time.perf_counter()
    with progress_bar(quiet or as_json) as progress:
        problems = _open(list(dict.fromkeys(datasets)), options, progress)
        first = next(iter(problems.values()))
        targets = targets_of_each(problems, transfers)
        record = _record(first, bank, storage, study)
        folder = learnt_folder() / record.name
        comparison = Comparison(Cells(record, folder), problems, chosen, counts, seeds, progress, targets)
        spread = None
        if options["ray"] is not None:
            from promptsearch.runs.compare.ray_compare import spread_over

            spread = spread_over(comparison, options["ray"], bank, _reading(options))
        comparison.compute(spread)
        tested = comparison.test()
    skipped = comparison.skipped
    if against not in chosen:
        skipped.append(f"{against} is not among the methods, so differences are computed to {reference}.")
    head = {
        "command": "compare",
        "model": first.encoder.spec.name,
        "datasets": list(dict.fromkeys(r.dataset for r in tested)),
        "shots": counts,
        "seeds": seeds,
        "bank": bank.name,
        "bank_hash": bank.hash,
        "test_pictures": {r.dataset: len(r.hits) for r in tested},
        "run": {"study": record.name, "storage": record.url, "cells": comparison.cells.count()},
        "notes": list(
            dict.fromkeys(
                [*(n for p in problems.values() for n in p.notes), *comparison.imbalances, *skipped, *_cost(tested)]
            )
        ),
        "version": __version__,
        "elapsed": round(time.perf_counter() - started, 3),
    }
    document = build_comparison(head, chosen, tested, reference)
    record.finish({k: v for k, v in document.items() if k != "cells"})
    first.encoder.close()
    for file, text in ((csv_file, to_csv), (markdown, to_markdown)):
        if file is not None:
            _write(file, text(document))
    if figure is not None:
        draw_figure(document, figure)
    emit(document, as_json, quiet)
    log_result(log_to, record, document, quiet)


def _check_files(csv_file: Path | None, markdown: Path | None, figure: Path | None) -> None:
    """Check, before anything is computed, that the files can be written."""
    from promptsearch.reports.figure import check_figure

    for option, file in (("--csv", csv_file), ("--markdown", markdown)):
        if file is not None and not file.resolve().parent.is_dir():
            raise InputError(f"{option} {file}: the folder does not exist; create it, or name another")
    if figure is not None:
        check_figure(figure)


def _writer(given: Mapping[str, Any]) -> Writer:
    """Return the language model that the options name; each process loads it when it first uses it."""
    from promptsearch.lm.opening import open_writer
    from promptsearch.runs.compare.methods import Writer

    config = lm_config(given)
    opened: list[AskedModel] = []

    def model() -> AskedModel:
        if not opened:
            opened.append(open_writer(config, given))
        return opened[0]

    return Writer(config, model)


def _cost(tested: Sequence[Tested]) -> list[str]:
    """Return a sentence on the usage of the language model for the cells shown."""
    usage = Counter[str]()
    for row in tested:
        usage.update(row.figures.get("usage", {}) if not row.name else {})
    if not usage["calls"]:
        return []
    tokens = f"{usage['tokens read']} tokens read, {usage['tokens written']} written"
    return [f"The language model was called {usage['calls']} times: {tokens}."]


def _open(datasets: list[str], options: dict[str, Any], progress: Progress) -> dict[str, Problem]:
    """Open all data sets with the same encoder."""
    from promptsearch.commands.search_run import machine_config, problem_config
    from promptsearch.evaluators import Problem, open_configured, open_pictures

    opened = problem_config({**options, "dataset": datasets[0]})
    first = open_configured(opened, machine_config(options), progress=progress)
    problems = {first.source.name: first}
    for name in datasets[1:]:
        source = open_pictures(first.encoder, name, first.cache, **_reading(options))
        # the same data set may be named in two ways
        if all(source.fingerprint != p.source.fingerprint for p in problems.values()):
            how = {"memory": options["memory"], "allow_fewer": options["allow_fewer"]}
            problems[source.name] = Problem(first.encoder, source, first.cache, [], **how)
    refuse_idle_pictures(options["pictures"], *problems.values())
    return problems


def _reading(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for reading pictures, which are the same for all data sets."""
    return {k: options[k] for k in ("picture_column", "label_column", "test_share", "split_seed", "pictures")}


def _record(problem: Problem, bank: Bank, storage: str | None, study: str | None) -> RunRecord:
    from promptsearch.runs import RunRecord
    from promptsearch.runs.open_run import study_name
    from promptsearch.runs.store.record import now

    spec = problem.encoder.spec
    config = RunConfig(
        SearchConfig("compare", objective="xent", select="", options={}),
        spec.name,
        spec.fingerprint,
        spec.precision,
        bank=BankId(bank.name, bank.hash),
    )
    return RunRecord.open(study or study_name(config), storage, config, {"version": __version__, "started": now()})


def _numbers(text: str) -> list[int]:

    parts = text.replace(",", " ").split()
    if not parts or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise InputError(f"--shots {text!r}: give numbers of pictures per class, e.g. 1,2,4,8,16")
    return sorted({int(p) for p in parts})


def _write(file: Path, text: str) -> None:

    try:
        file.write_text(text, "utf-8")
    except OSError as e:
        raise InputError(f"{file}: cannot be written ({e.strerror}); name another file") from e
