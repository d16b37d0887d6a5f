"""Objectives, which map a Score to a sort key that a search maximises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from promptsearch.config import OBJECTIVE, OBJECTIVE_UNLABELLED
from promptsearch.errors import InputError
from promptsearch.plugins import Registry
from promptsearch.score import Score

#: Values that every Score with labels has; all others are computed only for an objective that needs them.
ALWAYS = ("accuracy", "xent")


@dataclass(frozen=True)
class Objective:
    """An objective that maximises or minimises one field of a Score, and may break ties by another.

        objective = get_objective("accuracy")
        best = max(scores, key=objective)

    Attributes:
        name: Name of the objective, as in `--objective`.
        figure: The field of the Score.
        about: Description in a few words.
        smaller: Whether a smaller value is better.
        labels: Whether the pictures' labels are needed.
        ties: A second field (smaller is better) that breaks ties.
    """

    name: str
    figure: str
    about: str
    smaller: bool = False
    labels: bool = True
    ties: str | None = None

    def __call__(self, score: Score) -> tuple[float, ...]:
        """Return a score's sort key; the largest is best."""
        key = (self.value(score),)
        return key if self.ties is None else (*key, -getattr(score, self.ties))

    def value(self, score: Score) -> float:
        """Return the value of the objective, negated if smaller is better."""
        figure = getattr(score, self.figure)
        return -figure if self.smaller else figure

    @property
    def needs(self) -> tuple[str, ...]:
        """Values that the evaluator computes only if they are requested."""
        return () if self.figure in ALWAYS else (self.figure,)


@dataclass(frozen=True)
class Plugged(Objective):
    """An objective of a plug-in, which is any function of a Score."""

    function: Callable[[Score], tuple[float, ...]] | None = None

    def __call__(self, score: Score) -> tuple[float, ...]:
        """Return a score's sort key; the largest is best.

        Raises:
            InputError: The function returns anything but a tuple of numbers, which would rank sets by chance.
        """
        assert self.function is not None  # `get_objective` sets the function
        key = self.function(score)
        if not isinstance(key, tuple) or not key or not all(isinstance(v, Real) and v == v for v in key):
            raise InputError(f"objective {self.name!r} gives {key!r} for {score}; it must return a tuple of numbers")
        return key


ACCURACY = Objective("accuracy", "accuracy", "accuracy, ties broken by cross-entropy", ties="xent")
XENT = Objective("xent", "xent", "cross-entropy at the logit scale fitted to the few labels", smaller=True)
XENT_FITTED = Objective(
    "xent-fitted", "xent_fitted", "cross-entropy at the logit scale that fits the pictures best", smaller=True
)
MARGIN = Objective("margin", "margin", "mean probability of the true class less the largest other one")
BALANCED = Objective("balanced", "balanced", "mean accuracy per class, ties broken by cross-entropy", ties="xent")
WORST_CLASS = Objective(
    "worst-class", "worst_class", "accuracy on the class with the lowest, ties broken by cross-entropy", ties="xent"
)
ZPE = Objective("zpe", "zpe", "ZPE's debiased maximum logit", labels=False)
MUTUAL_INFORMATION = Objective(
    "mutual-information", "mutual_information", "mutual information of pictures and predictions", labels=False
)
AGREEMENT = Objective("agreement", "agreement", "agreement with the consensus of the bank's templates", labels=False)

OBJECTIVES = Registry(
    "objectives",
    {
        o.name: o
        for o in (ACCURACY, XENT, XENT_FITTED, MARGIN, BALANCED, WORST_CLASS, ZPE, MUTUAL_INFORMATION, AGREEMENT)
    },
)


def get_objective(name: str) -> Objective:
    """Return an objective by its name.

    Raises:
        InputError: The name is unknown.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} is not known; choose from {', '.join(OBJECTIVES)}")
    found = OBJECTIVES[name]
    return found if isinstance(found, Objective) else Plugged(name, "accuracy", "of a plug-in", function=found)


@dataclass(frozen=True)
class Fluent(Objective):
    """An objective that adds a multiple of the prompts' fluency to the first value of another objective.

    Attributes:
        base: The other objective.
        weight: Factor of the fluency (log-likelihood per token, in nats).
    """

    base: Objective | None = None
    weight: float = 0.0

    @classmethod
    def of(cls, base: Objective, weight: float) -> Fluent:
        """Return an objective that has all attributes of `base`."""
        own = {f.name: getattr(base, f.name) for f in fields(Objective)}
        return cls(**own, base=base, weight=weight)

    def __call__(self, score: Score) -> tuple[float, ...]:
        """Return a score's sort key.

        Raises:
            InputError: The score has no fluency.
        """
        assert self.base is not None  # `of` sets the base
        first, *ties = self.base(score)
        return (first + self.weight * fluency_of(score), *ties)


def fluency_of(score: Score) -> float:
    """Return the fluency of a score.

    Raises:
        InputError: The score has no fluency, because the evaluator has no language model.
    """
    if score.fluency is None:
        raise InputError("--fluency-lm: the scores have no fluency; give the evaluator a language model")
    return float(score.fluency)


def check_weight(weight: float) -> None:
    """Check the weight of the fluency.

    Raises:
        InputError: The weight is negative or not finite.
    """
    if not 0 <= weight < float("inf"):
        raise InputError(f"--fluency-weight {weight}: must be 0 or larger, and finite")


def with_fluency(objective: Objective, weight: float) -> Objective:
    """Return an objective that adds `weight` times the fluency, or the objective itself if the weight is 0.

    Args:
        objective: The objective.
        weight: Factor of the fluency (log-likelihood per token, in nats).

    Raises:
        InputError: The weight is negative or not finite.
    """
    check_weight(weight)
    return Fluent.of(objective, weight) if weight else objective


def choose_objective(name: str | None, shots: int) -> str:
    """Return the name of the objective to use, which is the default if `name` is None.

    Args:
        name: Name of an objective, or None.
        shots: Labelled pictures per class; 0 if the pictures have no labels.

    Raises:
        InputError: The objective is unknown, or needs labels and `shots` is 0.
    """
    if name is None:
        return OBJECTIVE if shots else OBJECTIVE_UNLABELLED
    if not shots and get_objective(name).labels:
        free = ", ".join(n for n in OBJECTIVES.built_in if not get_objective(n).labels)
        raise InputError(f"--objective {name} needs labelled pictures and --shots 0 has none; choose from {free}")
    return get_objective(name).name


def of_options(options: Mapping[str, Any]) -> Objective:
    """Return the objective that a run's configuration names, with its weight of fluency.

    Args:
        options: The configuration, as a mapping with the keys "objective" and "fluency_weight".

    Raises:
        InputError: The objective is unknown, or the weight is negative or not finite.
    """
    objective = get_objective(options.get("objective") or OBJECTIVE)
    return with_fluency(objective, options.get("fluency_weight", 0.0))
