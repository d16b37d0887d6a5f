"""Opens recorded runs from a configuration, and reopens the problems of recorded runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from promptsearch.banks import BASELINE, PHRASE_BANKS, Bank, PhraseBank, PromptSet, load_phrases
from promptsearch.config import (
    SEARCHER_OPTIONS,
    BankId,
    MachineConfig,
    ProblemConfig,
    RunConfig,
    SearchConfig,
    TrialOptions,
    without_names,
)
from promptsearch.errors import InputError
from promptsearch.evaluators import Problem, Progress, Score, no_progress, open_configured
from promptsearch.evaluators.cache import digest_of
from promptsearch.evaluators.data.dataset_names import SHORT_NAMES
from promptsearch.runs.selection.select import choose_selection
from promptsearch.runs.store.record import MemoryRecord, Record, RunRecord, bank_to_dict, now
from promptsearch.runs.store.storage import LOOK, NoSuchRun
from promptsearch.search import SEARCHERS, TrialSearcher, build_searcher, choose_objective, of_options
from promptsearch.search.registry import own_options
from promptsearch.version import __version__

#: Number of best prompt sets of a run with which a fork of it begins.
FORKED = 10


def resolved(config: SearchConfig) -> SearchConfig:
    """Return a configuration with "auto" replaced by the default objective and selection method.

    Args:
        config: The configuration.

    Raises:
        InputError: The objective or the method is unknown, or needs labels and there are none.
    """
    objective = choose_objective(None if config.objective == "auto" else config.objective, config.shots)
    named = None if config.select == "auto" else config.select
    select = choose_selection(named, config.shots, objective, config.fluency is not None)
    return replace(config, objective=objective, select=select)


def with_phrases(bank: Bank, spec: str, problem: Problem, *, moved: bool = False) -> Bank:
    """Return a bank with phrases for the problem's classes.

    Args:
        bank: The templates.
        spec: "auto" for the built-in phrases that fit the class names, "none", or a phrase bank or file.
        problem: The problem; other names of its classes become phrases, too.
        moved: Whether the searcher itself renames one class at a time, as it does with a bank's own `class_names`.
            Otherwise phrases are chosen after the search, for the templates that it found.

    Raises:
        InputError: There are no such phrases, or they do not fit the classes.
    """
    classes, found = problem.source.class_names, None
    if spec == "auto":
        found = next((b for b in map(load_phrases, PHRASE_BANKS) if b.fits(classes)), None)
    elif spec != "none":
        found = load_phrases(spec)
    if problem.other_names:
        given = {} if found is None else dict(zip(classes, found.of_classes(classes), strict=True))
        every = {n: (*problem.other_names.get(n, ()), *given.get(n, ())) for n in classes}
        name = "class names" if found is None else found.name
        found = PhraseBank(name, {n: phrases for n, phrases in every.items() if phrases})
    if found is None:
        return bank
    phrases = found.of_classes(classes)
    if moved:
        others = {own: tuple(p for p in said if p != own) for own, said in zip(classes, phrases, strict=True)}
        return replace(bank, class_names={own: said for own, said in others.items() if said} | bank.class_names)
    return replace(bank, phrases=found)


def check_search(config: SearchConfig, bank: Bank) -> SearchConfig:
    """Return the resolved configuration after checking the searcher's options, before anything is opened.

    Args:
        config: The configuration.
        bank: The bank to search.

    Raises:
        InputError: The objective, the selection method or an option of the searcher is invalid.
    """
    config = resolved(config)
    build_searcher(config.searcher, bank, config.builder_options())
    return config


def default_options(searcher: str) -> dict[str, Any]:
    """Return the options of a searcher with their default values.

    Args:
        searcher: Name of the searcher.

    Raises:
        InputError: There is no such searcher.
    """
    if searcher not in SEARCHERS:
        raise InputError(f"--searcher {searcher}: not known; choose from {', '.join(SEARCHERS)}")
    if searcher in SEARCHER_OPTIONS:
        return asdict(SEARCHER_OPTIONS[searcher]())
    return {**asdict(TrialOptions()), **own_options(searcher)}


def default_start(search: SearchConfig, bank: Bank) -> list[PromptSet]:
    """Return the prompt sets to score first: the hand-written prompt in a search by trials, none in one by rounds.

    Args:
        search: The configuration.
        bank: The bank to search.
    """
    searcher = build_searcher(search.searcher, bank, search.builder_options())
    return [PromptSet.of(BASELINE)] if isinstance(searcher, TrialSearcher) else []


def identify(problem: Problem, search: SearchConfig, bank: BankId | Bank | None = None) -> RunConfig:
    """Return the identity of a run.

    Args:
        problem: The model and the pictures.
        search: The configuration of the search.
        bank: The bank, for methods that have one.
    """
    spec = problem.encoder.spec
    return RunConfig(
        search,
        model=spec.name,
        model_fingerprint=spec.fingerprint,
        precision=spec.precision,
        dataset=problem.source.name,
        data_fingerprint=problem.source.fingerprint,
        bank=BankId(bank.name, bank.hash) if isinstance(bank, Bank) else bank,
    )


def study_name(config: RunConfig) -> str:
    """Return a readable name that differs whenever the configuration does, so that the same command finds its run.

    Models, pictures and banks are identified by their content, whatever their names.

    Args:
        config: The run's configuration.
    """
    search, digest = config.search, digest_of(without_names(config.to_dict()))[:8]
    if config.dataset is None:
        return f"{config.command}-{digest}"
    name, folder = config.dataset, os.path.expanduser(config.dataset)
    if name.partition("-")[0] not in SHORT_NAMES and os.path.exists(folder):
        name = os.path.realpath(folder)
    name = name.rstrip("/").rsplit("/", 1)[-1]
    return f"{config.command}-{name}-{search.shots}shots-seed{search.seed}-{digest}"


def describe(problem: Problem, opened: ProblemConfig | None = None) -> dict[str, Any]:
    """Return what a record contains besides its identity: version, start time, class names and paths.

    Args:
        problem: The model and the pictures.
        opened: How the problem was opened, so that `reopen` can open it again.
    """
    about: dict[str, Any] = {"version": __version__, "started": now(), "pictures": problem.source.origin}
    if opened is not None:
        about["opened"] = {**asdict(opened), "model": problem.encoder.spec.name}
        with contextlib.suppress(OSError):  # the folder was deleted meanwhile
            about["folder"] = os.getcwd()
        if opened.class_names is not None:  # the names themselves, because their file may change
            about["opened"]["class_names"] = list(problem.source.class_names)
    return {**about, "classes": list(problem.source.class_names)}


@dataclass(frozen=True)
class Place:
    """Where a run is recorded.

    Args:
        storage: Database URL or SQLite file; by default the user's own.
        study: Name of the run; by default made from its configuration.
        fork: Name of a new run that begins with the best prompt sets of `study`.
    """

    storage: str | None = None
    study: str | None = None
    fork: str | None = None


def open_run(
    problem: Problem,
    bank: Bank,
    search: SearchConfig,
    place: Place = Place(),
    *,
    opened: ProblemConfig | None = None,
    start: Sequence[PromptSet] = (),
    first: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Open the recorded run of a search, or create it.

    Args:
        problem: The model and the pictures.
        bank: The bank to search.
        search: The configuration of the search.
        place: Where the run is recorded.
        opened: How the problem was opened, so that `reopen` can open it again.
        start: Prompt sets to score first.
        first: Further attributes that a new run has from the beginning, for processes that join it at once.

    Returns:
        The run.

    Raises:
        InputError: A run of this name has another configuration, or `place` has a fork without a study.
        PromptSearchError: The storage cannot be written.
    """
    about = describe(problem, opened)
    storage, study, fork = place.storage, place.study, place.fork
    if fork is not None:
        if study is None:
            raise InputError(f"--fork {fork}: name the run to start from with --study")
        start = [*start, *(s for s, _ in best_first(RunRecord.load(study, storage))[:FORKED])]
        about["forked from"] = study
    config = identify(problem, search, bank)
    first = {**(first or {}), "start": [s.to_dict() for s in start], "bank": bank_to_dict(bank)}
    record = RunRecord.open(fork or study or study_name(config), storage, config, about, first)
    keep_bank(record, bank, start)  # a run of an earlier version may lack it
    return record


def await_run(name: str, storage: str | None, patience: float, waiting: Callable[[], None]) -> RunRecord:
    """Open an existing run, or wait until another process creates it.

    Args:
        name: Name of the run.
        storage: Database URL or SQLite file; by default the user's own.
        patience: Largest number of seconds to wait.
        waiting: Called once if there is no such run yet.

    Raises:
        NoSuchRun: The run was not created in time.
        InputError: The study was not made by promptsearch.
    """
    until, told = time.monotonic() + patience, False
    while True:
        try:
            return RunRecord.load(name, storage)
        except NoSuchRun:
            if time.monotonic() >= until:
                raise
        if not told:
            waiting()
            told = True
        time.sleep(LOOK)


def memory_run(
    problem: Problem,
    bank: Bank,
    search: SearchConfig,
    *,
    opened: ProblemConfig | None = None,
    start: Sequence[PromptSet] = (),
) -> MemoryRecord:
    """Create the run of a search in memory.

    Args:
        problem: The model and the pictures.
        bank: The bank to search.
        search: The configuration of the search.
        opened: How the problem was opened.
        start: Prompt sets to score first.
    """
    config = identify(problem, search, bank)
    record = MemoryRecord(study_name(config), config, describe(problem, opened))
    keep_bank(record, bank, start)
    return record


def keep_bank(record: Record, bank: Bank, start: Sequence[PromptSet]) -> None:
    """Record the bank and the first prompt sets of a run, which other processes need to join it.

    Args:
        record: The run; it is unchanged if it has a bank.
        bank: The bank to search.
        start: Prompt sets to score first.
    """
    if record.get("bank") is None:
        record.set("start", [s.to_dict() for s in start])
        record.set("bank", bank_to_dict(bank))


def keep_budget(record: Record, trials: int | None) -> None:
    """Record the total number of trials of a run, which other processes need to join it.

    Args:
        record: The run.
        trials: The number; None if there is no limit.
    """
    if (record.get("budget") or {}).get("trials") != trials:
        record.set("budget", {"trials": trials})


def best_first(record: Record) -> list[tuple[PromptSet, Score]]:
    """Return each scored prompt set of a run once, best first by the run's objective."""
    objective = of_options(record.config.search.builder_options())
    found = dict(record.trials())
    return sorted(found.items(), key=lambda r: (tuple(-v for v in objective(r[1])), r[0].size, r[0].templates))


def opened_config(record: Record) -> ProblemConfig | None:
    """Return how a run's model and pictures were opened; None if they were given in memory.

    Relative paths that do not exist here are those of the folder that the run was started in.
    """
    kept, home = record.about.get("opened"), record.about.get("folder")
    if not kept:
        return None
    config = ProblemConfig(**{f.name: kept[f.name] for f in fields(ProblemConfig) if f.name in kept})

    def found(path: str) -> str:
        there = os.path.join(home or "", path)
        return there if not os.path.exists(os.path.expanduser(path)) and os.path.exists(there) else path

    # a feature pack's name and one such as cifar10 are no paths, though a folder may be called so
    from_pack = not str(record.about.get("pictures", "")).startswith("pictures")
    named = from_pack or config.dataset.partition("-")[0] in SHORT_NAMES
    kind, _, folder = config.model.partition(":")
    return replace(
        config,
        model=f"local-dir:{found(folder)}" if kind == "local-dir" else config.model,
        weights=config.weights and found(config.weights),
        pictures=config.pictures and found(config.pictures),
        dataset=config.dataset if named else found(config.dataset),
    )


def reopen(
    record: RunRecord,
    *,
    model: str | None = None,
    weights: Path | None = None,
    dataset: str | None = None,
    machine: MachineConfig = MachineConfig(),  # noqa: B008 (frozen)
    progress: Progress = no_progress,
) -> Problem:
    """Open the problem of a recorded run on this machine.

    Args:
        record: The run.
        model: The run's model, if its path is different on this machine.
        weights: The run's weights, if their path is different on this machine.
        dataset: The run's data set, if its path is different on this machine.
        machine: How this machine computes.
        progress: Called with (done, total, what is being done).

    Raises:
        InputError: The model or the pictures found here are not those of the run, or the run was made on pictures given
            in memory.
    """
    if (opened := opened_config(record)) is None:
        raise InputError(f"run {record.name!r} was made in Python on pictures given in memory; fit it again there")
    if model is not None:
        opened = replace(opened, model=model, weights=None)
    if weights is not None:
        opened = replace(opened, weights=str(weights))
    if dataset is not None:
        opened = replace(opened, dataset=dataset)
    problem = open_configured(opened, machine, progress=progress)
    config, here = record.config, identify(problem, record.config.search)
    different = [
        f"{what} {old!r} (here {new!r})"
        for what, old, new in (
            ("model fingerprint", config.model_fingerprint, here.model_fingerprint),
            ("data fingerprint", config.data_fingerprint, here.data_fingerprint),
        )
        if old != new
    ]
    if different:
        raise InputError(
            f"run {record.name!r} was made with {'; '.join(different)}; "
            "name its own model and pictures with --model, --weights and --dataset"
        )
    return problem
