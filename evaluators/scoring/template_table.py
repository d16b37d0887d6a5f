"""Scores many prompt ensembles at once from cached per-template logits.

The class weight of an ensemble is normalise(sum of the unit text vectors v of its templates), as in open_clip. Its
logits are therefore  scale * (sum_t x.v_tc) / |sum_t v_tc| : sums of the templates' cosines, divided by a norm that
follows from the templates' Gram matrix. One more template costs one addition and no encoding.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.encoding.device import available_cores
from promptsearch.evaluators.scoring.metrics import STATISTICS, Losses, probabilities


def quarter_of_ram() -> int:
    """Return a quarter of the machine's memory in bytes, or 2 GiB if the system does not tell its size."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 2 << 30


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, numpy or torch (CPU or CUDA) says that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )


def filed(shape: tuple[int, ...]) -> tuple[np.ndarray, mmap.mmap]:
    """Create a float32 array in a memory-mapped temporary file.

    Args:
        shape: Shape of the array.

    Returns:
        The array and the memory map.

    Raises:
        PromptSearchError: The folder of temporary files does not have enough space.
    """
    need = 4 * math.prod(shape)
    with tempfile.TemporaryFile() as f:  # the file is unlinked already; the map keeps it as long as the array lives
        try:
            if hasattr(os, "posix_fallocate"):  # without this, a full disk would kill the process at a later write
                os.posix_fallocate(f.fileno(), 0, need)
            else:
                f.truncate(need)
            file = mmap.mmap(f.fileno(), need)
        except OSError as e:
            raise PromptSearchError(
                f"{tempfile.gettempdir()} has no room for {need / 2**30:.1f} GB of text vectors ({e.strerror}); "
                "increase --memory, set TMPDIR to another folder, or use a smaller bank"
            ) from e
    return np.frombuffer(file, np.float32).reshape(shape), file


def let_go(*files: mmap.mmap | None) -> None:
    """Drop resident pages; they are re-read from the files on demand."""
    for file in files:
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)


#: The norms of larger ensembles are computed from summed vectors, because the Gram matrix costs k * k.
LARGE = 64

#: Number of templates whose vectors are copied at a time.
PAIRS = 64


