"""Tip-Adapter (Zhang et al. 2022), which adds a cache of the few shots to the text classifier, without training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from promptsearch.evaluators.scoring.metrics import predict

#: Residual ratio and sharpness. The paper tunes both on held-out pictures; here its default values are used.
ALPHA, BETA = 1.0, 5.5


def cache_of(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tensors of the cache: the features (M, D) and labels (M,) of the few shots."""
    return {"cache features": features, "cache labels": labels.astype(np.int32)}


def score_cached(
    class_weights: np.ndarray,
    tensors: Mapping[str, np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    logit_scale: float,
) -> tuple[np.ndarray, float]:
    """Score class weights together with a cache of labelled pictures.

    The logits are  scale x w_c + alpha sum_m exp(-beta (1 - x f_m)) [y_m = c]  (equation 6).

    Args:
        class_weights: (C, D) class weights of unit length.
        tensors: What `cache_of` returned.
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: The model's logit scale.

    Returns:
        (N,) bool, whether each picture is classified correctly, and the mean cross-entropy in nats.
    """
    logits = cached_logits(class_weights, tensors, features, logit_scale)  # (N, C)
    top = logits.max(axis=1)
    xent = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]
    return predict(logits, labels) == labels, float(xent.mean(dtype=np.float64))


def cached_logits(
    class_weights: np.ndarray, tensors: Mapping[str, np.ndarray], features: np.ndarray, logit_scale: float
) -> np.ndarray:
    """Return the logits (N, C) of class weights together with a cache of labelled pictures (see `score_cached`)."""
    likeness = np.exp(BETA * (features @ tensors["cache features"].T - 1))  # (N, M)
    one_hot = np.eye(len(class_weights), dtype=features.dtype)[tensors["cache labels"]]  # (M, C)
    logits: np.ndarray = logit_scale * (features @ class_weights.T) + ALPHA * (likeness @ one_hot)
    return logits
