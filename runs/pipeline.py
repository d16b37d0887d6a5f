"""The main job of promptsearch, from a problem to a result; `run_search` shows its steps.

Every search command, `PromptSearch.fit`, `runs resume` and `worker` use this module; `compare` and the gradient
baselines use the same steps.
"""

from __future__ import annotations

import contextlib
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet
from promptsearch.config import SearchConfig
from promptsearch.errors import InputError, Interrupted, PromptSearchWarning
from promptsearch.evaluators import Evaluator, Problem, Progress, Split, Task, no_progress, wilson
from promptsearch.evaluators.fluency import Fluency, Rater
from promptsearch.evaluators.intervals import Paired, compare_paired
from promptsearch.runs.result import Choice, Gains, Row, RunResult, calibrate
from promptsearch.runs.search_loop import Budget, Outcome, Sharing, never, prepare, search, writing_tools
from promptsearch.runs.selection.nested_cv import Estimate, Folds, by_vote, settle, ways
from promptsearch.runs.selection.processes import may_fork
from promptsearch.runs.selection.select import Repeat, Selected, Selection
from promptsearch.runs.store.record import Record, RunRecord, StudyJournal, now
from promptsearch.runs.store.storage import LOOK
from promptsearch.search import Searcher, TrialSearcher, WritingSearcher, build_searcher
from promptsearch.search.pareto import aims, front, words
from promptsearch.search.proposal_search import Journal, Memory
from promptsearch.search.proposers import PROPOSERS, Proposer
from promptsearch.search.proposers.fill import FillProposer, GapModel
from promptsearch.search.proposers.language import AskedModel, LanguageProposer
from promptsearch.version import __version__


def measure_gains(evaluator: Evaluator, winner: PromptSet, split: Split, where: str) -> Gains | None:
    """Measure how much accuracy each template and each class phrase of the winner adds, by removing one at a time.

    Args:
        evaluator: Encodes the texts.
        winner: The chosen prompt set.
        split: The pictures to measure on.
        where: Name of the pictures in the result: "few-shot" or "test".

    Returns:
        The gains, or None for a single template with the classes' own names.
    """
    if winner.size == 1 and winner.phrases is None:
        return None
    now = float(evaluator.hits(winner, split).mean())
    templates: tuple[float, ...] = ()
    if winner.size > 1:
        without = [float(evaluator.hits(winner.remove(t), split).mean()) for t in winner.templates]
        templates = tuple(round(now - hits, 6) for hits in without)
    classes: tuple[float | None, ...] = ()
    if winner.phrases is not None:
        own = tuple(((name, 1.0),) for name in evaluator.task.class_names)
        renamed = _hits_without(evaluator, winner, split).mean(axis=0)  # (C,)
        classes = tuple(
            None if said == name else round(now - float(hits), 6)
            for said, name, hits in zip(winner.phrases, own, renamed, strict=True)
        )
    return Gains(where, templates, classes)


def _hits_without(evaluator: Evaluator, winner: PromptSet, split: Split) -> np.ndarray:
    """Return (N, C) whether each picture is classified correctly if class c alone has its own name, not its phrases."""
    logits = split.features @ evaluator.class_weights(winner).T  # (N, C)
    plain = split.features @ evaluator.class_weights(winner.saying(None)).T  # (N, C)
    pictures, labels = np.arange(len(split)), split.labels
    true = logits[pictures, labels]
    # Only column c of the logits changes, so the best class besides c and the true one is among the three largest.
    most = min(3, logits.shape[1])
    top = np.argpartition(-logits, most - 1, axis=1)[:, :most]  # (N, 3)
    of_top = np.where(top == labels[:, None], -np.inf, np.take_along_axis(logits, top, 1))  # (N, 3)
    hits = np.empty(logits.shape, bool)
    for c in range(logits.shape[1]):
        rival = np.where(top == c, -np.inf, of_top).max(axis=1)  # (N,)
        rival = np.where(labels == c, rival, np.maximum(rival, plain[:, c]))
        hits[:, c] = np.where(labels == c, plain[:, c], true) > rival
    return hits


#: Largest number of pictures listed in each direction (gained, lost); the counts are always complete.
FLIPS = 200


