"""Caches the text vectors of one model in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.evaluators.cache.store import Cache, read_block

#: Computes the vectors of texts in parts, and yields (positions of the texts, vectors) of each part.
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[int], np.ndarray]]]

#: A shelf of more blocks than this is rewritten as a single block.
MANY_BLOCKS = 24

#: Bytes of vectors held in memory, enough for 260,000 texts with RN50.
HELD = 2**30


class TextCache:
    """Returns cached text vectors, and computes the missing ones once.

        known = TextCache(Cache(), {"model": "…"})
        vectors = known.lookup(["a cat", "a dog"], compute=encode)  # (2, D)

    Computed vectors are written before `lookup` returns, so that a resumed run uses exactly the vectors from which its
    recorded scores were computed.

    Args:
        cache: The cache on disk.
        key: Key of the shelf: all that the vectors depend on besides the text.
        kind: Kind of the shelf.
        held: Bytes of vectors to hold in memory; others are read from disk when they are needed.
    """

    def __init__(self, cache: Cache, key: dict[str, Any], kind: str = "texts", held: int = HELD) -> None:
        self._cache, self._key, self._kind, self._most = cache, key, kind, held
        self._at: dict[bytes, tuple[int, int]] | None = None  # hash of each text -> (block, row)
        self._paths: list[Path | None] = []  # file of each block; None if it could not be written
        self._held: dict[int, np.ndarray] = {}  # vectors of the blocks in memory, least recently used first
        self._bytes = 0  # their size

    def lookup(self, texts: Sequence[str], compute: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """Return the vectors of texts.

        Args:
            texts: n texts.
            compute: Computes the vectors of the distinct texts that are not cached; called at most once.

        Returns:
            (n, D) float32 vectors.
        """
        return self.lookup_parts(texts, lambda unknown: [(range(len(unknown)), compute(unknown))])

    def lookup_parts(self, texts: Sequence[str], compute: Compute) -> np.ndarray:
        """Like `lookup`, but vectors are computed and written in parts, so that an interruption loses little work."""
        hashes = [_hash(t) for t in texts]
        self._compute_unknown(hashes, texts, compute)
        try:
            return self._gather(hashes)
        except (OSError, ValueError):  # another process merged the blocks, or one is damaged: read the shelf again
            self._at = None
            self._compute_unknown(hashes, texts, compute)
            return self._gather(hashes)

    def holds(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its vector is cached."""
        known = self._known()
        return [_hash(t) in known for t in texts]

    def compact(self) -> None:
        """Rewrite a shelf of more than `MANY_BLOCKS` blocks as one block, if all are in memory."""
        if self._at is None or len(self._paths) <= MANY_BLOCKS or len(self._held) < len(self._paths):
            return
        hashes, vectors = list(self._at), self._gather(list(self._at))
        keys = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)
        path = self._cache.add(self._kind, self._key, {"hashes": keys, "vectors": vectors})
        if path is None:
            return
        for old in self._paths:
            if old is not None and old != path and old.is_relative_to(self._cache.root):
                old.unlink(missing_ok=True)
        self._at, self._paths, self._held, self._bytes = {}, [], {}, 0
        self._take(path, hashes, vectors)

    def _compute_unknown(self, hashes: Sequence[bytes], texts: Sequence[str], compute: Compute) -> None:
        known = self._known()
        unknown = {h: t for h, t in zip(hashes, texts, strict=True) if h not in known}
        if not unknown:
            return
        keys = list(unknown)
        for part, computed in compute(list(unknown.values())):
            vectors = np.ascontiguousarray(computed, dtype=np.float32)
            names = [keys[i] for i in part]
            digests = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)
            path = self._cache.add(self._kind, self._key, {"hashes": digests, "vectors": vectors})
            self._take(path, names, vectors)

    def _known(self) -> dict[bytes, tuple[int, int]]:
        if self._at is None:
            self._at, self._paths, self._held, self._bytes = {}, [], {}, 0
            for block in self._cache.blocks(self._kind, self._key):
                self._take(block.path, [h.tobytes() for h in block.arrays["hashes"]], block.arrays["vectors"])
        return self._at

    def _take(self, path: Path | None, hashes: Sequence[bytes], vectors: np.ndarray) -> None:
        """Add a block's texts to the index, and hold its vectors in memory if there is room."""
        assert self._at is not None
        block = len(self._paths)
        self._paths.append(path)
        self._at.update((h, (block, row)) for row, h in enumerate(hashes))
        self._hold(block, vectors)

    def _hold(self, block: int, vectors: np.ndarray) -> None:
        self._held[block] = vectors
        self._bytes += vectors.nbytes
        if self._bytes <= self._most:
            return
        for old in [b for b in self._held if b != block and self._paths[b] is not None]:
            if self._bytes <= self._most:
                break
            self._bytes -= self._held.pop(old).nbytes

    def _gather(self, hashes: Sequence[bytes]) -> np.ndarray:
        """Collect the vectors (n, D) of known texts, reading each block once.

        Raises:
            OSError: A block's file is missing.
            ValueError: A block's file is damaged.
        """
        known = self._known()
        at = np.array([known[h] for h in hashes], np.intp).reshape(-1, 2)
        found = None
        for block in np.unique(at[:, 0]).tolist():
            vectors = self._held.pop(block, None)
            if vectors is None:
                vectors = read_block(self._paths[block]).arrays["vectors"]
            else:
                self._bytes -= vectors.nbytes
            self._hold(block, vectors)
            if found is None:
                found = np.empty((len(at), *vectors.shape[1:]), np.float32)
            here = at[:, 0] == block
            found[here] = vectors[at[here, 1]]
        return np.empty((0, 0), np.float32) if found is None else found


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
