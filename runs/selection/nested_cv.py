"""Estimates the winner's accuracy on new pictures before the test split is opened, and settles the winner by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from promptsearch.banks import BASELINE, PromptSet, Template
from promptsearch.evaluators import Evaluator, Interval, Split, mid_p
from promptsearch.evaluators.intervals import Paired, compare_paired
from promptsearch.runs.selection.phrase_choice import MORE_PHRASES
from promptsearch.runs.selection.processes import Shared
from promptsearch.runs.selection.select import Found, Repeat, Selected, Selection, folds, refilled, vote

#: Number of folds: 10, or 5 for more than 100 pictures.
FOLDS, MANY = 10, 100
#: Kinds of estimates.
NESTED, OUT_OF_BAG = "nested", "out-of-bag"


@dataclass(frozen=True)
class Estimate:
    """The estimated accuracy of search and choice on pictures that took no part in them.

    Attributes:
        accuracy: Accuracy on the pictures outside, with its mid-P interval.
        naive: The winner's accuracy on the pictures that it was chosen by.
        against: Comparison with the hand-written prompt on the pictures outside.
        kept: In how many folds (or resamplings) each template was chosen.
        folds: Number of folds (or resamplings).
        repeated: Whether the search was repeated, or only the choice among the sets found.
        way: `NESTED` or `OUT_OF_BAG`.
        gain: Cross-entropy of the hand-written prompt minus that of the choice on the pictures outside, in nats per
            picture, and its standard error; None in studies of earlier versions.
    """

    accuracy: Interval
    naive: float
    against: Paired
    kept: dict[Template, int]
    folds: int
    repeated: bool
    way: str = NESTED
    gain: tuple[float, float] | None = None

    @property
    def worse(self) -> bool:
        """Whether the choice's cross-entropy is worse than the hand-written prompt's by more than a standard error.

        Cross-entropy is used because accuracy on a few pictures is too coarse: at one shot it would refuse most choices
        that are better.
        """
        return self.gain is not None and self.gain[0] < -self.gain[1]

    def of_hand_written(self, naive: float) -> Estimate:
        """Return the estimate for the hand-written prompt, from the same pictures outside.

        Args:
            naive: The prompt's accuracy on the few-shot pictures.
        """
        n = self.against.pictures
        if n is None or self.against.gained is None or self.against.lost is None:  # read from an older study
            return self
        hits = round(self.accuracy.value * n) - self.against.gained + self.against.lost
        return replace(self, accuracy=mid_p(hits, n), naive=naive, kept={})

    def to_dict(self) -> dict[str, Any]:
        """Return the `estimate` of a result document, without `kept`."""
        data: dict[str, Any] = {**self.accuracy.to_dict("accuracy"), "naive": round(self.naive, 6), "way": self.way}
        data |= {"folds": self.folds, "search_repeated": self.repeated}
        if self.gain is not None:
            data["gain"] = {"xent": round(self.gain[0], 6), "error": round(self.gain[1], 6)}
        return data | {"against": {"baseline": "hand-written", **self.against.to_dict()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimate:
        """Make an estimate from the result of `to_dict`."""
        accuracy, against = Interval.from_dict(data, "accuracy"), Paired.from_dict(data["against"])
        way, gain = data.get("way", NESTED), data.get("gain")
        gained = None if gain is None else (gain["xent"], gain["error"])
        return cls(accuracy, data["naive"], against, {}, data["folds"], data["search_repeated"], way, gained)


Steps = Callable[[int, int, str], None]


def by_vote(selection: Selection) -> bool:
    """Return whether a choice is estimated by `out_of_bag`; otherwise it is by `nested`.

    Names and phrases of classes are chosen after the vote, on all pictures, so that a choice with them is not.

    Args:
        selection: The selection method.
    """
    return selection.method == "bagged" and not selection.bank.class_names and selection.bank.phrases is None


def out_of_bag(selection: Selection, repeat: Repeat, chosen: Selected) -> Estimate:
    """Classify every picture by the vote of the resampled searches that did not use it (Breiman 1996).

    No search is repeated. Pictures that all resamplings used are left out.

    Args:
        selection: The selection method.
        repeat: Gives the evaluator.
        chosen: The chosen set, with its resampled searches.
    """
    evaluator = repeat.evaluator
    support = evaluator.task.support
    unseen = np.zeros((len(support), len(chosen.bags)), bool)  # (pictures, bags)
    for b, (outside, _) in enumerate(chosen.bags):
        unseen[outside, b] = True
    judged = np.flatnonzero(unseen.any(axis=1))
    hits, gained = np.zeros(len(judged), bool), np.zeros(len(judged))
    for i, picture in enumerate(judged):
        winner = vote([chosen.bags[b][1] for b in np.flatnonzero(unseen[picture])], evaluator).prompt_set
        alone = support.part(np.array([picture]))
        hits[i], gained[i] = evaluator.hits(winner, alone)[0], _gained(evaluator, winner, alone)[0]
    theirs = evaluator.hits(PromptSet.of(BASELINE), support.part(judged))
    kept: dict[Template, int] = {}
    for t in (t for _, winner in chosen.bags for t in winner.templates):
        kept[t] = kept.get(t, 0) + 1
    accuracy = mid_p(int(hits.sum()), len(hits))
    against = compare_paired(hits, theirs, selection.seed)
    repeated = repeat.fresh is not None
    return Estimate(
        accuracy, chosen.score.accuracy, against, kept, len(chosen.bags), repeated, OUT_OF_BAG, _mean(gained)
    )


class _Judged(NamedTuple):
    """What one fold of an estimate found, for n pictures outside and each of several ways of choosing.

    Attributes:
        outside: (n,) positions of the pictures in the support set.
        theirs: (n,) whether the hand-written prompt classifies each correctly.
        hits: For each way, (n,) whether its choice classifies each correctly.
        gained: For each way, (n,) what `_gained` returns for its choice.
        templates: For each way, the chosen templates.
    """

    outside: np.ndarray
    theirs: np.ndarray
    hits: list[np.ndarray]
    gained: list[np.ndarray]
    templates: list[tuple[Template, ...]]


def nested(selection: Selection, repeat: Repeat, naive: float, progress: Steps | None = None) -> Estimate:
    """Repeat search and choice in every fold, and classify the pictures outside (Varma and Simon 2006).

    No picture is classified by a choice that used it, and each choice uses as many pictures of each class as the run.

    Args:
        selection: The selection method.
        repeat: Repeats the search.
        naive: The winner's accuracy on the pictures that it was chosen by.
        progress: Called after each fold.
    """
    with Folds([selection], repeat) as folds:
        return folds.estimates([naive], progress)[0]


class Folds:
    """The folds of one or several estimates by `nested`, with one search in every fold for all of them.

        with Folds([selection], repeat) as folds:
            (estimate,) = folds.estimates([chosen.score.accuracy])

    Args:
        selections: The selection methods, which differ in their number of phrases alone.
        repeat: Repeats the search.
    """

    def __init__(self, selections: Sequence[Selection], repeat: Repeat) -> None:
        labels, seed = repeat.evaluator.task.support.labels, selections[0].seed
        self._selections = selections
        self._parts = folds(labels, FOLDS if len(labels) <= MANY else FOLDS // 2, seed)
        # A search that is not repeated is quickly done, and has to be shared out with all the sets that it found.
        processes = repeat.evaluator.processes if repeat.fresh is not None else 1
        self._repeat = replace(repeat, threads=1 if processes > 1 else None)
        self._shared = Shared(self._judge, len(self._parts), processes)

    def __enter__(self) -> Folds:
        return self

    def __exit__(self, *error: object) -> None:
        self._shared.__exit__(*error)

    def start(self) -> None:
        """Let other processes begin with folds, if there are cores for them; see `Shared`."""
        self._shared.start()

    def estimates(self, naive: Sequence[float], progress: Steps | None = None) -> list[Estimate]:
        """Return the estimate of each method.

        Args:
            naive: For each method, the winner's accuracy on the pictures that it was chosen by.
            progress: Called after each fold.
        """

        def judged(number: int) -> None:
            if progress is not None:
                progress(number, len(self._parts), "repeating the search")

        n = len(self._repeat.evaluator.task.support)
        hits = np.zeros((len(self._selections), n), bool)
        gained, theirs = np.zeros(hits.shape), np.zeros(n, bool)
        kept: list[dict[Template, int]] = [{} for _ in self._selections]
        for fold in self._shared.results(judged):
            theirs[fold.outside] = fold.theirs
            for s, templates in enumerate(fold.templates):
                hits[s, fold.outside], gained[s, fold.outside] = fold.hits[s], fold.gained[s]
                for t in templates:
                    kept[s][t] = kept[s].get(t, 0) + 1
        return [
            Estimate(
                mid_p(int(hits[s].sum()), n),
                naive[s],
                compare_paired(hits[s], theirs, self._selections[s].seed),
                kept[s],
                len(self._parts),
                self._repeat.fresh is not None,
                gain=_mean(gained[s]),
            )
            for s in range(len(self._selections))
        ]

    def _judge(self, i: int) -> _Judged:
        """Repeat search and choice without the pictures outside fold i, and classify these."""
        evaluator, first = self._repeat.evaluator, self._selections[0]
        support = evaluator.task.support
        inside, outside = refilled(self._parts[i], support.labels, first.seed)
        part, found = self._repeat.on(inside)
        templates = first.templates(part, found, replace(self._repeat, evaluator=part))
        named = first.named_each(templates, part, [selection.phrases for selection in self._selections])
        chosen, pictures = [each.prompt_set for each in named], support.part(outside)
        return _Judged(
            outside,
            evaluator.hits(PromptSet.of(BASELINE), pictures),
            [evaluator.hits(each, pictures) for each in chosen],
            [_gained(evaluator, each, pictures) for each in chosen],
            [each.templates for each in chosen],
        )


def _gained(evaluator: Evaluator, prompt_set: PromptSet, pictures: Split) -> np.ndarray:
    """Return for each picture (n,) the hand-written prompt's cross-entropy minus that of a prompt set."""
    return evaluator.losses(PromptSet.of(BASELINE), pictures) - evaluator.losses(prompt_set, pictures)


