"""The size of the machine's memory, and recognising errors that say it ran out."""

from __future__ import annotations

import os


def quarter_of_ram() -> int:
    """Return a quarter of the machine's memory in bytes, or 2 GiB if the system does not tell its size."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 2 << 30


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, numpy or torch (CPU or CUDA) says that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )
