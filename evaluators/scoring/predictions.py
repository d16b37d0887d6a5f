"""The one definition of a hit: the true class's logit is larger than every other class's.  A tie is not a hit."""

from __future__ import annotations

import numpy as np


def predict(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the predicted class of each picture.

    Where the true class ties with another for the largest logit, the other is predicted, so that
    `predict(logits, labels) == labels` counts hits only.

    Args:
        logits: (N, C) logits or cosines.
        labels: (N,) true classes.

    Returns:
        (N,) class indices.
    """
    rows = np.arange(len(logits))
    others = np.array(logits)  # (N, C)
    others[rows, labels] = -np.inf
    rival = others.argmax(axis=1)
    return np.where(logits[rows, labels] > others[rows, rival], labels, rival)


def score_weights(
    class_weights: np.ndarray, features: np.ndarray, labels: np.ndarray, logit_scale: float
) -> tuple[np.ndarray, float]:
    """Score class weights on labelled pictures.

    Args:
        class_weights: (C, D) class weights of unit length.
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: The model's logit scale.

    Returns:
        (N,) bool, whether each picture is classified correctly, and the mean cross-entropy in nats.
    """
    logits = logit_scale * (features @ class_weights.T)  # (N, C)
    top = logits.max(axis=1)
    xent = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]
    return predict(logits, labels) == labels, float(xent.mean(dtype=np.float64))
