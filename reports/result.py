"""The final JSON document of a run: the winner, the runners-up and the baselines, with their test accuracies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from promptsearch.banks import BASELINE, Bank, PromptSet
from promptsearch.evaluators import Evaluator, Score, Split, wilson
from promptsearch.evaluators.stats.paired import compare_paired
from promptsearch.runs import Outcome
from promptsearch.search import Objective, Searcher
from promptsearch.search.pareto import aims, front, words

#: Number of runners-up in the document.
RUNNERS_UP = 4


@dataclass(frozen=True)
class Baseline:
    """A prompt set that the winner is compared with."""

    name: str
    prompt_set: PromptSet


def standard_baselines(bank: Bank, searcher: Searcher, evaluator: Evaluator) -> list[Baseline]:
    """Return the baselines of a search.

    They are the hand-written prompt, the bank's best single template on the support set, and the average of the whole
    bank.

    Args:
        bank: The bank that was searched.
        searcher: Ranks the single templates.
        evaluator: Scores them on the support set.
    """
    singles = [PromptSet.of(t) for t in bank.templates]
    best = searcher.ranked(list(zip(singles, evaluator.score(singles), strict=True)))[0][0]
    return [
        Baseline("hand-written", PromptSet.of(BASELINE)),
        Baseline("best single template", best),
        Baseline("whole bank averaged", PromptSet.of(*bank.templates)),
    ]


def build_result(
    head: dict[str, Any],
    outcome: Outcome,
    baselines: list[Baseline],
    evaluator: Evaluator,
    test: Split,
    seconds: float,
) -> dict[str, Any]:
    """Build the document that `--json` prints, which has the same keys for every searcher.

    Args:
        head: Entries copied to the top of the document: model, dataset, shots, seed, run and so on.
        outcome: What the search returned.
        baselines: What the winner is compared with; the paired comparison is with the first.
        evaluator: Scores prompt sets on the support set and the test split.
        test: The opened test split.
        seconds: Duration of the search, in seconds.

    Returns:
        A JSON-serialisable document. Accuracies are fractions.
    """
    winner, score = outcome.winner
    rivals = [(s, v) for s, v in outcome.ranked if s != winner][:RUNNERS_UP]
    hits = evaluator.hits(winner, test)
    rows = []
    for b in baselines:
        base_hits = evaluator.hits(b.prompt_set, test)
        rows.append(
            {
                "name": b.name,
                **_set(b.prompt_set, evaluator.score([b.prompt_set])[0]),
                "test": _interval(wilson(int(base_hits.sum()), len(test)), "accuracy"),
            }
        )
    against = baselines[0]
    paired = compare_paired(hits, evaluator.hits(against.prompt_set, test), head.get("seed", 0))
    return {
        **head,
        "evaluations": outcome.evaluations,
        "seconds": round(seconds, 3),
        "winner": {**_set(winner, score), "test": _interval(wilson(int(hits.sum()), len(test)), "accuracy")},
        "runners_up": [_set(s, v) for s, v in rivals],
        "baselines": rows,
        "paired": {"baseline": against.name, **paired.to_dict()},
        "test_pictures": len(test),
    }


def front_rows(outcome: Outcome, objective: Objective) -> list[dict[str, Any]]:
    """Return the Pareto front of the objective, fluency and number of words.

    Args:
        outcome: What the search returned.
        objective: The objective of the search.
    """
    at = front([aims(s, v, objective) for s, v in outcome.ranked])
    return [{**_set(*outcome.ranked[i]), "words": words(outcome.ranked[i][0])} for i in at]


def _set(prompt_set: PromptSet, score: Score) -> dict[str, Any]:
    row: dict[str, Any] = {"templates": [str(t) for t in prompt_set.templates]}
    if prompt_set.weights is not None:
        row["weights"] = list(prompt_set.weights)
    if prompt_set.class_names is not None:
        row["class_names"] = list(prompt_set.class_names)
    row["support"] = {k: round(v, 6) for k, v in score.to_dict().items()}
    return row


def _interval(interval: Any, name: str) -> dict[str, float]:
    return {name: round(interval.value, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}
