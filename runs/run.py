"""The one way from a Searcher, an Evaluator and a record to an Outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.banks import PromptSet
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Evaluator, Progress, Score, no_progress
from promptsearch.runs.share import Budget, Sharing, never
from promptsearch.search import Searcher, TrialSearcher

if TYPE_CHECKING:
    from promptsearch.runs.record import RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a search found: the winner, what was recorded (best first), how many sets were scored, and why it ended."""

    winner: tuple[PromptSet, Score]
    ranked: list[tuple[PromptSet, Score]]
    evaluations: int
    ended: str = "exhausted"


def search(
    searcher: Searcher,
    evaluator: Evaluator,
    record: RunRecord | None = None,
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
        stopping: asked between batches whether to stop.

    Raises:
        PromptSearchError: the record cannot be written, or does not hold what the same search proposes (it was
            changed by something else), or nothing was scored.
    """
    ended = "exhausted"
    if not isinstance(searcher, TrialSearcher):
        told, evaluations = _by_rounds(searcher, evaluator, record, progress)
    else:
        if record is None:
            ended = _in_memory(searcher, evaluator, budget)
        else:
            ended = Sharing(searcher, evaluator, record, budget, progress, stopping).run()
        told = {s: _plain(v) for s, v in searcher.known.items()}
        evaluations = len(told)
    if searcher.best is None:
        raise PromptSearchError("the search ended before it scored anything; give it a larger budget")
    best, score = searcher.best
    ranked = [(s, _plain(v)) for s, v in searcher.ranked(list(told.items()))]
    return Outcome((best, _plain(score)), ranked, evaluations, ended)


def _plain(score: object) -> Score:
    assert isinstance(score, Score)  # searchers hand back what they were told
    return score


def _in_memory(searcher: TrialSearcher, evaluator: Evaluator, budget: Budget) -> str:
    while budget.trials is None or searcher.trials < budget.trials:
        batch = searcher.ask()
        if not batch:
            return "exhausted"
        batch = batch[: None if budget.trials is None else budget.trials - searcher.trials]
        fresh = [s for s in batch if s not in searcher.known]
        scores = {**searcher.known, **dict(zip(fresh, evaluator.score(fresh) if fresh else [], strict=True))}
        searcher.tell([(s, scores[s]) for s in batch])
    return "trials"


def _by_rounds(
    searcher: Searcher, evaluator: Evaluator, record: RunRecord | None, progress: Progress
) -> tuple[dict[PromptSet, Score], int]:
    """Searchers that record a part of each batch: (what was recorded, how many sets were scored)."""
    recorded = record.trials() if record else []
    known = dict(recorded)
    written = evaluations = 0
    told: dict[PromptSet, Score] = {}
    step = 0
    while batch := searcher.ask():
        fresh = [s for s in batch if s not in known]
        scores = dict(zip(fresh, evaluator.score(fresh), strict=True))
        results = [(s, known.get(s) or scores[s]) for s in batch]
        searcher.tell(results)
        evaluations += len(batch)
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
        progress(step, 0, f"round {step}: {evaluations} sets scored")
    return told, evaluations
