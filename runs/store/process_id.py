"""Identifies processes across machines, and tells whether one has died."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Return a name for the machine or container, the scope in which process ids are unique."""
    space = ""
    with contextlib.suppress(OSError):
        space = f"/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname() + space


def this_process() -> str:
    """Return a unique name for this process: `machine#process id#start time`."""
    pid = os.getpid()
    return f"{this_machine()}#{pid}#{_started(pid)}"


def is_dead(owner: str) -> bool:
    """Return whether a process is known to have died; for a process of another machine, this is always False.

    Args:
        owner: The process, as named by `this_process`.
    """
    machine, _, rest = owner.partition("#")
    pid_text, _, started = rest.partition("#")
    if machine != this_machine() or not pid_text.isdigit():
        return False
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # the process exists and belongs to another user
        pass
    return _started(pid) != started


def _started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot, or "" if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