def build_details(
    class_names: Sequence[str], test: Split, before: np.ndarray, after: np.ndarray, baseline: str = "hand-written"
) -> dict[str, Any]:
    """Summarise the predictions on the test split, so that a report need not open it again.

    Args:
        class_names: The C class names.
        test: The test split, N pictures.
        before: (N,) class index predicted by the baseline for each picture.
        after: (N,) class index predicted by the winner for each picture.
        baseline: Name of the baseline.

    Returns:
        A JSON-serialisable dict with `classes`; `pictures`, the number N; `confusion`, which lists for "before" and
        "after" the non-zero entries [true class, predicted class, pictures]; and `flips`, which gives for "gained"
        (wrong before, right after) and "lost" the `count` and up to `FLIPS` evenly spaced `pictures` as [index in
        the test split, true class, before, after].
    """
    labels = test.labels
    right, was = after == labels, before == labels
    return {
        "classes": list(class_names),
        "pictures": len(labels),
        "baseline": baseline,
        "confusion": {"before": _counts(labels, before), "after": _counts(labels, after)},
        "flips": {
            "gained": _flips(test, before, after, np.flatnonzero(right & ~was)),
            "lost": _flips(test, before, after, np.flatnonzero(was & ~right)),
        },
    }


def confusion_matrix(details: dict[str, Any], which: str) -> np.ndarray:
    """Return a confusion matrix.

    Args:
        details: What `build_details` returned.
        which: "before" for the baseline or "after" for the winner.

    Returns:
        (C, C) number of pictures by true class (row) and predicted class (column).
    """
    matrix = np.zeros((len(details["classes"]),) * 2, np.int64)
    for true, predicted, n in details["confusion"][which]:
        matrix[true, predicted] = n
    return matrix


def _counts(labels: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    pairs, counts = np.unique(np.column_stack([labels, predicted]), axis=0, return_counts=True)
    return [[int(t), int(p), int(n)] for (t, p), n in zip(pairs, counts, strict=True)]


def _flips(test: Split, before: np.ndarray, after: np.ndarray, at: np.ndarray) -> dict[str, Any]:
    some = at if len(at) <= FLIPS else at[np.linspace(0, len(at) - 1, FLIPS).round().astype(int)]
    rows = [[int(test.indices[i]), int(test.labels[i]), int(before[i]), int(after[i])] for i in some]
    return {"count": len(at), "pictures": rows}


#: Number of best prompt sets besides the winner in a result.
RUNNERS_UP = 4

#: Searchers that an estimate does not repeat: fitting a sampler's model in every fold would take too long.
NOT_REPEATED = ("tpe",)


class TestSplitWarning(PromptSearchWarning):
    """The test split was opened for more than one winner."""

    __test__ = False  # otherwise pytest collects the class as a test


@dataclass(frozen=True)
class LanguageTools:
    """Functions that open the language models of a run when they are first needed.

    Attributes:
        writer: Opens the model that writes prompts.
        rater: Opens the model that rates them.
    """

    writer: Callable[[], AskedModel] | None = None
    rater: Callable[[], Rater] | None = None


def _never_interrupted() -> contextlib.AbstractContextManager[Callable[[], bool]]:
    return contextlib.nullcontext(never)


@dataclass(frozen=True)
class Watch:
    """How to report the progress of a search, and how to interrupt it.

    Attributes:
        progress: Called with (done, total, what is being done).
        interruptible: Returns a context that is active during the search, entered with a function that the search calls
            between batches and that returns whether to stop.
    """

    progress: Progress = no_progress
    interruptible: Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]] = _never_interrupted


