"""The one loop that joins a Searcher, an Evaluator and a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.banks import PromptSet
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Evaluator, Progress, Score, no_progress
from promptsearch.search import Searcher

if TYPE_CHECKING:
    from promptsearch.runs.record import RunRecord


@dataclass(frozen=True)
class Outcome:
    """What a search found: the winner, what was recorded (best first), and how many sets were scored."""

    winner: tuple[PromptSet, Score]
    ranked: list[tuple[PromptSet, Score]]
    evaluations: int


def search(
    searcher: Searcher, evaluator: Evaluator, record: RunRecord | None = None, progress: Progress = no_progress
) -> Outcome:
    """Run a searcher to its end; with a record, from where it was left.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome.winner)

    A searcher depends on nothing but what it is told, so resuming is replaying: sets that are in the record are
    answered from it, the others are scored, and trials that are already there are not written again.

    Raises:
        PromptSearchError: the record does not hold what the same search proposes (it was changed by something else).
    """
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
            record.add(keep[max(0, len(recorded) - written) :], step)
        written += len(keep)
        told.update(keep)
        step += 1
        progress(step, 0, f"round {step}: {evaluations} sets scored")
    if searcher.best is None:
        raise PromptSearchError("the search ended before it scored anything; give it a larger budget")
    best, score = searcher.best
    ranked = [(s, Score(v.accuracy, v.xent)) for s, v in searcher.ranked(list(told.items()))]
    return Outcome((best, Score(score.accuracy, score.xent)), ranked, evaluations)
