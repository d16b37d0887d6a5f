"""Paired comparison of two classifiers on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.evaluators.stats.intervals import Interval, binomial_cdf, paired_difference

#: Number of bootstrap resamples.
REPLICATES = 10_000


@dataclass(frozen=True)
class Paired:
    """The result of comparing two classifiers on the same pictures.

        paired = compare_paired(evaluator.hits(winner, split), evaluator.hits(baseline, split))
        print(paired.verdict)

    Attributes:
        difference: Difference of the accuracies, with Agresti and Min's (2005) interval.
        bootstrap: The same difference with the bootstrap percentile interval over pictures.
        gained: Number of pictures that only the first classifies correctly.
        lost: Number of pictures that only the second classifies correctly.
        mcnemar: Two-sided p value of McNemar's exact test.
        pictures: Number of pictures.
    """

    difference: Interval
    bootstrap: Interval | None = None
    gained: int | None = None
    lost: int | None = None
    mcnemar: float | None = None
    pictures: int | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level: by McNemar's test, or else by the interval."""
        if self.mcnemar is None:
            return self.difference.low > 0 or self.difference.high < 0
        return self.mcnemar < 0.05

    @property
    def verdict(self) -> str:
        """The conclusion at the 5 % level, in words."""
        if not self.significant:
            return "no evidence that it is better"
        return "it is better" if self.difference.value > 0 else "it is worse"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict; `difference`, `low` and `high` are Agresti and Min's."""
        d, b = self.difference, self.bootstrap
        data: dict[str, Any] = {"difference": round(d.value, 6), "low": round(d.low, 6), "high": round(d.high, 6)}
        if b is not None and self.mcnemar is not None:
            data |= {
                "bootstrap": {"low": round(b.low, 6), "high": round(b.high, 6)},
                "gained": self.gained,
                "lost": self.lost,
                "mcnemar": float(f"{self.mcnemar:.3g}"),
                "pictures": self.pictures,
                "verdict": self.verdict,
            }
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Paired:
        """Read what `to_dict` gave; documents of early versions have the difference only."""
        d = Interval(data["difference"], data["low"], data["high"])
        b = data.get("bootstrap")
        bootstrap = None if b is None else Interval(d.value, b["low"], b["high"])
        return cls(d, bootstrap, *(data.get(k) for k in ("gained", "lost", "mcnemar", "pictures")))


def compare_paired(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Paired:
    """Compare two classifiers on the same pictures.

    Args:
        ours: (N,) bool, whether the first classifier is correct on each picture.
        theirs: (N,) bool, whether the second one is.
        seed: Seed of the bootstrap.
    """
    gained, lost, n = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours)), len(ours)
    interval = paired_difference(ours, theirs)
    # The difference depends only on the numbers of gained, lost and other pictures: resample these.
    rng = np.random.default_rng([seed, n])
    counts = rng.multinomial(n, [gained / n, lost / n, max(0.0, 1 - (gained + lost) / n)], size=REPLICATES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975])
    bootstrap = Interval(interval.value, float(low), float(high))
    return Paired(interval, bootstrap, gained, lost, mcnemar(gained, lost), n)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p value of McNemar's exact test, a binomial test of gained against lost with p = 1/2.

    Args:
        gained: Number of pictures that only the first classifier gets right.
        lost: Number of pictures that only the second one gets right.
    """
    n = gained + lost
    return 1.0 if n == 0 else min(1.0, 2 * binomial_cdf(min(gained, lost), n, 0.5))
