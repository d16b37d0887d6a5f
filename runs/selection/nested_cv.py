"""What the winner is worth on new pictures, said before the test split is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from promptsearch.banks import BASELINE, PromptSet, Template
from promptsearch.evaluators import Interval, mid_p
from promptsearch.evaluators.stats.paired import Paired, compare_paired
from promptsearch.runs.selection.rerun import Repeat
from promptsearch.runs.selection.resampling import folds, refilled
from promptsearch.runs.selection.select import Selected, Selection, vote

#: Folds of a nested estimate: ten, or five where a fold holds so many pictures that ten would be no better.
FOLDS, MANY = 10, 100
#: Ways to estimate.
NESTED, OUT_OF_BAG = "nested", "out-of-bag"


@dataclass(frozen=True)
class Estimate:
    """Accuracy of choices, by search and all, on pictures that had no part in them.

    Attributes:
        accuracy: on pictures outside, with the mid-P interval.
        naive: the winner's accuracy on the very pictures it was chosen by.
        against: the same pictures outside, compared with the hand-written prompt.
        kept: for every template of the repeated winners, in how many of the folds (or resamplings) it was chosen.
        folds: how many there were.
        repeated: whether the search itself was repeated, or only the choice among what it found.
        way: `NESTED` or `OUT_OF_BAG`.
    """

    accuracy: Interval
    naive: float
    against: Paired
    kept: dict[Template, int]
    folds: int
    repeated: bool
    way: str = NESTED

    def to_dict(self) -> dict[str, Any]:
        """The `estimate` of a result document, without `kept`."""
        data: dict[str, Any] = {**self.accuracy.to_dict("accuracy"), "naive": round(self.naive, 6), "way": self.way}
        data |= {"folds": self.folds, "search_repeated": self.repeated}
        return data | {"against": {"baseline": "hand-written", **self.against.to_dict()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimate:
        """Read what `to_dict` gave."""
        accuracy, against = Interval.from_dict(data, "accuracy"), Paired.from_dict(data["against"])
        way = data.get("way", NESTED)
        return cls(accuracy, data["naive"], against, {}, data["folds"], data["search_repeated"], way)


Steps = Callable[[int, int, str], None]


def judge(selection: Selection, repeat: Repeat, chosen: Selected, progress: Steps | None = None) -> Estimate:
    """The estimate of a choice: by its own bags where it has some, else nested.

    Class names are chosen after the vote, on all pictures: with other names in the bank the estimate is nested.
    """
    if chosen.bags and not selection.bank.class_names:
        return out_of_bag(selection, repeat, chosen)
    return nested(selection, repeat, chosen.score.accuracy, progress)


def out_of_bag(selection: Selection, repeat: Repeat, chosen: Selected) -> Estimate:
    """Judge every picture by the vote of the resampled searches that had not seen it (Breiman 1996).

    Nothing is searched again.  The few pictures that every resampling has seen are left out.
    """
    evaluator = repeat.evaluator
    support = evaluator.task.support
    unseen = np.zeros((len(support), len(chosen.bags)), bool)  # (pictures, bags)
    for b, (outside, _) in enumerate(chosen.bags):
        unseen[outside, b] = True
    judged = np.flatnonzero(unseen.any(axis=1))
    hits = np.zeros(len(judged), bool)
    for i, picture in enumerate(judged):
        winners = [chosen.bags[b][1] for b in np.flatnonzero(unseen[picture])]
        hits[i] = evaluator.hits(vote(winners, evaluator).prompt_set, support.part(np.array([picture])))[0]
    theirs = evaluator.hits(PromptSet.of(BASELINE), support.part(judged))
    kept: dict[Template, int] = {}
    for t in (t for _, winner in chosen.bags for t in winner.templates):
        kept[t] = kept.get(t, 0) + 1
    accuracy = mid_p(int(hits.sum()), len(hits))
    against = compare_paired(hits, theirs, selection.seed)
    repeated = repeat.fresh is not None
    return Estimate(accuracy, chosen.score.accuracy, against, kept, len(chosen.bags), repeated, OUT_OF_BAG)


def nested(selection: Selection, repeat: Repeat, naive: float, progress: Steps | None = None) -> Estimate:
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
        inner = replace(repeat, evaluator=part)
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
