"""Scores of many prompt ensembles at once, from cached per-template logits.

The class weight of an ensemble S is normalise(sum of the unit text vectors v of its templates) (open_clip's rule).
So its logits are  scale * (sum_t x.v_tc) / |sum_t v_tc| : sums of what is known per template, divided by a norm
that the templates' Gram matrix gives.  One more template costs one addition, not one encoding.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.memory import quarter_of_ram
from promptsearch.evaluators.statistics import STATISTICS, probabilities

#: Floats of working memory per chunk of sets: they stay in a core's second-level cache.
CHUNK_FLOATS = 96_000

#: Ensembles of more templates take their norms from summed vectors: the Gram matrix would cost k*k.
LARGE = 64

#: Tables of more templates take their norms from summed vectors too: Gram matrices take time with the square of that.
PAIRED = 2048


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
        # By class: the true logits are then one slice per class.
        self.order = np.argsort(labels, kind="stable")
        self.features = np.ascontiguousarray(features[self.order], dtype=np.float32)
        self.labels = np.ascontiguousarray(labels[self.order])
        self.logit_scale = np.float32(logit_scale)
        self.size = 0
        self._logits = np.empty((0, 0, len(labels)), np.float32)  # (T, C, N)
        self._vectors = np.empty((0, 0, features.shape[1]), np.float32)  # (T, C, D)
        self._gram = np.empty((0, 0, 0), np.float32)  # (T, T, C)
        self._recent = _Recent(LARGE)
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
            if self._paired:
                pairs = np.einsum("tcd,cd->tc", self._vectors[: row + 1], v)
                self._gram[row, : row + 1] = pairs
                self._gram[: row + 1, row] = pairs
        self.size = new

    def part(self, at: np.ndarray) -> TemplateTable:
        """A table of some of the pictures (some of them several times, perhaps) with all templates: nothing is encoded.

        Args:
            at: (n,) positions among the pictures as they were given.
        """
        place = np.empty(len(self.order), np.intp)
        place[self.order] = np.arange(len(self.order))
        own = place[at]
        other = TemplateTable(self.features[own], self.labels[own], float(self.logit_scale), self.memory)
        other.size = self.size
        # Views without room: a template that is added to either table makes that one copy what it has.
        other._vectors = self._vectors[: self.size]
        if self.kept:
            other._gram = self._gram[: self.size, : self.size]
            other._logits = self._logits[: self.size, :, own[other.order]]
        return other

    @property
    def kept(self) -> bool:
        """Whether per-template logits are kept; otherwise they are computed again each time."""
        return len(self._logits) > 0

    @property
    def _paired(self) -> bool:
        """Whether the Gram matrices are kept; otherwise norms come from summed vectors."""
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

        def work(part: slice | np.ndarray) -> None:
            cosines, norm = self._sums(index[part], None if weights is None else weights[part])
            accuracy[part], xent[part] = self._accuracy_xent(cosines, norm)

        if self.kept or index.shape[1] > LARGE:
            self._spread(work, self._chunks(len(index)))
            return accuracy, xent
        step = self._chunks(len(index))[0].stop
        order = _neighbours(index)
        for at in range(0, len(order), step):
            work(order[at : at + step])
        return accuracy, xent

    def figures(
        self,
        index: np.ndarray,
        weights: np.ndarray | None,
        names: Sequence[str],
        consensus: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Figures of `STATISTICS`, (S,) each, of S ensembles of k templates each; index and weights as for `score`.

        Args:
            consensus: (N,) classes, in the table's order, for "agreement".
        """
        found = {name: np.empty(len(index)) for name in names}

        def work(part: slice) -> None:
            logits = self._logits_of(index[part], None if weights is None else weights[part])
            for name in names:
                found[name][part] = STATISTICS[name](logits, self.labels, consensus)

        self._spread(work, self._chunks(len(index)))
        return found

    def consensus(self, rows: Sequence[int]) -> np.ndarray:
        """(N,) classes with the highest mean probability over these templates, in the table's order."""
        total = sum(probabilities(self._logits_of(np.array([[row]]), None))[0].astype(np.float64) for row in rows)
        return np.asarray(total).argmax(axis=0)

    def _logits_of(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """(S, C, N) logits."""
        sums, norm = self._sums(index, weights)
        sums *= (self.logit_scale / np.maximum(norm, np.float32(1e-12)))[:, :, None]
        return sums

    def grow(self, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of every ensemble that is one of the parents and one more template of the table.

        Args:
            parents: (P, k) rows of the table.

        Returns:
            (P, T) accuracy and (P, T) cross-entropy.  A template that its parent already has is counted twice:
            the caller leaves those out.
        """
        accuracy, xent = (np.empty((len(parents), self.size)) for _ in range(2))
        summed = np.stack([self._summed_vectors(parent, None) for parent in parents])  # (P, C, D)
        bases = np.stack([self._logits[p].sum(axis=0) for p in parents]) if self.kept else summed @ self.features.T
        mine = np.einsum("pcd,pcd->pc", summed, summed)
        for start, block in self._blocks():  # (s, C, N) logits
            whole = slice(start, start + len(block))
            squares = mine[:, None] + 2 * self._cross(parents, summed, whole) + self._own(whole)  # (P, s, C)

            def work(part: slice, block: np.ndarray = block, squares: np.ndarray = squares, start: int = start) -> None:
                to = slice(start + part.start, start + part.stop)
                sums = np.empty_like(block[part])
                for p, base in enumerate(bases):  # inside, so that a template is read from memory once for all parents
                    np.add(block[part], base, out=sums)
                    accuracy[p, to], xent[p, to] = self._accuracy_xent(sums, np.sqrt(squares[p, part]))

            self._spread(work, self._chunks(len(block)))
        return accuracy, xent

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Logits of all templates: as they are kept, or computed again some at a time, from the first template on."""
        if self.kept:
            yield 0, self._logits[: self.size]
            return
        step = max(1, self.memory // 8 // (4 * self._vectors.shape[1] * len(self.labels)))
        for start in range(0, self.size, step):
            yield start, np.stack([self._product(row) for row in range(start, min(start + step, self.size))])

    def _product(self, row: int) -> np.ndarray:
        """(C, N) logits of one template, the same bits whenever they are computed."""
        return np.asarray(self._vectors[row] @ self.features.T)

    def _cross(self, parents: np.ndarray, summed: np.ndarray, some: slice) -> np.ndarray:
        """(P, s, C) products of the parents' summed vectors with those of some templates."""
        if self._paired:
            return np.stack([self._gram[parent, some].sum(axis=0) for parent in parents])
        return np.einsum("scd,pcd->psc", self._vectors[some], summed)

    def _own(self, some: slice) -> np.ndarray:
        """(s, C) squared lengths of some templates' vectors."""
        return np.einsum("scd,scd->sc", self._vectors[some], self._vectors[some])

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
        if k > LARGE:
            vectors = self._vector_sums(index, weights)
            return vectors @ self.features.T, _lengths(vectors)
        w = None if weights is None else weights.astype(np.float32)
        sums = self._gather(index[:, 0])  # (S, C, N), a copy
        if w is not None:
            sums *= w[:, 0, None, None]
        for j in range(1, k):
            term = self._gather(index[:, j])
            sums += term if w is None else term * w[:, j, None, None]
        if not self._paired:
            return sums, _lengths(self._vector_sums(index, weights))
        gram = self._gram[index[:, :, None], index[:, None, :]]  # (S, k, k, C)
        if w is not None:
            gram = gram * (w[:, :, None] * w[:, None, :])[..., None]
        return sums, np.sqrt(gram.sum(axis=(1, 2)))

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """(S, C, N) logits of S templates, a copy; those that are not kept are computed, or still at hand."""
        if self.kept:
            return np.asarray(self._logits[rows])
        return np.stack([self._recent(int(row), self._product) for row in rows])

    def _vector_sums(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """(S, C, D) summed vectors of S ensembles."""
        return np.stack([self._summed_vectors(r, None if weights is None else weights[i]) for i, r in enumerate(index)])

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
        try:
            old, self._vectors = self._vectors, self._vector_array((room, classes, dim))
            self._vectors[: self.size] = old[: self.size] if self.size else 0
            logits, gram = (room, classes, len(self.labels)), (room, room, classes)
            vectors = 0 if isinstance(self._vectors, np.memmap) else self._vectors.nbytes
            known = vectors + self._logits.nbytes + self._gram.nbytes  # all there while they are copied
            self._logits = self._grown(self._logits, logits, known + 4 * math.prod(logits))
            need = known + 4 * math.prod(logits) + 4 * math.prod(gram) if room <= PAIRED else sys.maxsize
            self._gram = self._grown(self._gram, gram, need)
        except MemoryError as e:
            raise PromptSearchError(
                f"memory ran out while scoring with a budget of {self.memory / 2**30:.1f} GB: lower --memory"
            ) from e
        recent = self.memory // 4 // (4 * classes * len(self.labels))
        self._recent = _Recent(max(LARGE, recent))

    def _grown(self, old: np.ndarray, shape: tuple[int, ...], need: int) -> np.ndarray:
        """A larger array with what is known copied over; an empty one where it does not fit, and once it did not."""
        if need > self.memory or (self.size and not len(old)):
            return np.empty((0, *shape[1:]), np.float32)
        new = np.empty(shape, np.float32)
        if self.size:
            known = tuple(slice(self.size) if a != b else slice(None) for a, b in zip(old.shape, shape, strict=True))
            new[known] = old[known]
        return new

    def _vector_array(self, shape: tuple[int, int, int]) -> np.ndarray:
        need = 4 * math.prod(shape)
        if need <= self.memory // 2:
            return np.empty(shape, np.float32)
        with tempfile.TemporaryFile() as f:  # unlinked at once; the map keeps it until the array goes
            try:
                if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at some later write
                    os.posix_fallocate(f.fileno(), 0, need)
                return np.memmap(f, np.float32, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
            except OSError as e:
                raise PromptSearchError(
                    f"{tempfile.gettempdir()} has no room for {need / 2**30:.1f} GB of text vectors ({e.strerror}): "
                    "give more --memory, another folder in TMPDIR, or a smaller bank"
                ) from e


class _Recent:
    """The last arrays that were computed, each by its row."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._arrays: dict[int, np.ndarray] = {}  # the least recently used first

    def __call__(self, row: int, compute: Callable[[int], np.ndarray]) -> np.ndarray:
        array = self._arrays.pop(row, None)
        if array is None:
            array = compute(row)
            for old in list(self._arrays)[: max(0, len(self._arrays) - self.room + 1)]:
                self._arrays.pop(old, None)  # another thread may have been first
        self._arrays[row] = array
        return array


def _neighbours(index: np.ndarray) -> np.ndarray:
    """An order of the sets (S, k) in which those with the same rare template follow each other."""
    uses = np.bincount(index.reshape(-1))
    rarest = index[np.arange(len(index)), uses[index].argmin(axis=1)]
    return np.argsort(rarest, kind="stable")


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """(S, C) lengths of vectors (S, C, D)."""
    return np.sqrt(np.einsum("scd,scd->sc", vectors, vectors))
