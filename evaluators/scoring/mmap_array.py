"""Arrays in temporary files, for data that does not fit into memory; the files vanish with the process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from promptsearch.errors import PromptSearchError


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
    with tempfile.TemporaryFile() as f:  # already unlinked; the map keeps it alive as long as the array
        try:
            if hasattr(os, "posix_fallocate"):  # without it a full disk kills the process at a later write
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
