"""Scores of many prompt ensembles at once, from cached per-template logits.

The class weight of an ensemble S is normalise(sum of the unit text vectors v of its templates) (open_clip's rule).
So its logits are  scale * (sum_t x.v_tc) / |sum_t v_tc| : sums of what is known per template, divided by a norm
that the templates' Gram matrix gives.  One more template costs one addition, not one encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Floats of working memory per chunk of sets: two such arrays stay in a core's second-level cache.
CHUNK_FLOATS = 48_000

#: Most that the Gram matrices of all template pairs may take.
GRAM_BYTES = 1 << 30


class TemplateTable:
    """Per-template logits and Gram matrices on one set of pictures, growing as templates are added.

    Args:
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: what logits are multiplied with in the cross-entropy.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, logit_scale: float) -> None:
        order = np.argsort(labels, kind="stable")
        self.features = np.ascontiguousarray(features[order], dtype=np.float32)
        self.labels = np.ascontiguousarray(labels[order])
        self.logit_scale = np.float32(logit_scale)
        self.size = 0
        self._logits = np.empty((0, 0, len(labels)), np.float32)  # (T, C, N)
        self._vectors = np.empty((0, 0, features.shape[1]), np.float32)  # (T, C, D)
        self._gram = np.empty((0, 0, 0), np.float32)  # (T, T, C)

    def add(self, vectors: np.ndarray) -> None:
        """Add templates by their unit class vectors (T, C, D)."""
        t, c, d = vectors.shape
        new = self.size + t
        if new > len(self._logits):
            room = max(new, 2 * len(self._logits))
            self._logits = _grown(self._logits, (room, c, len(self.labels)), self.size)
            self._vectors = _grown(self._vectors, (room, c, d), self.size)
            self._grow_gram(room, c)
        for row, v in enumerate(vectors, self.size):
            # One product of one shape per template: the same bits whatever else is added with it, so that a run
            # that was killed and resumed, and scores its sets in other batches, still gets the same scores.
            self._vectors[row] = v
            self._logits[row] = v @ self.features.T
            if len(self._gram):
                pairs = np.einsum("tcd,cd->tc", self._vectors[: row + 1], v)
                self._gram[row, : row + 1] = pairs
                self._gram[: row + 1, row] = pairs
        self.size = new

    def score(self, index: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and cross-entropy of S ensembles of k templates each.

        Args:
            index: (S, k) rows of the table.
            weights: (S, k) positive, or None for equal ones.

        Returns:
            (S,) accuracy and (S,) mean cross-entropy in nats, both float64.
        """
        sets = len(index)
        classes, n = self._logits.shape[1:]
        accuracy, xent = np.empty(sets), np.empty(sets)
        step = max(1, CHUNK_FLOATS // (classes * n))
        for at in range(0, sets, step):
            part = slice(at, at + step)
            logits = self._cosines(index[part], None if weights is None else weights[part])
            logits *= self.logit_scale  # (s, C, N)
            accuracy[part], xent[part] = _accuracy_xent(logits, self.labels)
        return accuracy, xent

    def _grow_gram(self, room: int, classes: int) -> None:
        """Make room for more rows; past GRAM_BYTES the Gram matrix is given up and norms come from summed vectors."""
        old, self._gram = self._gram, np.empty((0, 0, 0), np.float32)
        if room * room * classes * 4 <= GRAM_BYTES:
            self._gram = np.empty((room, room, classes), np.float32)
            if self.size:
                self._gram[: self.size, : self.size] = old[: self.size, : self.size]

    def predict(self, index: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """(S, N) predicted classes, pictures in the order of `labels`."""
        return self._cosines(index, weights).argmax(axis=1)

    def _cosines(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """(S, C, N) cosines of each ensemble's class weights with each picture."""
        k = index.shape[1]
        if k > 64 or not len(self._gram):  # the Gram matrix of a large ensemble costs k*k: its summed vectors cost k
            parts = [None] * len(index) if weights is None else list(weights)
            return np.stack([self._cosines_of_many(row, w) for row, w in zip(index, parts, strict=True)])
        w = None if weights is None else weights.astype(np.float32)
        sums = self._logits[index[:, 0]] if w is None else self._logits[index[:, 0]] * w[:, 0, None, None]
        for j in range(1, k):
            term = self._logits[index[:, j]]
            sums += term if w is None else term * w[:, j, None, None]
        gram = self._gram[index[:, :, None], index[:, None, :]]  # (S, k, k, C)
        if w is not None:
            gram = gram * (w[:, :, None] * w[:, None, :])[..., None]
        norm = np.sqrt(gram.sum(axis=(1, 2)))  # (S, C)
        sums /= np.maximum(norm, 1e-12)[:, :, None]
        return sums

    def _cosines_of_many(self, row: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        w = np.ones(len(row), np.float32) if weights is None else weights.astype(np.float32)
        mean = np.tensordot(w, self._vectors[row], axes=1)  # (C, D)
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return mean @ self.features.T


def _grown(old: np.ndarray, shape: Sequence[int], used: int) -> np.ndarray:
    new = np.empty(shape, np.float32)
    if used:
        new[:used] = old[:used]
    return new


def _accuracy_xent(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S,) accuracy and mean cross-entropy of logits (S, C, N).  The logits are overwritten."""
    true = logits[:, labels, np.arange(logits.shape[2])]  # (S, N)
    top = logits.max(axis=1)  # (S, N)
    accuracy = (true >= top).mean(axis=1)
    logits -= top[:, None, :]
    np.exp(logits, out=logits)
    xent = (np.log(logits.sum(axis=1)) + (top - true)).mean(axis=1, dtype=np.float64)
    return accuracy, xent