@dataclass(frozen=True)
class Job:
    """Everything that one search on one draw of pictures depends on.

    Attributes:
        problem: The model and the pictures.
        evaluator: Scores prompt sets on the drawn pictures.
        bank: The bank to search.
        config: The configuration of the search.
        start: Prompt sets to score first.
        language: The language models, if there are any.
        budget: The limits of the search.
        watch: How to report progress and interrupt the search.
    """

    problem: Problem
    evaluator: Evaluator
    bank: Bank
    config: SearchConfig
    start: tuple[PromptSet, ...] = ()
    language: LanguageTools = LanguageTools()
    budget: Budget = Budget()
    watch: Watch = Watch()

    @property
    def by_trials(self) -> bool:
        """Whether the searcher works in trials: each prompt set is one trial, and the budget counts them."""
        return isinstance(build_searcher(self.config.searcher, self.bank, self.config.builder_options()), TrialSearcher)

    def searcher(self, bank: Bank | None = None, *, worker: int = 0, journal: Journal | None = None) -> Searcher:
        """Return a new searcher, ready to search.

        Args:
            bank: The bank to search; by default the job's own.
            worker: Number of this process among those that share the run.
            journal: Records the replies of a language model; by default in memory.
        """
        searcher = build_searcher(self.config.searcher, bank or self.bank, self.config.builder_options())
        if isinstance(searcher, TrialSearcher):
            searcher.start, searcher.worker, searcher.total = self.start, worker, self.budget.trials
        if isinstance(searcher, WritingSearcher):
            searcher.equip(writing_tools(self.evaluator, self.problem.encoder, **self._proposer(searcher, journal)))
        return searcher

    def _proposer(self, searcher: TrialSearcher, journal: Journal | None) -> dict[str, Any]:
        """Return the searcher's arguments for its proposer, and for the journal in which its replies are recorded."""
        kept: dict[str, Any] = {"journal": Memory() if journal is None else journal}
        if self.language.writer is not None:
            model, names = self.language.writer(), self.evaluator.task.class_names
            proposer: Proposer = LanguageProposer(model, names)
            if self.config.options.get("proposer") == "fill" and isinstance(model, GapModel):
                proposer = FillProposer(model, names)
            return {**kept, "proposer": proposer, "usage": lambda: model.usage}
        if (name := self.config.options.get("proposer", "grammar")) not in ("grammar", "lm"):
            return {**kept, "proposer": PROPOSERS[name](searcher.space)}
        return kept


@dataclass(frozen=True)
class Begun:
    """An estimate that other processes have begun with; see `begin_estimate`.

    Attributes:
        config: The configuration of the search.
        evaluator: Scores prompt sets on the drawn pictures.
        folds: The folds of the estimate.
        started: When they were begun, by `time.perf_counter`.
    """

    config: SearchConfig
    evaluator: Evaluator
    folds: Folds
    started: float


@contextlib.contextmanager
def begin_estimate(problem: Problem, bank: Bank, config: SearchConfig) -> Iterator[Begun | None]:
    """Let other processes begin with the folds of an estimate, before the record is opened and the search begins.

    They can if the searcher works in rounds, because it is repeated from its beginning in every fold, and if the model
    is not needed, because all texts are cached.

        with begin_estimate(problem, bank, config) as begun:
            record = open_run(problem, bank, config)
            result = run_search(problem, bank, record, begun=begun)

    Args:
        problem: The model and the pictures.
        bank: The bank to search.
        config: The configuration of the search.

    Yields:
        What was begun, for `run_search`; None if the folds have to wait.
    """
    templates = (BASELINE, *bank.templates)
    by_trials = isinstance(build_searcher(config.searcher, bank, config.builder_options()), TrialSearcher)
    if (
        by_trials
        or not config.shots
        or config.fluency is not None
        or bank.class_names
        or not may_fork()
        or not problem.encoder.has_cached([t.fill(name) for t in templates for name in problem.source.class_names])
    ):
        yield None
        return
    started = time.perf_counter()
    evaluator = problem.evaluator(problem.task(config.shots, config.seed, config.unlabelled))
    job = Job(problem, evaluator, bank, config)
    searcher = job.searcher()
    selection, repeat = _choice(job, searcher)
    if by_vote(selection):
        yield None
        return
    prepare(searcher, evaluator)
    evaluator.score([PromptSet.of(t) for t in bank.templates])  # what the search begins with: all processes share it
    with Folds(ways(selection), repeat) as folds:
        folds.start()
        yield Begun(config, evaluator, folds, started)


