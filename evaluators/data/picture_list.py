"""A sequence of some pictures of a split, which reads each from its table on access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from promptsearch.errors import InputError
from promptsearch.evaluators.data.encoded_picture import StoredPicture

#: Pictures read from a table at a time: one by one takes five times as long.
READ = 16


class StoredPictures(Sequence[StoredPicture]):
    """Some pictures of a split, each read into memory on access.

    Args:
        table: A `datasets.Dataset` with one column, the encoded pictures.
        where: Data set and split, for messages.
        indices: Rows of the table, in the order of the sequence.
        files: The picture files, if the pictures are not in the table.
    """

    def __init__(
        self,
        table: Any,
        where: str,
        indices: Sequence[int],
        condition: str | None,
        files: Sequence[str] | None = None,
    ) -> None:
        self._table, self._where, self._indices, self._condition = table, where, indices, condition
        self._files = files

    def at(self, indices: Sequence[int]) -> StoredPictures:
        """Return other pictures of the same split."""
        return StoredPictures(self._table, self._where, indices, self._condition, self._files)

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
        rows = [int(i) for i in self._indices[at]]
        for index in rows:
            if not 0 <= index < len(self._table):
                raise InputError(f"{self._where}: no picture {index}, there are {len(self._table)}")
        found = []
        for index, cell in zip(rows, self._cells(rows), strict=True):
            content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
            found.append(StoredPicture(content, path, f"{self._where}, picture {index}", self._condition))
        return found

    def _cells(self, rows: list[int]) -> list[Any]:
        if self._files is not None:
            return [{"path": self._files[i]} for i in rows]
        cells: list[Any] = self._table[rows][self._table.column_names[0]] if rows else []
        return cells

    def __iter__(self) -> Iterator[StoredPicture]:
        for at in range(0, len(self), READ):
            yield from self[at : at + READ]
