"""Other names for the classes: one more move on a chosen prompt set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score

#: Times that every class is gone through.
ROUNDS = 2


def rename(
    prompt_set: PromptSet,
    evaluator: Evaluator,
    alternatives: Mapping[str, tuple[str, ...]],
    loss: Callable[[Score], float],
) -> PromptSet:
    """The set with the class names that describe the pictures best, found one class at a time.

    A class keeps its own name unless another gains more, over all pictures, than the choice among its names costs: the
    logarithm of how many there are, as for templates.

    Args:
        alternatives: for a class name the names that may stand in for it; classes that are not in it keep theirs.
        loss: cross-entropy per picture, of a score.
    """
    own = evaluator.task.class_names
    names = list(prompt_set.class_names or own)
    n = len(evaluator.task.support)
    best = n * loss(evaluator.score([prompt_set])[0])
    for _ in range(ROUNDS):
        before = list(names)
        for c, name in enumerate(own):
            choices = [name, *(a for a in alternatives.get(name, ()) if a != name)]
            tried = [[*names[:c], choice, *names[c + 1 :]] for choice in choices if choice != names[c]]
            for candidate, score in zip(tried, evaluator.score([_named(prompt_set, t) for t in tried]), strict=True):
                cost = n * loss(score) + _cost(candidate, own, alternatives)
                if cost < best - 1e-9:
                    best, names = cost, candidate
        if names == before:
            break
    return prompt_set if names == list(prompt_set.class_names or own) else _named(prompt_set, names)


def _cost(names: list[str], own: tuple[str, ...], alternatives: Mapping[str, tuple[str, ...]]) -> float:
    return sum(math.log(1 + len(alternatives[o])) for n, o in zip(names, own, strict=True) if n != o)


def _named(prompt_set: PromptSet, names: list[str]) -> PromptSet:
    return PromptSet(prompt_set.templates, prompt_set.weights, names)