def run_search(
    problem: Problem,
    bank: Bank,
    record: Record,
    *,
    language: LanguageTools = LanguageTools(),
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    watch: Watch = Watch(),
    estimate: bool = True,
    begun: Begun | None = None,
) -> RunResult:
    """Search, choose the winner, estimate its accuracy, test it once, and record the result.

        record = open_run(problem, bank, SearchConfig(shots=16))
        result = run_search(problem, bank, record)
        print(result.winner.templates, result.winner.test)

    An interrupted run is resumed; if the budget of a run is spent, its recorded result is returned. If another process
    leads the run, this one joins it as a worker and returns the same result, or waits for it if the search works
    in rounds.

    Args:
        problem: The model and the pictures.
        bank: The bank to search.
        record: The run, with its configuration.
        language: The language models that write or rate prompts.
        budget: The limits of a search by trials.
        watch: How to report progress and interrupt the search.
        estimate: Whether to estimate the winner's accuracy by repeating search and choice in folds.
        begun: What `begin_estimate` has begun with before the record was opened, if it could.

    Returns:
        The result, as it is recorded.

    Raises:
        InputError: An option does not fit the problem.
        Interrupted: `watch` stopped the search; the same call resumes it.
        PromptSearchError: The run cannot be recorded, or no prompt set was scored.
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        worker = 0
        if not shareable(record, bank):
            stack.enter_context(lead(record, watch.progress))
        elif not stack.enter_context(record.leading()):
            worker = 1 + secrets.randbelow(2**31 - 1)
        if (known := finished(record, bank, budget)) is not None:
            return known
        evaluator, folds = None, None
        if begun is not None and begun.config == record.config.search:  # the options of a run can be others
            evaluator, folds, started = begun.evaluator, begun.folds, begun.started
        job = open_job(problem, bank, record, language, budget, watch, evaluator)
        searcher, outcome = search_job(job, record, worker)
        if worker:
            stack.enter_context(lead(record, watch.progress))
            if (known := finished(record, bank, budget)) is not None:
                return known
        return conclude(job, record, searcher, outcome, started, estimate=estimate, folds=folds)


@contextlib.contextmanager
def lead(record: Record, progress: Progress) -> Iterator[None]:
    """Lead a run while the `with` block runs; if another process leads it, wait until that one ends.

    Args:
        record: The run.
        progress: Called if this process has to wait.
    """
    while True:
        with record.leading() as ours:
            if ours:
                yield
                return
        progress(0, 0, "waiting for another process of this run")
        time.sleep(LOOK)


def conclude(
    job: Job,
    record: Record,
    searcher: Searcher,
    outcome: Outcome,
    started: float,
    *,
    estimate: bool = True,
    folds: Folds | None = None,
) -> RunResult:
    """Choose the winner of a search, estimate its accuracy, test it once, and record the result.

    Args:
        job: The search.
        record: The run.
        searcher: The searcher after the search.
        outcome: The prompt sets that the search found.
        started: When this process began with the run, by `time.perf_counter`.
        estimate: Whether to estimate the winner's accuracy by repeating search and choice in folds.
        folds: The folds of the estimate, if `begin_estimate` has begun with them.

    Returns:
        The result, as it is recorded.

    Raises:
        PromptSearchError: The run cannot be recorded.
    """
    problem, bank = job.problem, job.bank
    baselines = standard_baselines(bank, searcher, job.evaluator)
    chosen, expected = choose_winner(job, searcher, outcome, estimate, folds)
    tested = test_once(job, record, chosen.prompt_set, baselines)
    proposals = searcher.reported() if isinstance(searcher, WritingSearcher) else None
    result = RunResult(
        **headline(record),
        **tested,
        runners_up=runners_up(outcome, chosen.prompt_set),
        evaluations=outcome.evaluations,
        seconds=time.perf_counter() - started,
        trials=len(record.trials()),
        ended=outcome.ended,
        selection=describe_choice(chosen, expected),
        estimate=expected,
        calibration=calibrate(job.evaluator, chosen.prompt_set),
        front=pareto_front(outcome, searcher) if job.config.fluency and job.config.fluency.pareto else None,
        proposals=proposals,
        classes=problem.source.class_names,
        notes=(*problem.notes, *notes_on(job, outcome, len(record.trials())), *answers_without_text(proposals)),
    )
    document = result.to_dict()
    record.finish(document)
    return RunResult.from_dict(document)  # read back, so that a new result equals a recorded one


def finished(record: Record, bank: Bank, budget: Budget) -> RunResult | None:
    """Return the recorded result of a run, or None if the run is not finished within its budget.

    Args:
        record: The run.
        bank: Its bank.
        budget: The limits of the search; a larger number of trials continues a finished run.
    """
    result = record.result
    if result is None:
        return None
    known = RunResult.from_dict(result)
    searcher = build_searcher(record.config.command, bank, record.config.search.builder_options())
    if not isinstance(searcher, TrialSearcher) or known.ended == "exhausted":
        return known
    spent = budget.trials is not None and len(record.trials()) >= budget.trials
    return known if spent else None


def open_job(
    problem: Problem,
    bank: Bank,
    record: Record,
    language: LanguageTools,
    budget: Budget,
    watch: Watch,
    evaluator: Evaluator | None = None,
) -> Job:
    """Draw the pictures of a run, record which were drawn, and return its search.

    Args:
        problem: The model and the pictures.
        bank: The bank to search.
        record: The run, with its configuration.
        language: The language models that write or rate prompts.
        budget: The limits of the search.
        watch: How to report progress and interrupt the search.
        evaluator: An evaluator on the run's pictures, if they were drawn before.

    Raises:
        InputError: The run needs a language model that `language` does not have, or the pictures cannot be drawn.
    """
    config = record.config.search
    if config.writer is not None and language.writer is None:
        raise InputError(f"run {record.name!r} needs the language model {config.writer.lm}; pass it as `language`")
    if evaluator is None:
        task = problem.task(config.shots, config.seed, config.unlabelled)
        fluency = None
        if config.fluency is not None and language.rater is not None:
            rater = language.rater()
            fluency = Fluency(rater.log_likelihood, problem.cache, dict(rater.key), task.class_names)
        evaluator = problem.evaluator(task, fluency)
    if record.get("draw") is None:
        record.set("draw", drawn(evaluator.task))
    start = tuple(PromptSet.from_dict(s) for s in record.get("start") or [])
    return Job(problem, evaluator, bank, config, start, language, budget, watch)


def drawn(task: Task) -> dict[str, list[int]]:
    """Return the indices of the drawn pictures, as a run records them."""
    return {"support": task.support.indices.tolist(), "validation": task.validation.indices.tolist()}


def search_job(job: Job, record: Record | None = None, worker: int = 0) -> tuple[Searcher, Outcome]:
    """Search until the budget is spent, resuming the run if there is a record of it.

    Args:
        job: The search.
        record: The run; None records nothing.
        worker: Number of this process, if another one leads the run.

    Returns:
        The searcher after the search, and what it found.

    Raises:
        Interrupted: `job.watch` stopped the search.
    """
    searcher = job.searcher(worker=worker, journal=None if record is None else StudyJournal(record))
    with job.watch.interruptible() as stopping:
        outcome = search(searcher, job.evaluator, record, job.watch.progress, job.budget, stopping)
    if outcome.ended == "interrupted":
        assert record is not None  # only a recorded run can be stopped
        raise Interrupted(record.name, len(record.trials()), job.budget.trials)
    return searcher, outcome


def _choice(job: Job, searcher: Searcher, outcome: Outcome | None = None) -> tuple[Selection, Repeat]:
    """Return how the winner of a search is chosen, and what repeats the search."""
    # repeating the search would ask the model again
    asks = isinstance(searcher, WritingSearcher) and searcher.tools.proposer is not None
    once = job.config.searcher in NOT_REPEATED or asks
    method = job.config.select or "none"
    return (
        Selection(method, job.bank, searcher.objective, job.config.seed, whole=not job.by_trials),
        Repeat(
            None if once else job.searcher,
            job.bank,
            job.evaluator,
            found=() if outcome is None else tuple(s for s, _ in outcome.ranked),
            trials=outcome.evaluations if outcome is not None and job.by_trials else None,
        ),
    )


def choose_winner(
    job: Job, searcher: Searcher, outcome: Outcome, estimate: bool = True, folds: Folds | None = None
) -> tuple[Selected, Estimate | None]:
    """Choose the winner among the prompt sets found, on the few-shot pictures; see `settle`.

    Args:
        job: The search.
        searcher: The searcher after the search.
        outcome: The prompt sets that the search found.
        estimate: Whether to estimate the winner's accuracy, and to keep the hand-written prompt if that does better.
        folds: The folds of the estimate, if `begin_estimate` has begun with them.

    Returns:
        The winner, and the estimate of its accuracy; None without labels or with `estimate=False`.
    """
    selection, repeat = _choice(job, searcher, outcome)
    job.watch.progress(0, 0, "choosing the winner")
    if not estimate:
        return selection.choose(job.evaluator, outcome.ranked, repeat), None
    return settle(selection, repeat, outcome.ranked, job.watch.progress, folds)


def test_once(job: Job, record: Record, winner: PromptSet, baselines: dict[str, PromptSet]) -> dict[str, Any]:
    """Open the test split, if there is one, and measure the winner and the baselines on it.

    Args:
        job: The search.
        record: The run; a summary of the test predictions is recorded as its `details`.
        winner: The chosen prompt set.
        baselines: Prompt sets to compare it with, by name; one is called "hand-written".

    Returns:
        The fields of a `RunResult` for the winner, the baselines and the test.
    """
    evaluator = job.evaluator
    if not job.problem.source.has_test:
        rows = [Row.of(s, evaluator.score([s])[0], name=name) for name, s in {"": winner, **baselines}.items()]
        few, labelled = evaluator.task.support, evaluator.task.labelled
        gains = measure_gains(evaluator, winner, few, "few-shot") if labelled else None
        return {"winner": rows[0], "baselines": tuple(rows[1:]), "gains": gains}
    test, opened, choices = open_test(record, evaluator.task, winner.key, job.watch.progress)
    plain = baselines["hand-written"]
    before, after = (evaluator.predictions(s, test) for s in (plain, winner))
    record.set("details", build_details(evaluator.task.class_names, test, before, after))
    return {
        "winner": test_row(evaluator, winner, test),
        "baselines": tuple(test_row(evaluator, s, test, name=name) for name, s in baselines.items()),
        "paired": compare_on(evaluator, test, winner, plain),
        "gains": measure_gains(evaluator, winner, test, "test"),
        "test_pictures": len(test),
        "test_opened": opened,
        "test_choices": choices,
    }


def open_test(record: Record, task: Task, choice: str, progress: Progress) -> tuple[Split, int, int]:
    """Open the test split for a winner, and record that.

    Warns with `TestSplitWarning` if the run opened the split for another winner before.

    Args:
        record: The run.
        task: The draw of pictures.
        choice: Key of the winner.
        progress: Called with (done, total, what is being done).

    Returns:
        The split, the number of times that this run has opened it, and the number of different winners.

    Raises:
        PromptSearchError: The test split of this task was opened before.
    """
    kept = record.get("test_opened") or []
    times = [kept] if isinstance(kept, str) else list(kept)
    choices = list(record.get("test_choices") or [])
    record.set("test_choices", [*choices, choice])
    record.set("test_opened", [*times, now()])
    if set(choices) - {choice}:
        warnings.warn(
            f"the test split was opened for run {record.name!r} before ({times[-1] if times else now()}), "
            "for another choice; a winner chosen by test accuracy has no valid test result",
            TestSplitWarning,
            stacklevel=2,
        )
    progress(0, 0, "opening the test split")
    return task.open_test(), len(times) + 1, len({*choices, choice})


def standard_baselines(bank: Bank, searcher: Searcher, evaluator: Evaluator) -> dict[str, PromptSet]:
    """Return the hand-written prompt, the bank's best template on the few-shot pictures, and the whole bank averaged.

    Args:
        bank: The bank.
        searcher: Ranks the templates by its objective.
        evaluator: Scores them.
    """
    singles = [PromptSet.of(t) for t in bank.templates]
    best = searcher.ranked(list(zip(singles, evaluator.score(singles), strict=True)))[0][0]
    return {
        "hand-written": PromptSet.of(BASELINE),
        "best single template": best,
        "whole bank averaged": PromptSet.of(*bank.templates),
    }


def test_row(evaluator: Evaluator, prompt_set: PromptSet, test: Split, name: str = "") -> Row:
    """Return a row with the few-shot scores of a prompt set, and its accuracy and other metrics on the test split.

    Args:
        evaluator: Scores the prompt set.
        prompt_set: The prompt set.
        test: The opened test split.
        name: Name of the row.
    """
    accuracy = wilson(int(evaluator.hits(prompt_set, test).sum()), len(test))
    report = evaluator.report(prompt_set, test)
    return Row.of(prompt_set, evaluator.score([prompt_set])[0], name=name, test=accuracy, report=report)


def compare_on(evaluator: Evaluator, test: Split, ours: PromptSet, theirs: PromptSet) -> Paired:
    """Return the paired comparison of two prompt sets on the test split."""
    return compare_paired(evaluator.hits(ours, test), evaluator.hits(theirs, test), evaluator.task.seed)


def headline(record: Record) -> dict[str, Any]:
    """Return the fields of a `RunResult` for the run's configuration and where it is recorded."""
    config = record.config
    return {
        "command": config.command,
        "model": config.model,
        "dataset": config.dataset,
        "bank": None if config.bank is None else config.bank.name,
        "shots": config.search.shots,
        "seed": config.search.seed,
        "objective": config.search.objective,
        "study": record.name,
        "storage": record.url,
        "version": __version__,
    }


