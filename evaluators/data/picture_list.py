"""A sequence of some pictures of a split, which reads each from its table or file on access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.encoded_picture import StoredPicture, printable_path

#: Number of pictures read from a table at a time; reading them one by one takes five times as long.
READ = 16


class StoredFile(Protocol):
    """The bytes of a picture that is stored inside another file."""

    @property
    def shown(self) -> str:
        """Return where the bytes are, for messages."""

    def read(self) -> bytes:
        """Return the bytes."""


@dataclass(frozen=True)
class TarMember:
    """A file in an uncompressed tar archive, read without unpacking the archive.

    Attributes:
        archive: Path of the archive.
        name: Its name in the archive.
        offset: Where its bytes begin in the archive.
        size: Number of its bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    @property
    def shown(self) -> str:
        """Return the archive and the file's name in it."""
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            PromptSearchError: The archive cannot be read, or ends before the file does.
        """
        try:
            with open(self.archive, "rb") as f:
                f.seek(self.offset)
                content = f.read(self.size)
        except OSError as e:
            raise PromptSearchError(f"{printable_path(self.archive)} cannot be read ({e.strerror or e})") from e
        if len(content) < self.size:
            raise PromptSearchError(f"{printable_path(self.archive)} ends within {printable_path(self.name)}")
        return content


class StoredPictures(Sequence[StoredPicture]):
    """Some pictures of a split, each read into memory on access.

    Args:
        table: A `datasets.Dataset` with one column, the encoded pictures.
        where: Data set and split, for messages.
        indices: Pictures of the split, in the order of the sequence.
        condition: The condition that is applied when a picture is opened.
        files: The picture files, if the pictures are not in the table.
        rows: Rows of the table, and of `files`, that the split consists of; None for all.
    """

    def __init__(
        self,
        table: Any,
        where: str,
        indices: Sequence[int],
        condition: str | None,
        files: Sequence[str | StoredFile] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self._table, self._where, self._indices, self._condition = table, where, indices, condition
        self._files, self._rows = files, rows

    def at(self, indices: Sequence[int]) -> StoredPictures:
        """Return other pictures of the same split."""
        return StoredPictures(self._table, self._where, indices, self._condition, self._files, self._rows)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, at: int) -> StoredPicture: ...

    @overload
    def __getitem__(self, at: slice) -> list[StoredPicture]: ...

    def __getitem__(self, at: int | slice) -> StoredPicture | list[StoredPicture]:
        """Return one picture, or a slice that is read at once.

        Raises:
            InputError: An index is not in the split.
        """
        if not isinstance(at, slice):
            return self[at : at + 1][0]
        indices = [int(i) for i in self._indices[at]]
        there = len(self._table) if self._rows is None else len(self._rows)
        for index in indices:
            if not 0 <= index < there:
                raise InputError(f"{self._where}: no picture {index}, there are {there}")
        found = []
        for index, cell in zip(indices, self._cells(indices), strict=True):
            content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
            found.append(StoredPicture(content, path, f"{self._where}, picture {index}", self._condition))
        return found

    def _cells(self, indices: list[int]) -> list[Any]:
        rows = indices if self._rows is None else self._rows[indices].tolist()
        if self._files is not None:
            return [_cell(self._files[row]) for row in rows]
        cells: list[Any] = self._table[rows][self._table.column_names[0]] if rows else []
        return cells

    def __iter__(self) -> Iterator[StoredPicture]:
        for at in range(0, len(self), READ):
            yield from self[at : at + READ]


def _cell(file: str | StoredFile) -> dict[str, Any]:
    return {"path": file} if isinstance(file, str) else {"bytes": file.read(), "path": file.shown}
