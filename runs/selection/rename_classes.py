"""Chooses class names for a prompt set, one class at a time."""

from __future__ import annotations

from collections.abc import Callable

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.search import Names

#: Largest number of passes over the classes.
ROUNDS = 2


def rename(prompt_set: PromptSet, evaluator: Evaluator, names: Names, loss: Callable[[Score], float]) -> PromptSet:
    """Return the set with the class names that fit the pictures best, chosen one class at a time.

    A class gets another name only if that reduces the summed cross-entropy by more than the logarithm of the number of
    its names, the cost of the choice.

    Args:
        prompt_set: The set.
        evaluator: Scores sets on the support set.
        names: The alternatives.
        loss: Returns the cross-entropy per picture of a score.
    """
    n = len(evaluator.task.support)

    def cost(sets: list[PromptSet]) -> list[float]:
        return [n * loss(v) + names.cost(s) for s, v in zip(sets, evaluator.score(sets), strict=True)]

    (best,) = cost([prompt_set])
    for _ in range(ROUNDS):
        before = prompt_set
        for c in names.free:
            tried = [names.renamed(prompt_set, c, name) for name in names.choices(c)]
            for candidate, value in zip(tried, cost(tried), strict=True):
                if value < best - 1e-9:
                    best, prompt_set = value, candidate
        if prompt_set == before:
            break
    return prompt_set
