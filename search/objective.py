"""What a search maximises: a Score to a key that sorts, larger being better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from promptsearch.errors import InputError
from promptsearch.plugins import Registry


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


OBJECTIVES = Registry("objectives", {"accuracy": accuracy, "xent": xent})


def get_objective(name: str) -> Objective:
    """Look an objective up.  Raises InputError naming those there are."""
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} is not known; choose from {', '.join(OBJECTIVES)}")
    objective: Objective = OBJECTIVES[name]
    return objective


@dataclass(frozen=True)
class Fluent:
    """An objective with `weight` times the prompts' fluency (nats per token) added to its first figure."""

    base: Objective
    weight: float

    def __call__(self, score: ScoreLike) -> tuple[float, ...]:
        first, *ties = self.base(score)
        return (first + self.weight * score.fluency, *ties)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


def check_weight(weight: float) -> None:
    """Raises InputError for a negative or infinite weight."""
    if not 0 <= weight < float("inf"):
        raise InputError(f"--fluency-weight {weight}: must be 0 or larger, and finite")


def with_fluency(objective: Objective, weight: float) -> Objective:
    """The objective itself where the weight is 0.  Raises InputError for a negative or infinite weight."""
    check_weight(weight)
    return Fluent(objective, weight) if weight else objective


def of_options(options: Mapping[str, Any]) -> Objective:
    """The objective of a run's configuration."""
    objective = get_objective(options.get("objective") or "xent")
    return with_fluency(objective, options.get("fluency weight", 0.0))
