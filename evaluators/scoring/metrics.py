"""Metrics of prompt ensembles besides accuracy and cross-entropy, computed only if an objective needs them.

Each takes the logits (S, C, N) of S ensembles at the model's scale, the labels (N,) and a consensus (N,) (see
`agreement`), and returns (S,) float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Bounds of the fitted logit scale, relative to the model's; without them it is infinite if all pictures are correct.
FITTED = (0.25, 4.0)


def margin(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean of the true class's probability minus the largest other one, from -1 to 1."""
    p = probabilities(logits)
    pictures = np.arange(logits.shape[2])
    true = p[:, labels, pictures]
    p[:, labels, pictures] = -1
    return (true - p.max(axis=1)).mean(axis=1, dtype=np.float64)


def balanced(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the balanced accuracy: the mean over classes of the accuracy on each class's pictures."""
    return np.mean(_by_class(logits, labels), axis=0)


def worst_class(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the accuracy on the pictures of the class with the lowest."""
    return np.min(_by_class(logits, labels), axis=0)


def _by_class(logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return for each class that has pictures the accuracy (S,) on them."""
    pictures = np.arange(logits.shape[2])
    others = np.array(logits)
    others[:, labels, pictures] = -np.inf
    hits = logits[:, labels, pictures] > others.max(axis=1)  # (S, N)
    return [hits[:, labels == c].mean(axis=1) for c in np.unique(labels)]


def xent_fitted(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean cross-entropy at the best logit scale of each ensemble, within the bounds `FITTED`.

    Cross-entropy is convex in the scale, so the zero of its derivative, the mean over pictures of
    E_p[logit] - true logit, is found by bisection.
    """
    true = logits[:, labels, np.arange(logits.shape[2])]  # (S, N)
    low, high = (np.full(len(logits), np.log(bound)) for bound in FITTED)
    for _ in range(12):  # error of the logarithm at most 0.0003
        middle = (low + high) / 2
        p = probabilities(logits * np.exp(middle).astype(np.float32)[:, None, None])
        p *= logits
        rising = (p.sum(axis=1) - true).mean(axis=1) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    scale = np.exp((low + high) / 2).astype(np.float32)
    scaled = logits * scale[:, None, None]
    top = scaled.max(axis=1)
    losses = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - true * scale[:, None]
    return losses.mean(axis=1, dtype=np.float64)


def zpe(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean over pictures of the largest debiased logit (ZPE, Allingham et al. 2023, section 3).

    A class's logits are debiased by subtracting their mean over the pictures.
    """
    debiased = logits - logits.mean(axis=2, keepdims=True)
    return debiased.max(axis=1).mean(axis=1, dtype=np.float64)


def mutual_information(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mutual information of pictures and predictions: H(mean prediction) - mean H(prediction), in nats."""
    p = probabilities(logits)
    return entropy(p.mean(axis=2, dtype=np.float64)) - entropy(p).mean(axis=1, dtype=np.float64)


def agreement(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean probability of the class that the consensus (N,) assigns to each picture."""
    if consensus is None:
        raise ValueError("agreement needs a consensus")
    return probabilities(logits)[:, consensus, np.arange(logits.shape[2])].mean(axis=1, dtype=np.float64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (S, C, N) over classes."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy over axis 1, in nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)


Statistic = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]

#: The metrics by their field in a Score.
STATISTICS: dict[str, Statistic] = {
    f.__name__: f for f in (margin, balanced, worst_class, xent_fitted, zpe, mutual_information, agreement)
}

#: The metrics that need labels.
NEED_LABELS = ("margin", "balanced", "worst_class", "xent_fitted")
