"""The loop that connects a searcher, an evaluator and a record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Encoder, Evaluator, Progress, Score, no_progress
from promptsearch.runs.loop.outcome import Outcome
from promptsearch.runs.loop.shared_loop import Budget, Sharing, best_so_far, never
from promptsearch.runs.store.memory_record import MemoryRecord, Record
from promptsearch.search import Searcher, Tools, TrialSearcher

log = logging.getLogger(__name__)


def search(
    searcher: Searcher,
    evaluator: Evaluator,
    record: Record | None = None,
    progress: Progress = no_progress,
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    stopping: Callable[[], bool] = never,
) -> Outcome:
    """Run a searcher until it ends or its budget is spent.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome.winner)

    A recorded run is resumed by replaying it: recorded sets get their recorded scores, others are scored, and recorded
    trials are not written again.

    Args:
        searcher: Proposes sets.
        evaluator: Scores them.
        record: The run to resume and to record in; None to record nothing.
        progress: Called after each batch or round.
        budget: Limits for searchers that go by trials; those that go by rounds end by themselves.
        stopping: Called between batches or rounds; the search stops if it returns True.

    Returns:
        The result of the search.

    Raises:
        PromptSearchError: The record cannot be written or does not fit the search, or nothing was scored.
    """
    prepare(searcher, evaluator)
    ended = "exhausted"
    if not isinstance(searcher, TrialSearcher):
        told, curve, ended = _by_rounds(searcher, evaluator, record, progress, stopping)
        evaluations = curve[-1][0] if curve else 0
    else:
        if record is None or isinstance(record, MemoryRecord):
            ended = _in_memory(searcher, evaluator, budget, progress, stopping)
        else:
            ended = Sharing(searcher, evaluator, record, budget, progress, stopping).run()
        told = dict(searcher.known)
        curve, evaluations = _rising(searcher, told), len(told)
        if isinstance(record, MemoryRecord):
            record.add(told.items(), 0)
    if searcher.best is None:
        raise PromptSearchError("the search ended before anything was scored; increase --trials or --timeout")
    best, score = searcher.best
    ranked = searcher.ranked(list(told.items()))
    return Outcome((best, score), ranked, evaluations, ended, curve)


def _rising(searcher: Searcher, told: dict[PromptSet, Score]) -> list[tuple[int, Score]]:
    """Return (number of sets, best score) for each set that was better than all before it."""
    curve: list[tuple[int, Score]] = []
    best: tuple[PromptSet, Score] | None = None
    for n, row in enumerate(told.items(), start=1):
        if best is None or searcher.rank_key(*row) < searcher.rank_key(*best):
            best = row
            curve.append((n, row[1]))
    return curve


def prepare(searcher: Searcher, evaluator: Evaluator) -> None:
    """Tell the evaluator which metrics the searcher's objective needs, and the searcher the task's class names.

    Args:
        searcher: The searcher.
        evaluator: The evaluator.

    Raises:
        InputError: The objective needs labels and the pictures have none.
    """
    objective = searcher.objective
    if objective.labels and not evaluator.task.labelled:
        raise InputError(f"objective {objective.name!r} needs labelled pictures and this task has none")
    if searcher.bank is not None and searcher.bank.class_names:
        searcher.name_classes(evaluator.task.class_names)
    evaluator.require(objective.needs, () if searcher.bank is None else searcher.bank.templates)


def writing_tools(evaluator: Evaluator, encoder: Encoder, **more: Any) -> Tools:
    """Return the tools of a writing searcher that depend on the CLIP model.

    Args:
        evaluator: Gives class weights.
        encoder: Tells whether a text fits into the model's context.
        **more: Other fields of `Tools`.
    """
    names = evaluator.task.class_names

    def vectors(sets: Sequence[PromptSet]) -> np.ndarray:
        """Return (n, C D) vectors of unit length: the concatenated class weights of n sets."""
        return np.stack([evaluator.class_weights(s).reshape(-1) for s in sets]) / len(names) ** 0.5

    def fits(templates: Sequence[Template]) -> list[bool]:
        return [encoder.fits([t.fill(n) for n in names]) for t in templates]

    return Tools(class_names=names, vectors=vectors, fits=fits, **more)


def _in_memory(
    searcher: TrialSearcher, evaluator: Evaluator, budget: Budget, progress: Progress, stopping: Callable[[], bool]
) -> str:
    searcher.total = budget.trials
    started = time.monotonic()
    while budget.trials is None or searcher.trials < budget.trials:
        batch = searcher.ask()
        if not batch:
            return "exhausted"
        batch = batch[: None if budget.trials is None else budget.trials - searcher.trials]
        fresh = [s for s in batch if s not in searcher.known]
        scores = {**searcher.known, **dict(zip(fresh, evaluator.score(fresh) if fresh else [], strict=True))}
        searcher.tell([(s, scores[s]) for s in batch])
        progress(searcher.trials, budget.trials or 0, best_so_far(searcher, evaluator.task.labelled))
        if stopping():
            return "interrupted"
        if budget.timeout is not None and time.monotonic() - started >= budget.timeout:
            return "timeout"
    return "trials"


def _by_rounds(
    searcher: Searcher,
    evaluator: Evaluator,
    record: Record | None,
    progress: Progress,
    stopping: Callable[[], bool],
) -> tuple[dict[PromptSet, Score], list[tuple[int, Score]], str]:
    """Run a searcher that goes by rounds and records a part of each.

    Returns:
        The recorded sets and scores, (number of sets scored, best score) after each round, and why the search ended.
    """
    recorded = record.trials() if record else []
    known = dict(recorded)
    written = evaluations = 0
    told: dict[PromptSet, Score] = {}
    curve: list[tuple[int, Score]] = []
    step = scored = 0
    started = time.monotonic()
    while batch := searcher.ask():
        fresh = [s for s in batch if s not in known] if known else batch
        scores = iter(evaluator.score(fresh))
        results = [(s, known.get(s) or next(scores)) for s in batch] if known else list(zip(batch, scores, strict=True))
        searcher.tell(results)
        evaluations, scored = evaluations + len(batch), scored + len(fresh)
        assert searcher.best is not None  # something was told
        curve.append((evaluations, searcher.best[1]))
        answered = dict(results)
        keep = [(s, answered[s]) for s in searcher.record()]
        for (s, _), (old, _) in zip(keep, recorded[written:], strict=False):
            if s != old:
                raise PromptSearchError(
                    f"trial {written} of run {record.name if record else ''!r} is not the one that this search "
                    "proposes, so the record was changed; start a new run with another --study"
                )
        if record:
            record.add(keep[max(0, len(recorded) - written) :], step, evaluations)
        written += len(keep)
        told.update(keep)
        step += 1
        log.debug("round %d: %d sets scored, %d kept, best %s", step, len(batch), len(keep), keep[0][0] if keep else "")
        rate = scored / max(time.monotonic() - started, 1e-9)
        figures = best_so_far(searcher, evaluator.task.labelled)
        progress(step, searcher.rounds or 0, f"{figures}; {rate:.0f} sets/s")
        if stopping():
            return told, curve, "interrupted"
    return told, curve, "exhausted"
