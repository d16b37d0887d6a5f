"""Progress on stderr: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

#: Seconds between two lines where stderr is no terminal.
EVERY = 30.0

Show = Callable[[int, int, str], None]


@contextlib.contextmanager
def progress_bar(quiet: bool) -> Iterator[Show]:
    """Yield what progress is told to: (done, total, what is being done).

    On a terminal it draws a bar; in a log file or on a cluster it writes a line every `EVERY` seconds.

    Args:
        quiet: Whether to show nothing.
    """
    if quiet:
        yield lambda done, total, what: None
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: int, total: int, what: str) -> None:
            room = console.width - len(f"{total}/{total}") - 25  # spinner, bar and time, which rich would cut as well
            what = what if len(what) <= room else what[: room - 1] + "…"
            bar.update(task, description=what, completed=done, total=total or None)

        yield show


def _lines(clock: Callable[[], float] = time.monotonic) -> Show:
    """Return what writes progress to stderr, at most every `EVERY` seconds; nothing for what takes less."""
    last = clock()

    def show(done: int, total: int, what: str) -> None:
        nonlocal last
        if clock() - last < EVERY:
            return
        last = clock()
        counted = f" ({done} of {total})" if total else f" ({done})" if done else ""
        print(f"{time.strftime('%H:%M:%S')} {what}{counted}", file=sys.stderr, flush=True)

    return show