def describe_choice(chosen: Selected, expected: Estimate | None) -> Choice:
    """Summarise the choice of the winner for a result: the method, the number of sets compared, each template's share.

    Args:
        chosen: The winner.
        expected: The estimate of its accuracy; it counts the folds that kept each template.
    """
    templates = chosen.prompt_set.templates
    shares = tuple(chosen.shares.get(t) for t in templates) if chosen.shares else None
    kept = None if expected is None else tuple(expected.kept.get(t, 0) for t in templates)
    return Choice(chosen.method, chosen.tried, chosen.scored, shares, kept, chosen.refused)


def runners_up(outcome: Outcome, winner: PromptSet) -> tuple[Row, ...]:
    """Return the best prompt sets found besides the winner, at most `RUNNERS_UP`."""
    return tuple(Row.of(s, v) for s, v in [r for r in outcome.ranked if r[0] != winner][:RUNNERS_UP])


def pareto_front(outcome: Outcome, searcher: Searcher) -> tuple[Row, ...]:
    """Return the Pareto front: the prompt sets that no other dominates in objective, fluency and number of words."""
    at = front([aims(s, v, searcher.objective) for s, v in outcome.ranked])
    return tuple(Row.of(*outcome.ranked[i], words=words(outcome.ranked[i][0])) for i in at)


