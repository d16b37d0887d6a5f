"""How sure a mean over draws and test pictures is, when every draw was tested on the same pictures."""

from __future__ import annotations

import math

import numpy as np

from promptsearch.evaluators.score import Z95, Interval


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
