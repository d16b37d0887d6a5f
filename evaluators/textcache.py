"""Text vectors that were computed before: in memory, and on the cache's shelf of one model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from promptsearch.evaluators.cache import Cache

#: Gives (positions, vectors) of parts of the texts, each text in one of them.
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[int], np.ndarray]]]

#: A shelf of more blocks than this is rewritten as one.
MANY_BLOCKS = 24


class TextCache:
    """Looks texts up and computes those that are not there, once each.

    Every `lookup` that computes writes its vectors before it returns: a run that is killed later finds, when it is
    resumed, the very bits that its recorded scores were made of.
    """

    def __init__(self, cache: Cache, key: dict[str, Any], kind: str = "texts") -> None:
        self._cache, self._key, self._kind = cache, key, kind
        self._row: dict[bytes, np.ndarray] | None = None
        self._blocks = 0

    def lookup(self, texts: Sequence[str], compute: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """(n, D) vectors of `texts`; `compute` is called at most once, with the distinct unknown ones."""
        return self.lookup_parts(texts, lambda unknown: [(range(len(unknown)), compute(unknown))])

    def lookup_parts(self, texts: Sequence[str], compute: Compute) -> np.ndarray:
        """As `lookup`, with vectors that come, and are written, a part at a time: a kill costs the parts in hand."""
        rows = self._rows()
        hashes = [_hash(t) for t in texts]
        unknown = {h: t for h, t in zip(hashes, texts, strict=True) if h not in rows}
        if unknown:
            keys = list(unknown)
            for part, computed in compute(list(unknown.values())):
                vectors = np.ascontiguousarray(computed, dtype=np.float32)
                names = [keys[i] for i in part]
                digests = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)
                self._cache.add(self._kind, self._key, {"hashes": digests, "vectors": vectors})
                self._blocks += 1
                rows.update(zip(names, vectors, strict=True))
        return np.stack([rows[h] for h in hashes])

    def holds(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text was computed before."""
        rows = self._rows()
        return [_hash(t) in rows for t in texts]

    def compact(self) -> None:
        """Rewrite a shelf of many small blocks as one."""
        if self._row is None or self._blocks <= MANY_BLOCKS:
            return
        old = [b.path for b in self._cache.blocks(self._kind, self._key) if b.path.is_relative_to(self._cache.root)]
        keys = np.frombuffer(b"".join(self._row), np.uint8).reshape(-1, 16)
        self._cache.add(self._kind, self._key, {"hashes": keys, "vectors": np.stack(list(self._row.values()))})
        for path in old:
            path.unlink(missing_ok=True)
        self._blocks = 1

    def _rows(self) -> dict[bytes, np.ndarray]:
        if self._row is None:
            self._row = {}
            for block in self._cache.blocks(self._kind, self._key):
                self._blocks += 1
                for h, v in zip(block.arrays["hashes"], block.arrays["vectors"], strict=True):
                    self._row[h.tobytes()] = v
        return self._row


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