def notes_on(job: Job, outcome: Outcome, trials: int) -> list[str]:
    """Return notes for the result: classes with few pictures, a search without labels, or one that ended early.

    Args:
        job: The search.
        outcome: The prompt sets that the search found.
        trials: Number of trials in the run.
    """
    config, total = job.config, job.budget.trials
    notes = [note] if (note := job.evaluator.task.imbalance()) else []
    if not job.evaluator.task.labelled:
        notes.append(
            f"No label was read: searched on {config.unlabelled} unlabelled training pictures by {config.objective}, "
            "which measures no accuracy. Only the labelled test split shows how good the winner is."
        )
    if outcome.ended == "exhausted" and total is not None and trials < total and job.by_trials:
        notes.append(f"The search ended after {trials} of {total} trials: the searcher proposed no new prompt sets.")
    return notes


def answers_without_text(proposals: Mapping[str, Any] | None) -> list[str]:
    """Return a note with the server's own words for each kind of answer without text: refused, tool call, no text."""
    said = (proposals or {}).get("said", {})
    counts = (proposals or {}).get("rejected", {})
    return [f"Answers of the language model without text, {why}: {counts.get(why, 0)} ({said[why]})." for why in said]


def join_search(
    problem: Problem,
    bank: Bank,
    record: RunRecord,
    worker: int,
    *,
    language: LanguageTools = LanguageTools(),
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    watch: Watch = Watch(),
) -> str:
    """Score trials of a run together with other processes, until all trials are done.

    Args:
        problem: The run's model and pictures, opened on this machine.
        bank: The run's bank.
        record: The run; its searcher must work in trials (see `shareable`).
        worker: A number that no other process of the run has.
        language: The language models that write or rate prompts.
        budget: The run's number of trials, and how long this process takes part.
        watch: How to report progress and interrupt the search.

    Returns:
        Why it ended: "trials", "timeout", "exhausted" or "interrupted".
    """
    job = open_job(problem, bank, record, language, budget, watch)
    searcher = job.searcher(worker=worker, journal=StudyJournal(record))
    assert isinstance(searcher, TrialSearcher)  # the caller has checked `shareable`
    prepare(searcher, job.evaluator)
    with watch.interruptible() as stopping:
        return Sharing(searcher, job.evaluator, record, budget, watch.progress, stopping).run()


def shareable(record: Record, bank: Bank) -> bool:
    """Return whether several processes can work on a run, which is so if its searcher works in trials.

    Args:
        record: The run.
        bank: Its bank.
    """
    config = record.config.search
    return isinstance(build_searcher(config.searcher, bank, config.builder_options()), TrialSearcher)