class Gram:
    """Gram matrices of the templates' vectors, one per class, whose rows are computed on demand.

        gram = Gram(np.empty((2048, 2048, 10), np.float32))
        gram.add(vectors, row=0)                # template 0 with itself
        gram.know(vectors, size, index)         # every pair in these sets (S, k)
        norm = gram.norms(index, None)

    Computing all rows would take time quadratic in the size of the bank, and the sets of a beam search need only a few.
    A product has the same bits whichever row it is computed with.

    Args:
        products: (T, T, C) uninitialised memory for the products.
    """

    def __init__(self, products: np.ndarray) -> None:
        self.products = products
        # Number of computed products at the start of each row. It may differ between tables that share rows, because a
        # template may be added to only one of them.
        self._known = np.zeros(len(products), np.intp)

    def __len__(self) -> int:
        return len(self.products)

    def grown(self, products: np.ndarray) -> Gram:
        """Return the same matrices in larger memory, to which the known products were copied."""
        other = Gram(products)
        other._known[: len(self._known)] = self._known[: len(other._known)]
        return other

    def part(self, size: int) -> Gram:
        """Return the matrices of the first `size` templates; both objects share what is computed later."""
        other = Gram(self.products[:size, :size])
        other._known = self._known[:size]
        return other

    def add(self, vectors: np.ndarray, row: int) -> None:
        """Compute a new template's product with itself, and with the templates whose rows are complete up to it.

        Args:
            vectors: (T, C, D) class vectors of the templates.
            row: Index of the new template.
        """
        whole = np.flatnonzero(self._known[:row] == row)
        self._multiply(vectors, np.append(whole, row), row)
        self._known[whole] = row + 1

    def know(self, vectors: np.ndarray, size: int, index: np.ndarray) -> None:
        """Compute the products of all pairs within sets, unless the sets are large.

        Args:
            vectors: (T, C, D) class vectors of the templates.
            size: Number of templates in use.
            index: (S, k) templates of S sets.
        """
        if not len(self) or index.shape[1] > LARGE:
            return
        for a, b in itertools.combinations(range(index.shape[1]), 2):
            pairs = index[:, [a, b]]
            while len(pairs := pairs[(self._known[pairs] <= pairs[:, ::-1]).all(axis=1)]):
                self.know_row(vectors, size, int(np.bincount(pairs.reshape(-1)).argmax()))

    def know_row(self, vectors: np.ndarray, size: int, row: int) -> None:
        """Compute the products of one template with all templates in use."""
        if self._known[row] < size:
            self._multiply(vectors, np.arange(self._known[row], size), row)
            self._known[row] = size

    def norms(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return the lengths (S, C) of the summed vectors of sets (S, k); all pairs must be known.

        Args:
            index: (S, k) templates of S sets.
            weights: (S, k) float32 weights, or None for equal ones.
        """
        total = np.zeros((len(index), self.products.shape[2]), np.float32)
        for a, b in itertools.combinations_with_replacement(range(index.shape[1]), 2):
            products = self.products[index[:, a], index[:, b]]  # (S, C)
            if weights is not None:
                products *= (weights[:, a] * weights[:, b])[:, None]
            total += products if a == b else products + products  # a pair stands on both sides of the diagonal
        return np.sqrt(total)

    def _multiply(self, vectors: np.ndarray, others: np.ndarray, row: int) -> None:
        for at in range(0, len(others), PAIRS):
            some = others[at : at + PAIRS]
            products = np.einsum("tcd,cd->tc", vectors[some], vectors[row])
            self.products[row, some] = products
            self.products[some, row] = products


#: Floats of working memory per chunk of sets: few enough for a core's second-level cache, and enough that threads
#: seldom wait for each other between two of numpy's loops.
CHUNK_FLOATS = 330_000

#: Number of chunks that a thread takes at a time.
CHUNKS = 16

#: Arrays (C, N) of more floats are summed set by set, smaller ones for many sets at once.
SMALL = 16_000

#: Larger tables compute norms from summed vectors, because the memory of Gram matrices is quadratic in their size.
PAIRED = 2048

#: Number of templates whose vectors are copied at a time.
PART = 256


class TemplateTable:
    """Per-template logits and Gram matrices on one set of pictures, which grow as templates are added.

    Args:
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: Factor of the cosines in the cross-entropy.
        memory: Largest number of bytes that the table may use; by default a quarter of the RAM. If the logits of all
            templates do not fit, they are computed again whenever they are needed. If the vectors take more than half
            of it, they are stored in a temporary file.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, logit_scale: float, memory: int | None = None) -> None:
        self.memory = quarter_of_ram() if memory is None else memory
        # Sort the pictures by class, so that the true logits are one slice per class.
        self.order = np.argsort(labels, kind="stable")
        self.features = np.ascontiguousarray(features[self.order], dtype=np.float32)
        self.labels = np.ascontiguousarray(labels[self.order])
        self.logit_scale = np.float32(logit_scale)
        self._losses = Losses(self.labels, logit_scale)
        self.size = 0
        self._logits = np.empty((0, 0, len(labels)), np.float32)  # (T, C, N)
        self._vectors = np.empty((0, 0, features.shape[1]), np.float32)  # (T, C, D)
        self._file: mmap.mmap | None = None  # memory map of the vectors, if they are in a file
        self._gram = Gram(np.empty((0, 0, 0), np.float32))
        self._recent = _Recent(1)
        self._cores = available_cores()

    def add(self, vectors: np.ndarray) -> None:
        """Add templates by their unit class vectors (T, C, D)."""
        t, c, d = vectors.shape
        new = self.size + t
        if new > len(self._vectors):
            room = max(new, 2 * len(self._vectors))
            self._make_room(room, c, d)
        for row, v in enumerate(vectors, self.size):
            # One product of the same shape for every template gives the same bits whatever else is added with it. A
            # resumed run, which scores its sets in other batches, therefore gets the same scores.
            self._vectors[row] = v
            if self.kept:
                self._logits[row] = v @ self.features.T
            if self._paired:
                self._gram.add(self._vectors, row)
        self.size = new
        let_go(self._file)

    @property
    def processes(self) -> int:
        """Number of processes that can have a table on as many pictures each: cores, as far as memory allows."""
        return min(self._cores, 1 + self.memory // max(1, self._logits.nbytes)) if self.kept else 1

    def part(self, at: np.ndarray, threads: int | None = None) -> TemplateTable:
        """Return a table with the same templates on some of the pictures, without encoding anything.

        Args:
            at: (n,) indices of the pictures, in the order in which they were given; they may repeat.
            threads: Number of threads that score sets; by default one per core.
        """
        place = np.empty(len(self.order), np.intp)
        place[self.order] = np.arange(len(self.order))
        own = place[at]
        other = TemplateTable(self.features[own], self.labels[own], float(self.logit_scale), self.memory)
        other.size, other._file, other._cores = self.size, self._file, threads or self._cores
        # These are views without spare memory: when a template is added to either table, it copies its arrays.
        other._vectors = self._vectors[: self.size]
        if self.kept:
            other._gram = self._gram.part(self.size)
            # Contiguous, unlike what indexing gives: sums of its rows take several times as long.
            other._logits = self._logits[: self.size].take(own[other.order], axis=2)
        return other

    def rescale(self, logit_scale: float) -> None:
        """Set the logit scale by which cosines are multiplied."""
        self.logit_scale = np.float32(logit_scale)
        self._losses = Losses(self.labels, logit_scale)

    @property
    def kept(self) -> bool:
        """Whether the per-template logits are stored; otherwise they are computed again each time."""
        return len(self._logits) > 0

    @property
    def _paired(self) -> bool:
        """Whether Gram matrices are stored; otherwise norms are computed from summed vectors."""
        return len(self._gram) > 0

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """Return the unit class vectors (k, C, D) of k templates."""
        return self._vectors[list(rows)]

    def score(self, index: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute accuracy and cross-entropy of S ensembles of k templates each.

        Args:
            index: (S, k) rows of the table.
            weights: (S, k) positive weights, or None for equal ones.

        Returns:
            (S,) accuracy and (S,) mean cross-entropy in nats, both float64.
        """
        accuracy, xent = np.empty(len(index)), np.empty(len(index))

        self._gram.know(self._vectors, self.size, index)
        together = self.kept or index.shape[1] > LARGE
        order = np.arange(len(index)) if together else _neighbours(index)

        def work(part: slice, room: np.ndarray) -> None:
            at = order[part]
            sets, w = index[at], None if weights is None else weights[at]
            # All norms of the part at once: those of a few sets take as long as those of many.
            norms = self._gram_norms(sets, w)
            pieces = (
                (to, *self._sums(sets[to], None if w is None else w[to], room, None if norms is None else norms[to]))
                for to in self._chunks(len(at))
            )
            accuracy[at], xent[at] = self._losses(
                len(at), pieces, lambda i: self._logits_of(sets[i, None], None if w is None else w[i, None], room)
            )

        self._spread(work, self._chunks(len(index), CHUNKS), self._cores if together else 1)
        return accuracy, xent

    def figures(
        self,
        index: np.ndarray,
        weights: np.ndarray | None,
        names: Sequence[str],
        consensus: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Compute metrics of S ensembles of k templates each.

        Args:
            index: (S, k) rows of the table.
            weights: (S, k) positive weights, or None for equal ones.
            names: Names of metrics, keys of `STATISTICS`.
            consensus: (N,) classes in the table's order, needed for "agreement".

        Returns:
            (S,) float64 for each metric.
        """
        found = {name: np.empty(len(index)) for name in names}
        self._gram.know(self._vectors, self.size, index)

        def work(part: slice, room: np.ndarray) -> None:
            logits = self._logits_of(index[part], None if weights is None else weights[part], room)
            for name in names:
                found[name][part] = STATISTICS[name](logits, self.labels, consensus)

        self._spread(work, self._chunks(len(index)))
        return found

    def consensus(self, rows: Sequence[int]) -> np.ndarray:
        """Return for each picture, in the table's order, the class of the highest mean probability over templates."""
        room = self._room()
        total = sum(probabilities(self._logits_of(np.array([[row]]), None, room))[0].astype(np.float64) for row in rows)
        return np.asarray(total).argmax(axis=0)

    def _logits_of(self, index: np.ndarray, weights: np.ndarray | None, room: np.ndarray) -> np.ndarray:
        """Compute logits (S, C, N) in the working memory `room`."""
        sums, norm = self._sums(index, weights, room)
        sums *= self._losses.scales(norm)
        return sums

    def _product(self, row: int) -> np.ndarray:
        """Compute the cosines (C, N) of one template; the bits do not depend on other templates."""
        return np.asarray(self._vectors[row] @ self.features.T)

    def _chunks(self, sets: int, pieces: int = 1) -> list[slice]:
        """Split sets into parts of at most `pieces` times what fits into the working memory."""
        step = pieces * max(1, CHUNK_FLOATS // max(1, self._vectors.shape[1] * len(self.labels)))
        parts = -(-sets // step)
        if pieces > 1:  # at least one part for every thread
            parts = min(sets, max(parts, self._cores))
        step = -(-sets // max(1, parts))  # of equal size
        return [slice(at, min(at + step, sets)) for at in range(0, sets, max(1, step))]

    def _spread(
        self, work: Callable[[slice, np.ndarray], None], chunks: Sequence[slice], threads: int | None = None
    ) -> None:
        """Work through chunks in threads, which run in parallel because numpy releases the interpreter's lock.

        Args:
            work: Called with a chunk and the thread's working memory (s, C, N), which is allocated once per thread
                because new memory for every chunk would take as long as the arithmetic.
            chunks: The chunks.
            threads: Number of threads; by default one per core.
        """
        left = iter(chunks)

        def one_thread(_: int) -> None:
            room = self._room()
            for part in left:  # the iterator is shared by all threads
                work(part, room)

        threads = min(threads or self._cores, len(chunks))
        if threads < 2:
            one_thread(0)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one_thread, range(threads)):
                pass

    def _room(self) -> np.ndarray:
        """Allocate working memory (s, C, N)."""
        shape = self._vectors.shape[1], len(self.labels)
        return np.empty((max(1, CHUNK_FLOATS // max(1, math.prod(shape))), *shape), np.float32)

    def _sums(
        self, index: np.ndarray, weights: np.ndarray | None, room: np.ndarray, norms: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed cosines (S, C, N), in `room`, and the norms (S, C) of the summed vectors, unless given."""
        sums = room[: len(index)]
        if index.shape[1] > LARGE:
            vectors = self._vector_sums(index, weights)
            return np.matmul(vectors, self.features.T, out=sums), _lengths(vectors)
        self._add_up(index, None if weights is None else weights.astype(np.float32), sums)
        norms = self._gram_norms(index, weights) if norms is None else norms
        return sums, _lengths(self._vector_sums(index, weights)) if norms is None else norms

    def _gram_norms(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        """Return the norms (S, C) by the Gram matrices, or None if these are not used."""
        if not self._paired or index.shape[1] > LARGE:
            return None
        return self._gram.norms(index, None if weights is None else weights.astype(np.float32))

    def _add_up(self, index: np.ndarray, weights: np.ndarray | None, out: np.ndarray) -> None:
        """Write the weighted sums (S, C, N) of the templates' cosines to `out`, computing those that are not stored."""
        if self.kept and math.prod(out.shape[1:]) < SMALL:
            np.take(self._logits, index[:, 0], axis=0, out=out, mode="clip")
            if weights is not None:
                out *= weights[:, 0, None, None]
            for j in range(1, index.shape[1]):
                term = self._logits[index[:, j]]
                out += term if weights is None else term * weights[:, j, None, None]
            return
        for i, row in enumerate(index.tolist()):
            for j, template in enumerate(row):
                known = self._logits[template] if self.kept else self._recent(template, self._product)
                term = known if weights is None else known * weights[i, j]
                np.add(out[i], term, out=out[i]) if j else np.copyto(out[i], term)

    def _vector_sums(self, index: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return the summed vectors (S, C, D) of S ensembles."""
        return np.stack([self._summed_vectors(r, None if weights is None else weights[i]) for i, r in enumerate(index)])

    def _summed_vectors(self, row: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        w = np.ones(len(row), np.float32) if weights is None else weights.astype(np.float32)
        return np.tensordot(w, self._vectors[row], axes=1)  # (C, D)

    def _make_room(self, room: int, classes: int, dim: int) -> None:
        """Allocate larger arrays and copy the old ones; logits and Gram matrices are dropped once they do not fit."""
        try:
            old, file, shape = self._vectors, self._file, (room, classes, dim)
            if 4 * math.prod(shape) <= self.memory // 2:
                self._vectors, self._file = np.empty(shape, np.float32), None
            else:
                self._vectors, self._file = filed(shape)
            for at in range(0, self.size, PART):
                part = slice(at, min(at + PART, self.size))
                self._vectors[part] = old[part]
                let_go(file, self._file)
            logits, gram = (room, classes, len(self.labels)), (room, room, classes)
            vectors = 0 if self._file is not None else self._vectors.nbytes
            # memory that is also used during the copy
            known = vectors + self._logits.nbytes + self._gram.products.nbytes
            self._logits = self._grown(self._logits, logits, known + 4 * math.prod(logits))
            need = known + 4 * math.prod(logits) + 4 * math.prod(gram) if room <= PAIRED else sys.maxsize
            self._gram = self._gram.grown(self._grown(self._gram.products, gram, need))
        except MemoryError as e:
            raise PromptSearchError(
                f"memory ran out while scoring with a budget of {self.memory / 2**30:.1f} GB; use a smaller --memory"
            ) from e
        self._recent = _Recent(max(1, self.memory // 4 // (4 * classes * len(self.labels))))

    def _grown(self, old: np.ndarray, shape: tuple[int, ...], need: int) -> np.ndarray:
        """Copy an array to a larger one; return an empty one if it does not fit, or did not fit before."""
        if need > self.memory or (self.size and not len(old)):
            return np.empty((0, *shape[1:]), np.float32)
        new = np.empty(shape, np.float32)
        if self.size:
            known = tuple(slice(self.size) if a != b else slice(None) for a, b in zip(old.shape, shape, strict=True))
            new[known] = old[known]
        return new


class _Recent:
    """A cache of the most recently used arrays.

    Args:
        room: Largest number of arrays.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._arrays: dict[int, np.ndarray] = {}  # the least recently used first

    def __call__(self, row: int, compute: Callable[[int], np.ndarray]) -> np.ndarray:
        array = self._arrays.pop(row, None)
        if array is None:
            array = compute(row)
            for old in list(self._arrays)[: max(0, len(self._arrays) - self.room + 1)]:
                self._arrays.pop(old, None)  # another thread may have removed it already
        self._arrays[row] = array
        return array


def _neighbours(index: np.ndarray) -> np.ndarray:
    """Return an order of sets (S, k) in which sets that share a rare template are adjacent."""
    uses = np.bincount(index.reshape(-1))
    rarest = index[np.arange(len(index)), uses[index].argmin(axis=1)]
    return np.argsort(rarest, kind="stable")


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths (S, C) of vectors (S, C, D)."""
    return np.sqrt(np.einsum("scd,scd->sc", vectors, vectors))
