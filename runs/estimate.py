"""What the winner is worth on new pictures, said before the test split is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptsearch.banks import BASELINE, PromptSet, Template
from promptsearch.evaluators import Interval, mid_p
from promptsearch.evaluators.paired import Paired, compare_paired
from promptsearch.runs.repeat import Repeat
from promptsearch.runs.resampling import folds, refilled
from promptsearch.runs.selection import Selection

#: Folds of a nested estimate: ten, or five where a fold holds so many pictures that ten would be no better.
FOLDS, MANY = 10, 100


@dataclass(frozen=True)
class Estimate:
    """Accuracy by nested cross-validation: the whole search and selection repeated without the pictures judged by.

    Attributes:
        accuracy: on pictures outside, with the mid-P interval.
        naive: the winner's accuracy on the very pictures it was chosen by.
        against: the same pictures outside, compared with the hand-written prompt.
        kept: for every template of the repeated winners, in how many of the folds it was chosen.
        repeated: whether the search itself was repeated, or only the choice among what it found.
    """

    accuracy: Interval
    naive: float
    against: Paired
    kept: dict[Template, int]
    folds: int
    repeated: bool


def nested(
    selection: Selection, repeat: Repeat, naive: float, progress: Callable[[int, int, str], None] | None = None
) -> Estimate:
    """Repeat search and selection in every fold and judge by what is outside (Varma and Simon 2006).

    No picture has a part in the choice that it judges; each choice is by as many pictures as the run's own, as many of
    every class.
    """
    evaluator = repeat.evaluator
    support = evaluator.task.support
    parts = folds(support.labels, FOLDS if len(support) <= MANY else FOLDS // 2, selection.seed)
    hits = np.zeros(len(support), bool)
    theirs = np.zeros(len(support), bool)
    kept: dict[Template, int] = {}
    for i, drawn in enumerate(parts):
        inside, outside = refilled(drawn, support.labels, selection.seed)
        part, found = repeat.on(inside)
        inner = Repeat(repeat.fresh, part, repeat.found, repeat.trials)
        chosen = selection.choose(part, found, inner).prompt_set
        judged = support.part(outside)
        hits[outside] = evaluator.hits(chosen, judged)
        theirs[outside] = evaluator.hits(PromptSet.of(BASELINE), judged)
        for t in chosen.templates:
            kept[t] = kept.get(t, 0) + 1
        if progress is not None:
            progress(i + 1, len(parts), "repeating the search")
    accuracy = mid_p(int(hits.sum()), len(hits))
    against = compare_paired(hits, theirs, selection.seed)
    return Estimate(accuracy, naive, against, kept, len(parts), repeat.fresh is not None)
