"""Finds test pictures that a search may have seen, because the training split holds the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from promptsearch.evaluators.data.encoded_picture import StoredPicture

#: Number of bytes at each end of a picture that are compared first; size and ends tell nearly all pictures apart.
END = 4096


class Pictures(Protocol):
    """The pictures of a training and a test split."""

    def contents(self, split: str, end: int) -> Iterator[tuple[bytes, ...]]:
        """Yield the size and the first and last `end` bytes of every picture."""

    def stored(self, split: str, indices: Iterable[int]) -> Iterator[StoredPicture]:
        """Yield the pictures at these indices."""


def count_shared(data: Pictures, trained: Pictures | None = None) -> int:
    """Count the test pictures whose bytes are those of a training picture.

    Args:
        data: The pictures with the test split.
        trained: The pictures with the training split; by default the same.
    """
    trained = data if trained is None else trained
    known: dict[bytes, int] = {}
    for i, ends in enumerate(_ends(trained, "train")):
        known.setdefault(ends, i)
    alike = [(i, known[ends]) for i, ends in enumerate(_ends(data, "test")) if ends in known]
    if not alike:
        return 0
    tests, trains = data.stored("test", [i for i, _ in alike]), trained.stored("train", [i for _, i in alike])
    return sum(a.packed().content == b.packed().content for a, b in zip(tests, trains, strict=True))


def _ends(data: Pictures, split: str) -> Iterator[bytes]:
    """Yield a digest of the size and the first and last bytes of every picture."""
    for content in data.contents(split, END):
        yield hashlib.blake2b(b"".join(content), digest_size=16).digest()


def ends_of_cells(column: Any, end: int) -> Iterator[tuple[bytes, bytes, bytes] | None]:
    """Yield size, first and last bytes of each picture in an Arrow column without copying it; None if it is empty."""
    import pyarrow as pa

    for chunk in column.chunks:
        cells = chunk.field("bytes") if isinstance(chunk, pa.StructArray) else chunk
        for cell in cells:
            if not cell.is_valid:
                yield None
                continue
            buffer = memoryview(cell.as_buffer())
            yield str(len(buffer)).encode(), bytes(buffer[:end]), bytes(buffer[-end:])


def ends_of_file(path: str, end: int) -> tuple[bytes, bytes, bytes]:
    """Return size, first and last bytes of a file.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as f:
        size = f.seek(0, 2)
        f.seek(0)
        head = f.read(end)
        f.seek(max(0, size - end))
        return str(size).encode(), head, f.read(end)


def ends_of_bytes(content: bytes, end: int) -> tuple[bytes, bytes, bytes]:
    """Return size, first and last bytes of a file's content."""
    return str(len(content)).encode(), content[:end], content[-end:]
