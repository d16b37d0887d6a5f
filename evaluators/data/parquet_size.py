"""Bounds the size of parquet files' values before they are read, so that they cannot fill the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import PromptSearchError

#: A file may hold this many bytes of values, or `FACTOR` times its own size, whichever is larger.
ALLOWED = 2_000_000_000
FACTOR = 100


def refuse_bombs(files: Sequence[Path]) -> None:
    """Refuse small files that would expand to gigabytes by their compression or dictionaries.

    Raises:
        PromptSearchError: A file would become too large; the message names it and both sizes.
    """
    import pyarrow.parquet as pq

    for file in files:
        size = file.stat().st_size
        most = max(ALLOWED, FACTOR * size)
        meta = pq.ParquetFile(file).metadata
        total = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if total <= most:
            total = sum(_repeated(file, meta, i, most) for i in range(meta.num_row_groups))
        if total > most:
            raise PromptSearchError(
                f"{file.name} has {size / 1e6:.1f} MB and would become {total / 1e9:.1f} GB when it is read, far more "
                "than pictures need; fetch the data set from a place you trust"
            )


def _repeated(file: Path, meta: Any, group: int, most: int) -> int:
    """Return the bytes of a row group's texts and pictures, counting a dictionary's entry each time it is used."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    total, chunks = 0, [meta.row_group(group).column(i) for i in range(meta.num_columns)]
    for chunk in chunks:
        # an upper bound, as if every value were the whole dictionary
        bound = chunk.num_values * chunk.total_uncompressed_size
        if chunk.physical_type != "BYTE_ARRAY" or "RLE_DICTIONARY" not in chunk.encodings or bound <= most:
            continue
        name = chunk.path_in_schema
        column = pq.ParquetFile(file, read_dictionary=[name]).read_row_group(group, columns=[name]).column(0)
        for part in column.chunks:
            while isinstance(part, pa.StructArray):
                part = part.field(0)
            if isinstance(part, pa.DictionaryArray):
                lengths = np.append(pc.binary_length(part.dictionary).fill_null(0).to_numpy(), 0)
                total += int(lengths[part.indices.fill_null(len(lengths) - 1).to_numpy()].sum(dtype=np.int64))
    return total
