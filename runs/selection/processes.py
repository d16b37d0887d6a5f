"""Shares out independent parts of a computation, such as the folds of an estimate, among forked processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

T = TypeVar("T")

#: A part that another process computes is waited for this many times as long as the slowest part so far has taken.
PATIENCE = 2.0

#: Libraries whose threads or GPUs do not survive a fork.
_UNFIT = ("torch", "jax", "tensorflow", "cupy", "ray", "grpc")

_PARENT_DEATH_SIGNAL = 1  # prctl(PR_SET_PDEATHSIG)


def may_fork() -> bool:
    """Return whether a forked process can do what this one does.

    Only on Linux, because the libraries of other systems do not survive a fork; before torch and its like are imported,
    because their threads and GPUs do not either; and while no other thread of Python runs, because it might hold a lock
    for which the forked process would wait. The thread that draws rich's progress bar holds none that is needed. A
    worker of multiprocessing's pools may not have processes of its own.
    """
    if sys.platform != "linux" or current_process().daemon:
        return False
    threads = [t for t in threading.enumerate() if not type(t).__module__.startswith("rich.")]
    unfit = any(name in sys.modules for name in _UNFIT)
    return not unfit and threads == [threading.main_thread()]


class Shared(Generic[T]):
    """The parts `work(0), ..., work(number - 1)` of a computation, shared out among processes.

        with Shared(fold, 5, processes=2) as folds:
            folds.start()  # another process begins
            results = folds.results()

    The results do not depend on the number of processes. Whatever another process does not deliver in time is computed
    by this one: because that process failed, was killed, or needs a model that is not loaded. Errors are raised here.

    Args:
        work: Computes a part. What it returns can be pickled; what else it changes in another process is lost.
        number: Number of parts, at most 256.
        processes: Largest number of processes, this one included; no other is started where `may_fork` forbids it.
    """

    def __init__(self, work: Callable[[int], T], number: int, processes: int) -> None:
        self.number = number
        self._work, self._processes = work, min(processes, number)
        self._pipes: list[Connection] = []
        self._done: dict[int, T] = {}
        self._slowest, self._started = 0.0, time.monotonic()
        self._open = contextlib.ExitStack()
        # A pipe with one byte for each part: whichever process reads a byte computes that part.
        self._left, end = os.pipe()
        os.write(end, bytes(range(number)))
        os.close(end)
        self._open.callback(os.close, self._left)

    def __enter__(self) -> Shared[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def start(self) -> None:
        """Let other processes begin; without effect if they have begun."""
        if self._pipes or self._processes < 2 or not may_fork():
            return
        with contextlib.suppress(OSError):  # no more processes or files are allowed: there are fewer then
            for _ in range(self._processes - 1):
                self._start_one()
        self._started = time.monotonic()

    def _start_one(self) -> None:
        """Fork a process that computes parts, and keep the end of a pipe from which they are read."""
        context = get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        self._open.callback(ours.close)
        with theirs, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of numpy's threads, which are prepared for a fork
            process = context.Process(target=self._compute_elsewhere, args=(theirs,), daemon=True)
            process.start()
        self._pipes.append(ours)
        self._open.callback(process.join)
        self._open.callback(process.kill)  # first of the three

    def results(self, progress: Callable[[int], None] | None = None) -> list[T]:
        """Compute the parts that are left, and return all of them in order.

        Args:
            progress: Called with the number of parts that are done.
        """
        self.start()
        while part := os.read(self._left, 1):
            self._compute(part[0], progress)
        for i in range(self.number):
            # If nothing has been delivered yet, the part is waited for as long as it has been computed for.
            patience = PATIENCE * self._slowest or time.monotonic() - self._started
            until = time.monotonic() + patience
            while i not in self._done and self._pipes and (left := until - time.monotonic()) > 0:
                self._receive(left, progress)
            if i not in self._done:
                self._compute(i, progress)
        return [self._done[i] for i in range(self.number)]

    def _compute(self, part: int, progress: Callable[[int], None] | None) -> None:
        """Compute a part in this process."""
        started = time.monotonic()
        self._done[part] = self._work(part)
        self._slowest = max(self._slowest, time.monotonic() - started)
        self._receive(0, progress)

    def _receive(self, timeout: float, progress: Callable[[int], None] | None) -> None:
        """Wait for parts that other processes have computed."""
        for pipe in wait(self._pipes, timeout) if self._pipes else ():
            assert isinstance(pipe, Connection)
            try:
                part, found, seconds = pipe.recv()
                self._done.setdefault(part, found)
                self._slowest = max(self._slowest, seconds)
            except EOFError:
                self._pipes.remove(pipe)
        if progress is not None:
            progress(len(self._done))

    def _compute_elsewhere(self, pipe: Connection) -> None:
        """Compute parts in a forked process, and end without a word at the first error."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)  # or it keeps the run locked
        sys.modules["torch"] = None  # type: ignore[assignment]  # not importable: one process loads models
        warnings.simplefilter("ignore")  # each is shown by the process that began
        with contextlib.suppress(Exception):
            while part := os.read(self._left, 1):
                started = time.monotonic()
                found = self._work(part[0])
                pipe.send((part[0], found, time.monotonic() - started))
