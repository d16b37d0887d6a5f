"""Pareto fronts for searches with several aims."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.score import Score
from promptsearch.search.objective import Objective, fluency_of


def words(prompt_set: PromptSet) -> int:
    """Return the number of words in all templates of a set."""
    return sum(len(t.split()) for t in prompt_set.templates)


def aims(prompt_set: PromptSet, score: Score, objective: Objective) -> tuple[float, float, float]:
    """Return the objective's value, the fluency and the negative number of words; for each, larger is better."""
    return objective(score)[0], fluency_of(score), -float(words(prompt_set))


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the Pareto front.

    A point is on the front if no other point is at least as good in every aim and better in one. Of equal points, all
    are on the front or none.

    Args:
        points: n points with one value per aim; larger is better.

    Returns:
        The indices in ascending order.
    """
    values = np.asarray(points, dtype=float).reshape(len(points), -1)
    kept: list[int] = []
    best = values[:0]
    for i in np.lexsort(-values.T[::-1]) if len(points) else ():  # a point that dominates another comes before it
        v = values[i]
        if not ((best >= v).all(axis=1) & (best > v).any(axis=1)).any():
            kept.append(int(i))
            best = values[kept]
    return sorted(kept)


def fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the number of each point's front, as in NSGA-II (Deb et al. 2002, section III A).

    Front 0 is the Pareto front, front 1 the Pareto front of the remaining points, and so on.

    Args:
        points: n points with one value per aim; larger is better.

    Returns:
        n numbers.
    """
    left = list(range(len(points)))
    number = [0] * len(points)
    at = 0
    while left:
        best = {left[i] for i in front([points[i] for i in left])}
        for i in best:
            number[i] = at
        left = [i for i in left if i not in best]
        at += 1
    return number
