"""Other names for the classes of a chosen prompt set, one class at a time."""

from __future__ import annotations

from collections.abc import Callable

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.search import Names

#: Times that every class is gone through.
ROUNDS = 2


def rename(prompt_set: PromptSet, evaluator: Evaluator, names: Names, loss: Callable[[Score], float]) -> PromptSet:
    """The set with the class names that describe the pictures best, found one class at a time.

    A class keeps its name unless another gains more, over all pictures, than the choice among its names costs: the
    logarithm of how many there are, as for templates.

    Args:
        loss: cross-entropy per picture, of a score.
    """
    n = len(evaluator.task.support)

    def cost(sets: list[PromptSet]) -> list[float]:
        return [n * loss(v) + names.cost(s) for s, v in zip(sets, evaluator.score(sets), strict=True)]

    (best,) = cost([prompt_set])
    for _ in range(ROUNDS):
        before = prompt_set
        for c in names.free:
            now = names.of(prompt_set)
            tried = [names.named(prompt_set, [*now[:c], name, *now[c + 1 :]]) for name in names.choices(c)]
            for candidate, value in zip(tried, cost(tried), strict=True):
                if value < best - 1e-9:
                    best, prompt_set = value, candidate
        if prompt_set == before:
            break
    return prompt_set
