"""95 % confidence intervals and paired comparisons of accuracies, differences and means over draws."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.errors import InputError

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the limits of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self, name: str) -> dict[str, float]:
        """Return the interval as part of a JSON document: the value under `name`, then `low` and `high`."""
        return {name: round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}

    def within(self, least: float, most: float) -> Interval:
        """Return the interval cut off at the smallest and the largest possible value."""
        return Interval(self.value, max(least, self.low), min(most, self.high))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str) -> Interval:
        """Return the interval that `to_dict` has written."""
        return cls(data[name], data["low"], data["high"])


def wilson(hits: int, n: int) -> Interval:
    """Return an accuracy with Wilson's (1927) score interval.

    Args:
        hits: Number of pictures classified correctly.
        n: Number of pictures.

    Raises:
        InputError: There are no pictures, or not between 0 and n hits.
    """
    _check_hits(hits, n)
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def _check_hits(hits: int, n: int) -> None:
    if n < 1 or not 0 <= hits <= n:
        raise InputError(f"{hits} hits of {n} pictures: give at least one picture, and between 0 and all hits")


def mid_p(hits: int, n: int) -> Interval:
    """Return an accuracy with the mid-P interval (Agresti and Gottard 2005).

    It is Clopper and Pearson's interval with half of the probability of the observed count.

    Args:
        hits: Number of pictures classified correctly.
        n: Number of pictures.

    Raises:
        InputError: There are no pictures, or not between 0 and n hits.
    """
    _check_hits(hits, n)

    def where(tail: float) -> float:  # the accuracy p with P(more hits) + P(equal hits) / 2 = tail, by bisection
        low, high = 0.0, 1.0
        for _ in range(50):  # scipy.optimize is not used, because importing it takes as long as a search
            p = (low + high) / 2
            more = 1 - (binomial_cdf(hits, n, p) + binomial_cdf(hits - 1, n, p)) / 2
            low, high = (p, high) if more < tail else (low, p)
        return low

    return Interval(hits / n, where(0.025) if hits else 0.0, where(0.975) if hits < n else 1.0)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return the probability of at most k successes in n trials, to nine digits.

    scipy's `bdtr` gives more digits and takes a quarter of a second to import.

    Args:
        k: Number of successes; below 0 the probability is 0.
        n: Number of trials.
        p: Probability of a success, more than 0 and less than 1.
    """
    factorials, i = _log_factorials(n), np.arange(min(k, n) + 1)  # (k + 1,)
    ways = factorials[n] - factorials[i] - factorials[n - i]
    return min(1.0, float(np.exp(ways + i * math.log(p) + (n - i) * math.log1p(-p)).sum()))


@functools.lru_cache(maxsize=8)
def _log_factorials(n: int) -> np.ndarray:
    """Return the logarithms (n + 1,) of 0! to n!."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)), dtype=np.longdouble).astype(np.float64)])


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Return the difference of two accuracies on the same pictures, with Agresti and Min's (2005) adjusted interval.

    Half a picture is added to each of the four cells of the table of agreement before the Wald interval is computed.

    Args:
        ours: (N,) bool, whether the first classifier is correct on each picture.
        theirs: (N,) bool, whether the second one is.

    Raises:
        InputError: They are not of the same pictures, or do not say whether a picture is classified correctly.
    """
    ours, theirs = _answers(ours, theirs)
    n = len(ours)
    only_ours = int(np.sum(ours & ~theirs))
    only_theirs = int(np.sum(theirs & ~ours))
    b, c, m = only_ours + 0.5, only_theirs + 0.5, n + 2
    centre = (b - c) / m
    half = Z95 * math.sqrt((b + c) - (b - c) ** 2 / m) / m
    return Interval((only_ours - only_theirs) / n, max(-1.0, centre - half), min(1.0, centre + half))


def _answers(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays (N,) of hits as booleans."""
    both = np.asarray(ours), np.asarray(theirs)
    shapes = {a.shape for a in both}
    if len(shapes) > 1 or both[0].ndim != 1 or not both[0].size:
        raise InputError(f"hits of shapes {both[0].shape} and {both[1].shape}: give one for each of the same pictures")
    if any(a.dtype != bool and not np.isin(a, (0, 1)).all() for a in both):
        raise InputError("hits that are neither true nor false: compare the predicted labels with the true ones first")
    return both[0].astype(bool), both[1].astype(bool)


def crossed_interval(values: np.ndarray) -> Interval:
    """Return the mean over draws and test pictures with an interval that covers both sources of variation.

    Draws and pictures are crossed random effects: Var(mean) = (MS_draws + MS_pictures - MS_both) / (S P) from the mean
    squares of the two-way table, with Student's t of S - 1 degrees of freedom. With one draw the interval covers the
    pictures only.

    Args:
        values: (S, P) one row per draw, one column per test picture.
    """
    return pooled_interval([(1.0, values)])


def pooled_interval(parts: Sequence[tuple[float, np.ndarray]]) -> Interval:
    """Return the weighted mean over several sets of test pictures, with an interval over draws and pictures.

    The values are averaged for each draw first. The variance of the mean is the variance of the draws' means plus, for
    each set, the variance over its pictures. For a single set, this is `crossed_interval`.

    Args:
        parts: The weight of each set and its values (S, P), one row per draw, one column per test picture. The weights
            sum to 1, S is the same for all.
    """
    draws = np.sum([w * v.mean(axis=1) for w, v in parts], axis=0)  # (S,)
    s, mean = len(draws), float(draws.mean())
    of_pictures = sum(w * w * _picture_variance(v) for w, v in parts)
    if s == 1:
        half = Z95 * math.sqrt(of_pictures)
        return Interval(mean, mean - half, mean + half)
    from scipy.stats import t

    half = float(t.ppf(0.975, s - 1)) * math.sqrt(float(draws.var(ddof=1)) / s + of_pictures)
    return Interval(mean, mean - half, mean + half)


def _picture_variance(values: np.ndarray) -> float:
    """Return the part of the variance of the mean of values (S, P) that is due to the pictures, not to the draws."""
    s, p = values.shape
    if p == 1:
        return math.inf if s == 1 else 0.0
    pictures = values.mean(axis=0)  # (P,)
    ms_pictures = s * float(pictures.var(ddof=1))
    if s == 1:
        return ms_pictures / p
    rest = values - values.mean(axis=1)[:, None] - pictures[None, :] + pictures.mean()
    ms_both = float(np.square(rest).sum()) / ((s - 1) * (p - 1))
    return max(0.0, ms_pictures - ms_both) / (s * p)


#: Number of bootstrap resamples.
REPLICATES = 10_000


@dataclass(frozen=True)
class Paired:
    """A comparison of two classifiers on the same pictures.

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
        """Return the comparison that `to_dict` has written; documents of early versions have only the difference."""
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

    Raises:
        InputError: They are not of the same pictures, or do not say whether a picture is classified correctly.
    """
    ours, theirs = _answers(ours, theirs)
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
