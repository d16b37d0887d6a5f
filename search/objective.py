"""What a search maximises: a Score to a key that sorts, larger being better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from promptsearch.errors import InputError


class ScoreLike(Protocol):
    """The figures of a Score that objectives read."""

    @property
    def accuracy(self) -> float: ...

    @property
    def xent(self) -> float: ...


Objective = Callable[[ScoreLike], tuple[float, ...]]


def accuracy(score: ScoreLike) -> tuple[float, ...]:
    """Accuracy first, then cross-entropy (lexicographic)."""
    return (score.accuracy, -score.xent)


def xent(score: ScoreLike) -> tuple[float, ...]:
    """Cross-entropy alone, at the model's logit scale."""
    return (-score.xent,)


OBJECTIVES: dict[str, Objective] = {"accuracy": accuracy, "xent": xent}


def get_objective(name: str) -> Objective:
    """Look an objective up.  Raises InputError naming those there are."""
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} is not known; choose from {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
