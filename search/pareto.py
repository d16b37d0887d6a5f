"""Several aims at once: which sets no other one beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.search.objective import Objective, ScoreLike


def words(prompt_set: PromptSet) -> int:
    """What a person has to read: the words of all templates together."""
    return sum(len(t.split()) for t in prompt_set.templates)


def aims(prompt_set: PromptSet, score: ScoreLike, objective: Objective) -> tuple[float, float, float]:
    """The objective's first figure, fluency and brevity, each the larger the better."""
    return objective(score)[0], float(score.fluency), -float(words(prompt_set))  # type: ignore[attr-defined]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that none beats: as good in everything and better in something.  Equal points all stay."""
    values = np.asarray(points, dtype=float).reshape(len(points), -1)
    kept: list[int] = []
    best = values[:0]
    for i in np.lexsort(-values.T[::-1]) if len(points) else ():  # whatever beats a point comes before it
        v = values[i]
        if not ((best >= v).all(axis=1) & (best > v).any(axis=1)).any():
            kept.append(int(i))
            best = values[kept]
    return sorted(kept)


def fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """For each point the number of its front: 0 for those that none beats, 1 for those that only these beat, …

    Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", section III A.
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
