"""Arrays that do not fit the memory: in a temporary file that is gone with the process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from promptsearch.errors import PromptSearchError


def filed(shape: tuple[int, ...]) -> tuple[np.ndarray, mmap.mmap]:
    """A float32 array in a file, and the file.

    Raises:
        PromptSearchError: the folder of temporary files has no room for it.
    """
    need = 4 * math.prod(shape)
    with tempfile.TemporaryFile() as f:  # unlinked at once; the map keeps it until the array goes
        try:
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at some later write
                os.posix_fallocate(f.fileno(), 0, need)
            else:
                f.truncate(need)
            file = mmap.mmap(f.fileno(), need)
        except OSError as e:
            raise PromptSearchError(
                f"{tempfile.gettempdir()} has no room for {need / 2**30:.1f} GB of text vectors ({e.strerror}): "
                "give more --memory, another folder in TMPDIR, or a smaller bank"
            ) from e
    return np.frombuffer(file, np.float32).reshape(shape), file


def let_go(*files: mmap.mmap | None) -> None:
    """Leave what was touched to the files: it stays in the process's memory otherwise, until others need that."""
    for file in files:
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)
