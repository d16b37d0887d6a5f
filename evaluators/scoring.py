"""Scores of many prompt ensembles at once, from cached per-template logits.

The class weight of an ensemble S is normalise(sum of the unit text vectors v of its templates) (open_clip's rule).
So its logits are  scale * (sum_t x.v_tc) / |sum_t v_tc| : sums of what is known per template, divided by a norm
that the templates' Gram matrix gives.  One more template costs one addition, not one encoding.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from promptsearch.evaluators.memory import quarter_of_ram

#: Floats of working memory per chunk of sets: they stay in a core's second-level cache.
CHUNK_FLOATS = 48_000

#: Ensembles of more templates take their norms from summed vectors: the Gram matrix would cost k*k.
LARGE = 64


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TemplateTable:
    """Per-template logits and Gram matrices on one set of pictures, growing as templates are added.

    Args:
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: what logits are multiplied with in the cross-entropy.
        memory: bytes that the table may take (default: a quarter of the RAM).  Where the logits of all templates do
            not fit, none are kept: they are computed from the vectors again whenever they are needed, and vectors
            that take more than half of it lie in a temporary file.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, logit_scale: float, memory: int | None = None) -> None:
        self.memory = quarter_of_ram() if memory is None else memory
        order = np.argsort(labels, kind="stable")  # by class: the true logits are then one slice per class
        self.features = np.ascontiguousarray(features[order], dtype=np.float32)
        self.labels = np.ascontiguousarray(labels[order])
        self.logit_scale = np.float32(logit_scale)
        self.size = 0
        self._logits = np.empty((0, 0, len(labels)), np.float32)  # (T, C, N)
        self._vectors = np.empty((0, 0, features.shape[1]), np.float32)  # (T, C, D)
        self._gram = np.empty((0, 0, 0), np.float32)  # (T, T, C)
        self._cores = available_cores()

    def add(self, vectors: np.ndarray) -> None:
        """Add templates by their unit class vectors (T, C, D)."""
        t, c, d = vectors.shape
        new = self.size + t
        if new > len(self._logits):
            room = max(new, 2 * len(self._logits))
            self._make_room(room, c, d)
        for row, v in enumerate(vectors, self.size):
            # One product of one shape per template: the same bits whatever else is added with it, so that a run
            # that was killed and resumed, and scores its sets in other batches, still gets the same scores.
            self._vectors[row] = v
            if self.kept:
                self._logits[row] = v @ self.features.T
                pairs = np.einsum("tcd,cd->tc", self._vectors[: row + 1], v)
                self._gram[row, : row + 1] = pairs
                self._gram[: row + 1, row] = pairs
        self.size = new

    @property
    def kept(self) -> bool:
        """Whether per-template logits are kept; otherwise they are computed again each time."""
        return len(self._gram) > 0

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """(k, C, D) unit class vectors of these templates."""
        return self._vectors[list(rows)]

    def score(self, index: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and cross-entropy of S ensembles of k templates each.

        Args:
            index: (S, k) rows of the table.
            weights: (S, k) positive, or None for equal ones.

        Returns:
            (S,) accuracy and (S,) mean cross-entropy in nats, both float64.
        """
        accuracy, xent = np.empty(len(index)), np.empty(len(index))

        def work(part: slice) -> None:
            cosines, norm = self._sums(index[part], None if weights is None else weights[part])
            accuracy[part], xent[part] = self._accuracy_xent(cosines, norm)

        self._spread(work, self._chunks(len(index)))
        return accuracy, xent

    def grow(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of every ensemble that is one of the parents and one more template of the table.

        Args:
            parents: (P, k) rows of the table.

        Returns:
            (P, T) accuracy and (P, T) cross-entropy.  A template that its parent already has is counted twice:
            the caller leaves those out.
        """
        accuracy, xent = (np.empty((len(parents), self.size)) for _ in range(2))
        if not self.kept:
            for p, parent in enumerate(parents):
                sets = np.column_stack([np.tile(parent, (self.size, 1)), np.arange(self.size)])
                accuracy[p], xent[p] = self.score(sets)
            return accuracy, xent
        own = np.einsum("ttc->tc", self._gram[: self.size, : self.size])
        for p, parent in enumerate(parents):
            base = self._logits[parent].sum(axis=0)  # (C, N)
            mine = self._gram[np.ix_(parent, parent)].sum(axis=(0, 1))  # (C,)
            squares = mine + 2 * self._gram[parent, : self.size].sum(axis=0) + own  # (T, C)

            def work(part: slice, p: int = p, base: np.ndarray = base, squares: np.ndarray = squares) -> None:
                sums = self._logits[part] + base  # (s, C, N)
                accuracy[p, part], xent[p, part] = self._accuracy_xent(sums, np.sqrt(squares[part]))

            self._spread(work, self._chunks(self.size))
        return accuracy, xent

    def _chunks(self, sets: int) -> list[slice]:
        step = max(1, CHUNK_FLOATS // max(1, self._vectors.shape[1] * len(self.labels)))
        return [slice(at, min(at + step, sets)) for at in range(0, sets, step)]

    def _spread(self, work: Callable[[slice], None], chunks: Iterable[slice]) -> None:
        """Numpy releases the interpreter's lock in its loops: threads share one table without copies."""
        chunks = list(chunks)
        if self._cores == 1 or len(chunks) < 4:
            for part in chunks:
                work(part)
            return
        with ThreadPoolExecutor(self._cores) as pool:
            for _ in pool.map(work, chunks):
                pass

    def _sums(self, index: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(S, C, N) summed cosines and (S, C) norms of the summed vectors."""
        k = index.shape[1]
        if k > LARGE or not self.kept:
            vectors = np.stack(
                [self._summed_vectors(row, None if weights is None else weights[i]) for i, row in enumerate(index)]
            )
            return vectors @ self.features.T, np.sqrt(np.einsum("scd,scd->sc", vectors, vectors))
        w = None if weights is None else weights.astype(np.float32)
        sums = self._logits[index[:, 0]]  # (S, C, N), a copy
        if w is not None:
            sums *= w[:, 0, None, None]
        for j in range(1, k):
            term = self._logits[index[:, j]]
            sums += term if w is None else term * w[:, j, None, None]
        gram = self._gram[index[:, :, None], index[:, None, :]]  # (S, k, k, C)
        if w is not None:
            gram = gram * (w[:, :, None] * w[:, None, :])[..., None]
        return sums, np.sqrt(gram.sum(axis=(1, 2)))

    def _summed_vectors(self, row: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        w = np.ones(len(row), np.float32) if weights is None else weights.astype(np.float32)
        return np.tensordot(w, self._vectors[row], axes=1)  # (C, D)

    def _accuracy_xent(self, sums: np.ndarray, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) accuracy and mean cross-entropy of summed cosines (S, C, N), which are overwritten."""
        sums *= (self.logit_scale / np.maximum(norm, np.float32(1e-12)))[:, :, None]
        true = np.empty((len(sums), len(self.labels)), np.float32)  # (S, N)
        bounds = np.searchsorted(self.labels, np.arange(sums.shape[1] + 1))
        for c in range(sums.shape[1]):
            true[:, bounds[c] : bounds[c + 1]] = sums[:, c, bounds[c] : bounds[c + 1]]
        top = sums.max(axis=1)  # (S, N)
        accuracy = np.count_nonzero(true >= top, axis=1) / len(self.labels)
        sums -= top[:, None, :]
        np.exp(sums, out=sums)
        losses = np.log(sums.sum(axis=1))
        losses += top
        losses -= true
        return accuracy, losses.mean(axis=1, dtype=np.float64)

    def _make_room(self, room: int, classes: int, dim: int) -> None:
        """Larger arrays with what is known copied over; logits and Gram matrices only while they fit the memory."""
        old, self._vectors = self._vectors, self._vector_array((room, classes, dim))
        self._vectors[: self.size] = old[: self.size] if self.size else 0
        need = 4 * room * classes * (len(self.labels) + room)
        if need > self.memory or (self.size and not self.kept):
            self._logits = np.empty((0, classes, len(self.labels)), np.float32)
            self._gram = np.empty((0, 0, 0), np.float32)
            return
        logits = np.empty((room, classes, len(self.labels)), np.float32)
        gram = np.empty((room, room, classes), np.float32)
        if self.size:
            logits[: self.size] = self._logits[: self.size]
            gram[: self.size, : self.size] = self._gram[: self.size, : self.size]
        self._logits, self._gram = logits, gram

    def _vector_array(self, shape: tuple[int, int, int]) -> np.ndarray:
        if 4 * shape[0] * shape[1] * shape[2] <= self.memory // 2:
            return np.empty(shape, np.float32)
        with tempfile.TemporaryFile() as f:  # unlinked at once; the map keeps it until the array goes
            return np.memmap(f, np.float32, "w+", shape=shape)
