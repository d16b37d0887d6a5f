"""Text vectors that were computed before: in memory, and on the cache's shelf of one model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.evaluators.cache.store import Cache, read_block

#: Gives (positions, vectors) of parts of the texts, each text in one of them.
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[int], np.ndarray]]]

#: A shelf of more blocks than this is rewritten as one.
MANY_BLOCKS = 24

#: Bytes of vectors held in memory: 260,000 texts of RN50's.
HELD = 2**30


class TextCache:
    """Looks texts up and computes those that are not there, once each.

        known = TextCache(Cache(), {"model": "…"})
        vectors = known.lookup(["a cat", "a dog"], compute=encode)  # (2, D)

    Every `lookup` that computes writes its vectors before it returns: a run that is killed later finds, when it is
    resumed, the very bits that its recorded scores were made of.

    Args:
        held: bytes of vectors that stay in memory; those beyond are read again from their blocks when they are needed.
    """

    def __init__(self, cache: Cache, key: dict[str, Any], kind: str = "texts", held: int = HELD) -> None:
        self._cache, self._key, self._kind, self._most = cache, key, kind, held
        self._at: dict[bytes, tuple[int, int]] | None = None  # of each text: its block, and its row there
        self._paths: list[Path | None] = []  # of the blocks; None where it could not be written
        self._held: dict[int, np.ndarray] = {}  # the least recently used block first
        self._bytes = 0  # of those

    def lookup(self, texts: Sequence[str], compute: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """(n, D) vectors of `texts`; `compute` is called at most once, with the distinct unknown ones."""
        return self.lookup_parts(texts, lambda unknown: [(range(len(unknown)), compute(unknown))])

    def lookup_parts(self, texts: Sequence[str], compute: Compute) -> np.ndarray:
        """As `lookup`, with vectors that come, and are written, a part at a time: a kill costs the parts in hand."""
        hashes = [_hash(t) for t in texts]
        self._compute_unknown(hashes, texts, compute)
        try:
            return self._gather(hashes)
        except (OSError, ValueError):  # another process put blocks together, or one was damaged: look again
            self._at = None
            self._compute_unknown(hashes, texts, compute)
            return self._gather(hashes)

    def holds(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text was computed before."""
        known = self._known()
        return [_hash(t) in known for t in texts]

    def compact(self) -> None:
        """Rewrite a shelf of many small blocks as one, where all are in memory."""
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
        """Remember a block's texts, and its vectors while there is room."""
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
        """(n, D) vectors of known texts, block by block.  Raises OSError or ValueError where a block is gone."""
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
