"""The one way from a Searcher, an Evaluator and a record to an Outcome."""

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
    """Run a searcher until it ends or its budget is spent; with a record, from where it was left.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome.winner)

    A searcher depends on nothing but what it is told, so resuming is replaying: sets that are in the record are
    answered from it, the others are scored, and trials that are already there are not written again.

    Args:
        budget: for searchers whose every set is a trial; those that go by rounds have an end of their own.
        stopping: asked between batches (or rounds) whether to stop.

    Raises:
        PromptSearchError: the record cannot be written, or does not hold what the same search proposes (it was
            changed by something else), or nothing was scored.
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
        told = {s: _plain(v) for s, v in searcher.known.items()}
        curve, evaluations = _rising(searcher, told), len(told)
        if isinstance(record, MemoryRecord):
            record.add(told.items(), 0)
    if searcher.best is None:
        raise PromptSearchError("the search ended before it scored anything; give it a larger budget")
    best, score = searcher.best
    ranked = [(s, _plain(v)) for s, v in searcher.ranked(list(told.items()))]
    return Outcome((best, _plain(score)), ranked, evaluations, ended, curve)


def _rising(searcher: Searcher, told: dict[PromptSet, Score]) -> list[tuple[int, Score]]:
    """The best score after so many sets, wherever it became better."""
    curve: list[tuple[int, Score]] = []
    best: tuple[PromptSet, Score] | None = None
    for n, row in enumerate(told.items(), start=1):
        if best is None or searcher.rank_key(*row) < searcher.rank_key(*best):
            best = row
            curve.append((n, row[1]))
    return curve


def prepare(searcher: Searcher, evaluator: Evaluator) -> None:
    """Have the evaluator compute the figures that the searcher's objective goes by, and name it the task's classes.

    Raises:
        InputError: they need labels and the pictures have none.
    """
    objective = searcher.objective
    if objective.labels and not evaluator.task.labelled:
        raise InputError(f"objective {objective.name!r} needs labelled pictures and this task has none")
    if searcher.bank is not None and searcher.bank.class_names:
        searcher.name_classes(evaluator.task.class_names)
    evaluator.require(objective.needs, () if searcher.bank is None else searcher.bank.templates)


def writing_tools(evaluator: Evaluator, encoder: Encoder, **more: Any) -> Tools:
    """What a writing searcher asks of the model that is prompted.

    Args:
        more: who writes, what that costs and where replies are kept (see `Tools`).
    """
    names = evaluator.task.class_names

    def vectors(sets: Sequence[PromptSet]) -> np.ndarray:
        """(n, C D): all classes' unit weights behind one another, of unit length together."""
        return np.stack([evaluator.class_weights(s).reshape(-1) for s in sets]) / len(names) ** 0.5

    def fits(templates: Sequence[Template]) -> list[bool]:
        return [encoder.fits([t.fill(n) for n in names]) for t in templates]

    return Tools(class_names=names, vectors=vectors, fits=fits, **more)


def _plain(score: object) -> Score:
    assert isinstance(score, Score)  # searchers hand back what they were told
    return score


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
    """Searchers that record a part of each batch: (what was recorded, sets scored and the best after each round,
    why it ended)."""
    recorded = record.trials() if record else []
    known = dict(recorded)
    written = evaluations = 0
    told: dict[PromptSet, Score] = {}
    curve: list[tuple[int, Score]] = []
    step = scored = 0
    started = time.monotonic()
    while batch := searcher.ask():
        fresh = [s for s in batch if s not in known]
        scores = dict(zip(fresh, evaluator.score(fresh), strict=True))
        results = [(s, known.get(s) or scores[s]) for s in batch]
        searcher.tell(results)
        evaluations, scored = evaluations + len(batch), scored + len(fresh)
        assert searcher.best is not None  # something was told
        curve.append((evaluations, _plain(searcher.best[1])))
        answered = dict(results)
        keep = [(s, answered[s]) for s in searcher.record()]
        for (s, _), (old, _) in zip(keep, recorded[written:], strict=False):
            if s != old:
                raise PromptSearchError(
                    f"trial {written} of run {record.name if record else ''!r} is not what this search proposes: "
                    "the record was changed; begin anew with another --study"
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
