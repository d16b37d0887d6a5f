"""Confidence intervals for accuracies, for paired differences and for means over draws and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Interval:
    """Accuracy with Wilson's (1927) score interval at 95 %."""
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def mid_p(hits: int, n: int) -> Interval:
    """Accuracy with the mid-P interval at 95 %: Clopper and Pearson's with half of the observed count's probability.

    Agresti and Gottard 2005, "Randomized confidence intervals and the mid-P approach".
    """
    from scipy.special import bdtr

    def where(tail: float) -> float:  # the accuracy p at which P(more hits) + P(as many) / 2, which rises, is this
        low, high = 0.0, 1.0
        for _ in range(50):  # halved here: scipy.optimize takes as long to import as a search takes
            p = (low + high) / 2
            more = 1 - (float(bdtr(hits, n, p)) + (float(bdtr(hits - 1, n, p)) if hits else 0.0)) / 2
            low, high = (p, high) if more < tail else (low, p)
        return low

    return Interval(hits / n, where(0.025) if hits else 0.0, where(0.975) if hits < n else 1.0)


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Difference of two accuracies on the same pictures, with Agresti and Min's (2005) adjusted Wald interval.

    Args:
        ours, theirs: (N,) bool, whether each picture was classified rightly.
    """
    n = len(ours)
    only_ours = int(np.sum(ours & ~theirs))
    only_theirs = int(np.sum(theirs & ~ours))
    b, c, m = only_ours + 0.5, only_theirs + 0.5, n + 2  # half a picture added to each of the four cells
    centre = (b - c) / m
    half = Z95 * math.sqrt((b + c) - (b - c) ** 2 / m) / m
    return Interval((only_ours - only_theirs) / n, max(-1.0, centre - half), min(1.0, centre + half))


def crossed_interval(values: np.ndarray) -> Interval:
    """Mean of values (S, P), one row per draw and one column per test picture, with its 95 % interval.

    Draws and pictures are crossed random effects: Var(mean) = (MS_draws + MS_pictures - MS_both) / (S P) by the mean
    squares of the two-way table, with Student's t of S - 1 degrees of freedom (few draws are the weaker part).  One
    draw says nothing about others: then the interval is for this draw alone.
    """
    s, p = values.shape
    mean = float(values.mean())
    pictures = values.mean(axis=0)  # (P,)
    if s == 1:
        half = Z95 * float(pictures.std(ddof=1)) / math.sqrt(p) if p > 1 else math.inf
        return Interval(mean, mean - half, mean + half)
    from scipy.stats import t

    draws = values.mean(axis=1)  # (S,)
    ms_draws = p * float(draws.var(ddof=1))
    ms_pictures = s * float(pictures.var(ddof=1)) if p > 1 else 0.0
    rest = values - draws[:, None] - pictures[None, :] + mean
    ms_both = float(np.square(rest).sum()) / max(1, (s - 1) * (p - 1))
    variance = max(0.0, ms_draws + ms_pictures - ms_both, ms_draws) / (s * p)
    half = float(t.ppf(0.975, s - 1)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)
