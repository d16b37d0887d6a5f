"""Two classifiers on the same pictures: is one better than the other?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.evaluators.stats.intervals import Interval, paired_difference

#: Resamplings of the pictures for a bootstrap interval.
REPLICATES = 10_000


@dataclass(frozen=True)
class Paired:
    """What comparing two classifiers on the same pictures says.

        paired = compare_paired(evaluator.hits(winner, split), evaluator.hits(baseline, split))
        print(paired.verdict)

    Attributes:
        difference: of accuracies, with Agresti and Min's (2005) interval.
        bootstrap: the same difference with the percentile interval over resampled pictures.
        gained, lost: pictures that only the one, or only the other, classifies rightly.
        mcnemar: two-sided p value of McNemar's exact test.
    """

    difference: Interval
    bootstrap: Interval
    gained: int
    lost: int
    mcnemar: float
    pictures: int

    @property
    def verdict(self) -> str:
        """In words, at the 5 % level."""
        if self.mcnemar >= 0.05:
            return "no evidence that it is better"
        return "it is better" if self.gained > self.lost else "it is worse"

    def to_dict(self) -> dict[str, Any]:
        """For a result document; `difference`, `low` and `high` are Agresti and Min's."""
        d, b = self.difference, self.bootstrap
        return {
            "difference": round(d.value, 6),
            "low": round(d.low, 6),
            "high": round(d.high, 6),
            "bootstrap": {"low": round(b.low, 6), "high": round(b.high, 6)},
            "gained": self.gained,
            "lost": self.lost,
            "mcnemar": float(f"{self.mcnemar:.3g}"),
            "pictures": self.pictures,
            "verdict": self.verdict,
        }


def compare_paired(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Paired:
    """Compare two classifiers by which pictures each gets right.

    Args:
        ours, theirs: (N,) bool.
        seed: of the bootstrap.
    """
    gained, lost, n = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours)), len(ours)
    interval = paired_difference(ours, theirs)
    # Resampling the pictures resamples how many of the three kinds there are, and nothing else matters.
    rng = np.random.default_rng([seed, n])
    counts = rng.multinomial(n, [gained / n, lost / n, max(0.0, 1 - (gained + lost) / n)], size=REPLICATES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975])
    bootstrap = Interval(interval.value, float(low), float(high))
    return Paired(interval, bootstrap, gained, lost, mcnemar(gained, lost), n)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of McNemar's exact test: the binomial test that both kinds of change are equally likely."""
    from scipy.special import bdtr

    n = gained + lost
    return 1.0 if n == 0 else min(1.0, 2 * float(bdtr(min(gained, lost), n, 0.5)))
