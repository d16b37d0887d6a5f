"""A content-addressed cache of arrays on disk.

A shelf is the folder of one kind and key, e.g. the texts of one model. It holds blocks, which are safetensors files
that are written atomically and verified when they are read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchWarning

#: Folder of the embedded model with its feature packs.
MODELS = Path(__file__).resolve().parents[1] / "models"

FORMAT = 1


class CacheWarning(PromptSearchWarning):
    """The cache cannot be written, or a file in it is damaged; the features are computed again."""


@dataclass(frozen=True)
class Block:
    """The content of one file of a shelf.

    Attributes:
        arrays: Arrays by name.
        key: The key of the shelf, e.g. the model's fingerprint.
        meta: Further JSON-serialisable data.
        path: The file.
    """

    arrays: dict[str, np.ndarray]
    key: dict[str, Any]
    meta: dict[str, Any]
    path: Path


def default_cache_dir() -> Path:
    """Return `$PROMPTSEARCH_CACHE` if it is set, else the user's cache folder on this system."""
    if named := os.environ.get("PROMPTSEARCH_CACHE"):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("promptsearch"))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a JSON-serialisable value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _checksum(arrays: Mapping[str, np.ndarray], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        a = arrays[name]
        digest.update(f"{name}:{a.dtype.str}:{a.shape}".encode())
        digest.update(np.asarray(a, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_block(path: Path) -> Block:
    """Read and verify one block.

    Raises:
        ValueError: The file is truncated, damaged or of another format.
        OSError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as f:
            header = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise
    except (SafetensorError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"not a readable safetensors file ({e})") from e
    if "promptsearch" not in header or "checksum" not in header:
        raise ValueError("not a file of promptsearch's cache")
    if _checksum(arrays, header["promptsearch"]) != header["checksum"]:
        raise ValueError("its checksum does not match")
    try:
        about = json.loads(header["promptsearch"])
        form, key, meta = about["format"], dict(about["key"]), dict(about["meta"])
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ValueError("its header is not one that promptsearch writes") from e
    if form != FORMAT:
        raise ValueError(f"format {form}, this version reads {FORMAT}")
    return Block({} if "empty" in meta else arrays, key, meta, path)


def write_block(
    folder: Path,
    key: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    meta: dict[str, Any],
    name: str | None = None,
) -> Path:
    """Write one block atomically, with a checksum that `read_block` verifies.

    Args:
        folder: Folder to write to, created if needed.
        key: Key of the shelf.
        arrays: Arrays by name.
        meta: Further JSON-serialisable data.
        name: The file's name; by default the hash of its content.

    Returns:
        The file.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    if not arrays:  # safetensors does not write files without a tensor
        arrays, meta = {"empty": np.zeros(1, np.uint8)}, {**meta, "empty": True}
    about = json.dumps({"format": FORMAT, "key": key, "meta": meta}, sort_keys=True)
    checksum = _checksum(arrays, about)
    data = save({k: np.asarray(v, order="C") for k, v in arrays.items()}, {"promptsearch": about, "checksum": checksum})
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (name or f"{checksum[:24]}.safetensors")
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


class Cache:
    """Shelves of blocks in a writable folder, and in read-only feature packs.

        cache = Cache()
        cache.add("pictures", {"model": "…", "data": "…"}, {"features": features})
        for block in cache.blocks("pictures", {"model": "…", "data": "…"}):
            print(block.arrays["features"].shape)

    Args:
        root: The writable folder; by default `default_cache_dir()`.
        packs: Further folders that are only read, after `root`.
    """

    def __init__(self, root: Path | None = None, packs: Sequence[Path] = ()) -> None:
        self.root = Path(root) if root is not None else default_cache_dir()
        self.packs = tuple(packs)
        self._told_unwritable = False

    def shelf(self, kind: str, key: dict[str, Any]) -> Path:
        """Return the folder of a shelf, which need not exist."""
        return self.root / kind / digest_of(key)

    def holds(self, kind: str, key: dict[str, Any]) -> bool:
        """Return whether a shelf has any file, even a damaged one."""
        return any(any((r / kind / digest_of(key)).glob("*.safetensors")) for r in (self.root, *self.packs))

    def blocks(self, kind: str, key: dict[str, Any]) -> Iterator[Block]:
        """Yield the blocks of a shelf; damaged files are renamed with a warning and skipped."""
        for root in (self.root, *self.packs):
            folder = root / kind / digest_of(key)
            for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
                try:
                    block = read_block(path)
                except FileNotFoundError:  # another process cleared it between listing and reading
                    continue
                except (ValueError, OSError) as e:
                    self._put_away(path, e)
                    continue
                if block.key == key:
                    yield block

    def get(self, kind: str, key: dict[str, Any]) -> Block | None:
        """Return the block of a shelf with a single block, or None if it is missing or damaged."""
        return next(self.blocks(kind, key), None)

    def headers(self, kind: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the key and the meta data of every block of a kind, without its arrays; damaged files are skipped."""
        from safetensors import SafetensorError, safe_open

        for root in (self.root, *self.packs):
            for path in sorted((root / kind).glob("*/*.safetensors")):
                try:
                    with safe_open(str(path), framework="np") as f:
                        about = json.loads((f.metadata() or {})["promptsearch"])
                    yield about["key"], about["meta"]
                except (SafetensorError, KeyError, ValueError, OSError):
                    continue

    def add(
        self, kind: str, key: dict[str, Any], arrays: Mapping[str, np.ndarray], meta: dict[str, Any] | None = None
    ) -> Path | None:
        """Write a block to a shelf.

        Args:
            kind: Kind of the shelf, e.g. "texts".
            key: Key of the shelf.
            arrays: Arrays by name.
            meta: Further JSON-serialisable data.

        Returns:
            The file, or None if the cache cannot be written; a warning says so once.
        """
        try:
            return write_block(self.shelf(kind, key), key, arrays, meta or {})
        except OSError as e:
            if not self._told_unwritable:
                self._told_unwritable = True
                reason = e.strerror or e
                warnings.warn(
                    f"the cache {self.root} cannot be written ({reason}), so features are computed again each time; "
                    "set PROMPTSEARCH_CACHE to a writable folder",
                    CacheWarning,
                    stacklevel=2,
                )
            return None

    def _put_away(self, path: Path, error: Exception) -> None:
        where = "is renamed to .damaged and computed again"
        if any(path.is_relative_to(pack) for pack in self.packs):
            where = "is ignored; reinstall promptsearch to restore it"
        else:
            try:
                path.replace(path.with_suffix(".damaged"))
            except OSError:
                where = "is ignored and computed again"
        warnings.warn(f"cache file {path} is damaged ({error}): it {where}", CacheWarning, stacklevel=3)

    def info(self) -> list[tuple[str, int, int]]:
        """Return (kind, number of files, bytes) for each kind of shelf in the writable folder."""
        rows = []
        for kind in sorted(p for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else ():
            sizes = [p.stat().st_size for p in kind.rglob("*") if p.is_file()]
            rows.append((kind.name, len(sizes), sum(sizes)))
        return rows

    def clear(self, kind: str | None = None) -> int:
        """Delete everything in the writable folder, or one kind of shelf.

        Args:
            kind: The kind to delete; None for all.

        Returns:
            The number of bytes freed.

        Raises:
            InputError: The kind does not exist or cannot be deleted.
        """
        rows = self.info()
        if kind is not None and kind not in {r[0] for r in rows}:
            raise InputError(f"the cache {self.root} has no kind {kind!r}; choose from {', '.join(r[0] for r in rows)}")
        freed = 0
        for name, _, size in rows:
            if kind in (None, name):
                try:
                    shutil.rmtree(self.root / name)
                except OSError as e:
                    raise InputError(f"cannot clear {self.root / name}: {e.strerror}") from e
                freed += size
        return freed


def model_folders() -> dict[str, Path]:
    """Return the folders of the models that are known by name: the embedded one, and those in $PROMPTSEARCH_MODELS.

    Each is in open_clip's form (`open_clip_config.json` and weights) and may hold feature packs in a folder `pack`.
    """
    roots = [Path(own)] if (own := os.environ.get("PROMPTSEARCH_MODELS")) else []
    configs = [c for root in (*roots, MODELS) for c in sorted(root.glob("*/open_clip_config.json"))]
    return {config.parent.name: config.parent for config in configs}


def default_cache() -> Cache:
    """Return the user's cache, together with the feature packs of the models that are known by name."""
    return Cache(packs=[folder / "pack" for folder in model_folders().values() if (folder / "pack").is_dir()])


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
                self._take(block.path, block.arrays["hashes"].view("V16")[:, 0].tolist(), block.arrays["vectors"])
        return self._at

    def _take(self, path: Path | None, hashes: Sequence[bytes], vectors: np.ndarray) -> None:
        """Add a block's texts to the index, and hold its vectors in memory if there is room."""
        assert self._at is not None
        block = len(self._paths)
        self._paths.append(path)
        self._at.update(zip(hashes, zip(itertools.repeat(block), range(len(hashes))), strict=True))
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
