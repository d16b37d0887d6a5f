"""How much each template of an ensemble counts, learnt on the few shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Score

#: What the prior towards equal weights counts for, in nats per unit of Kullback-Leibler divergence.
PRIOR = 1.0
#: Steps in the logarithm of a weight, tried from the largest to the smallest.
STEPS = (1.0, 0.3, 0.1, 0.03)


def learn_weights(
    prompt_set: PromptSet, evaluator: Evaluator, loss: Callable[[Score], float], prior: float = PRIOR
) -> PromptSet:
    """The set with the weights of the largest posterior probability.

        weighted = learn_weights(PromptSet.of("a photo of a {}.", "a dark photo of a {}."), evaluator, lambda s: s.xent)
        print(weighted.weights)

    The likelihood is the model's own, exp(-n loss) on n pictures; the prior is exp(-prior KL(equal weights, weights)),
    a Dirichlet distribution around equal weights.  One weight at a time is made larger or smaller, the best step first,
    by steps that become smaller: it ends on a summit, the same each time.

    Args:
        loss: cross-entropy per picture, of a score.
        prior: how much equal weights are preferred; 0 not at all.
    """
    k, n = prompt_set.size, len(evaluator.task.support)
    if k == 1:
        return prompt_set

    def weighted(weights: Sequence[float]) -> PromptSet:
        total = sum(weights)
        rounded = [max(0.001, round(w / total, 3)) for w in weights]  # what is printed is what is used
        return PromptSet(prompt_set.templates, rounded, prompt_set.class_names)

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
