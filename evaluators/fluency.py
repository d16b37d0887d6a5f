"""The fluency of prompts: their log-likelihood under a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.banks.prompt_set import Phrases
from promptsearch.evaluators.cache import Cache, TextCache

#: Returns (n, 2) for n texts: the log-likelihood in nats, and the number of tokens it sums over.
LogLikelihood = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Rater:
    """A language model that rates prompts.

    Attributes:
        log_likelihood: Returns (n, 2) for n texts: log-likelihood in nats, and number of tokens.
        key: Key of the cache: everything that the values depend on.
    """

    log_likelihood: LogLikelihood
    key: Mapping[str, str]


#: The phrases of the classes (None for their own names) and a template to fill with them.
Filling = tuple["tuple[Phrases, ...] | None", Template]


class Fluency:
    """Computes the fluency of prompt sets: the mean log-likelihood per token, in nats; larger is more fluent.

        fluency = Fluency(model.log_likelihood, cache, {"lm": model.fingerprint}, ["cat", "dog"])
        print(fluency([PromptSet.of("a photo of a {}."), PromptSet.of("a a photo {} of")]))

    The mean is over classes and templates, of each prompt's log-likelihood divided by its number of tokens. Rated texts
    are cached, so that the language model is only loaded for new ones, and the mean of each template is kept in memory.

    Args:
        log_likelihood: Returns (n, 2) for n texts: log-likelihood in nats, and number of tokens.
        cache: The cache on disk.
        key: Key of the cache: everything that the language model's values depend on.
        names: The class names.
    """

    def __init__(self, log_likelihood: LogLikelihood, cache: Cache, key: dict[str, str], names: Sequence[str]) -> None:
        self._log_likelihood = log_likelihood
        self._known = TextCache(cache, key, kind="fluency")
        self._names = tuple(names)
        self._means: dict[tuple[Phrases, ...] | None, dict[Template, float]] = {}

    def __call__(self, sets: Sequence[PromptSet]) -> list[float]:
        """Return the fluency of each set; new texts are rated together."""
        means = [self._means.setdefault(s.phrases, {}) for s in sets]
        new = dict.fromkeys(
            (s.phrases, t) for s, known in zip(sets, means, strict=True) for t in s.templates if t not in known
        )
        said = {s.phrases: s for s in sets}
        self._rate({(p, t): [x for of_class in said[p].texts(t, self._names) for x in of_class] for p, t in new})
        return [sum(known[t] for t in s.templates) / s.size for s, known in zip(sets, means, strict=True)]

    def _rate(self, texts: Mapping[Filling, Sequence[str]]) -> None:
        """Rate filled templates together."""
        every = list(dict.fromkeys(text for filled in texts.values() for text in filled))
        if not every:
            return
        rows = self._known.lookup(every, self._log_likelihood).astype(np.float64)  # (n, 2)
        per_token = dict(zip(every, (rows[:, 0] / np.maximum(rows[:, 1], 1)).tolist(), strict=True))
        for (phrases, template), filled in texts.items():
            self._means[phrases][template] = float(np.mean([per_token[text] for text in filled]))

    def close(self) -> None:
        """Merge small blocks of the cache."""
        self._known.compact()
