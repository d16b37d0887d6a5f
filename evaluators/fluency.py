"""How likely a language model holds a prompt to be: what keeps prompts intelligible."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators.cache import Cache
from promptsearch.evaluators.textcache import TextCache

#: Gives (n, 2) for n texts: the natural log-likelihood, and how many tokens that is the sum over.
LogLikelihood = Callable[[Sequence[str]], np.ndarray]


class Fluency:
    """Mean log-likelihood per token, in nats, of a set's prompts filled with the class names; larger is more fluent.

        fluency = Fluency(model.log_likelihood, cache, {"lm": model.fingerprint}, ["cat", "dog"])
        print(fluency([PromptSet.of("a photo of a {}."), PromptSet.of("a a photo {} of")]))

    Each prompt counts alike: the mean over classes and templates of (log-likelihood / tokens).  What was rated before
    is in the cache, and then the language model is not loaded.
    """

    def __init__(self, log_likelihood: LogLikelihood, cache: Cache, key: dict[str, str], names: Sequence[str]) -> None:
        self._log_likelihood = log_likelihood
        self._known = TextCache(cache, key, kind="fluency")
        self._names = tuple(names)

    def __call__(self, sets: Sequence[PromptSet]) -> list[float]:
        """One number per set; new texts are rated together."""
        texts = [[t.fill(n) for t in s.templates for n in s.class_names or self._names] for s in sets]
        every = list(dict.fromkeys(text for some in texts for text in some))
        if not every:
            return []
        rows = self._known.lookup(every, self._log_likelihood).astype(np.float64)  # (n, 2)
        per_token = dict(zip(every, (rows[:, 0] / np.maximum(rows[:, 1], 1)).tolist(), strict=True))
        return [float(np.mean([per_token[t] for t in some])) for some in texts]

    def close(self) -> None:
        """Write what is not yet in the cache as one block."""
        self._known.compact()
