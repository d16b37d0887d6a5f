"""Who has a trial in hand: a process, on a machine, that may have died since."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def this_machine() -> str:
    """What tells apart machines, and containers of one machine: process ids mean something only within one."""
    space = ""
    with contextlib.suppress(OSError):
        space = f"/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname() + space


def this_process() -> str:
    """`machine#process id#start`: never the same for two processes."""
    pid = os.getpid()
    return f"{this_machine()}#{pid}#{_started(pid)}"


def is_dead(owner: str) -> bool:
    """Whether a process is known to be gone; one of another machine never is."""
    machine, _, rest = owner.partition("#")
    pid_text, _, started = rest.partition("#")
    if machine != this_machine() or not pid_text.isdigit():
        return False
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there and belongs to somebody else
        pass
    return _started(pid) != started


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; a dead one that nobody waited for counts as gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
