"""How much memory there is, and whether an error says that it ran out."""

from __future__ import annotations

import os


def quarter_of_ram() -> int:
    """Bytes; 2 GB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 2 << 30


def out_of_memory(error: BaseException) -> bool:
    """Whether this is Python's, numpy's, CUDA's or torch's CPU allocator's way of saying that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )
