"""Learns the weights of an ensemble's templates on the support set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score

#: Strength of the prior towards equal weights, in nats per unit of Kullback-Leibler divergence.
PRIOR = 1.0
#: Step sizes in the logarithm of a weight, used from the largest to the smallest.
STEPS = (1.0, 0.3, 0.1, 0.03)


def learn_weights(
    prompt_set: PromptSet, evaluator: Evaluator, loss: Callable[[Score], float], prior: float = PRIOR
) -> PromptSet:
    """Return the set with the weights of the largest posterior probability.

        weighted = learn_weights(PromptSet.of("a photo of a {}.", "a dark photo of a {}."), evaluator, lambda s: s.xent)
        print(weighted.weights)

    The likelihood is exp(-n loss) on n pictures, and the prior is exp(-prior KL(equal weights, weights)), a Dirichlet
    distribution around equal weights. Coordinate ascent changes one weight at a time, always by the best step, with
    decreasing step sizes.

    Args:
        prompt_set: The set.
        evaluator: Scores sets on the support set.
        loss: Returns the cross-entropy per picture of a score.
        prior: Strength of the preference for equal weights; 0 for none.
    """
    k, n = prompt_set.size, len(evaluator.task.support)
    if k == 1:
        return prompt_set

    def weighted(weights: Sequence[float]) -> PromptSet:
        total = sum(weights)
        rounded = [max(0.001, round(w / total, 3)) for w in weights]  # the printed weights are those in use
        return PromptSet(prompt_set.templates, rounded).saying_as(prompt_set)

    def costs(many: Sequence[Sequence[float]]) -> list[float]:
        scores = evaluator.score([weighted(w) for w in many])
        divergences = [-sum(math.log(k * x / sum(w)) for x in w) / k for w in many]
        return [n * loss(s) + prior * d for s, d in zip(scores, divergences, strict=True)]

    now = [1 / k] * k
    (best,) = costs([now])
    for step in STEPS:
        while True:
            tried = [[*now[:t], now[t] * math.exp(way * step), *now[t + 1 :]] for t in range(k) for way in (1, -1)]
            found = costs(tried)
            at = min(range(len(tried)), key=found.__getitem__)
            if found[at] >= best - 1e-6 * max(1.0, abs(best)):
                break
            now, best = [w / sum(tried[at]) for w in tried[at]], found[at]
    return weighted(now)