def _mean(gained: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(gained.mean()), float(gained.std(ddof=1) / len(gained) ** 0.5) if len(gained) > 1 else 0.0


#: More phrases are kept if they raise the estimated accuracy by at least this, and improve cross-entropy too.
WORTH = 0.003


def ways(selection: Selection) -> list[Selection]:
    """Return the ways of choosing that `settle` estimates: with few phrases of a class and with more, if it has any."""
    if selection.bank.phrases is None or selection.method == "none":
        return [selection]
    return [selection, replace(selection, phrases=MORE_PHRASES)]


def settle(
    selection: Selection, repeat: Repeat, found: Found, progress: Steps | None = None, begun: Folds | None = None
) -> tuple[Selected, Estimate | None]:
    """Choose the winner, estimate its accuracy, and keep the hand-written prompt if the choice does worse.

    A class gets a few phrases, or up to `MORE_PHRASES` if these raise the estimated accuracy by `WORTH`.

    Args:
        selection: The selection method.
        repeat: Repeats the search.
        found: The sets that the search recorded, best first.
        progress: Called after each fold of the estimate.
        begun: The folds of `ways(selection)`, if other processes have begun with them.

    Returns:
        The winner, and the estimate of its accuracy; None without labels.
    """
    evaluator = repeat.evaluator
    templates = selection.templates(evaluator, found, repeat)
    if not evaluator.task.labelled:
        return selection.named(templates, evaluator), None
    each = ways(selection)
    chosen, *more = selection.named_each(templates, evaluator, [way.phrases for way in each])
    if by_vote(selection):
        return guard(selection, evaluator, chosen, out_of_bag(selection, repeat, chosen))
    with begun or Folds(each, repeat) as judging:
        expected, *of_more = judging.estimates([c.score.accuracy for c in (chosen, *more)], progress)
    for way, wider, many in zip(each[1:], more, of_more, strict=True):
        assert expected.gain is not None and many.gain is not None  # `estimates` has measured both
        if many.accuracy.value >= expected.accuracy.value + WORTH and many.gain[0] > expected.gain[0]:
            return guard(way, evaluator, wider, many)
    return guard(selection, evaluator, chosen, expected)


def guard(
    selection: Selection, evaluator: Evaluator, chosen: Selected, expected: Estimate
) -> tuple[Selected, Estimate]:
    """Return the choice, or the hand-written prompt if the choice does worse on the pictures outside.

    A search must not make things worse: a few pictures of many classes may mislead it, however well it scores on them.

    Args:
        selection: The selection method.
        evaluator: Scores the hand-written prompt.
        chosen: The choice.
        expected: The estimate of the choice's accuracy.

    Returns:
            The winner, and the estimate of its accuracy.
    """
    if not expected.worse or selection.method == "none":
        return chosen, expected
    plain, score = selection.baseline(evaluator)
    kept = replace(chosen, prompt_set=plain, score=score, shares={}, refused=chosen.prompt_set)
    return kept, expected.of_hand_written(score.accuracy)
