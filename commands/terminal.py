"""Output to the terminal: progress, log messages, characters that it cannot show, and unexpected errors."""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click


def show_logs(ctx: click.Context, param: click.Parameter, count: int) -> None:
    """Show the package's log messages on stderr: those of level INFO with `-v`, also DEBUG with `-vv`."""
    if not count or ctx.resilient_parsing:
        return
    logger = logging.getLogger("promptsearch")
    logger.setLevel(logging.INFO if count == 1 else logging.DEBUG)
    if any(isinstance(h, _Stderr) for h in logger.handlers):
        return
    handler = _Stderr()
    handler.setFormatter(_PrintableLines("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False

    def quiet() -> None:
        """Undo the setup, because a process may run several command lines."""
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)

    ctx.call_on_close(quiet)


class _PrintableLines(logging.Formatter):
    """Escapes control characters in log messages, because names of files may contain escape sequences."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        from promptsearch.banks import printable

        return printable(super().formatMessage(record))


class _Stderr(logging.StreamHandler[Any]):
    """A handler that looks up `sys.stderr` for each message, because tests and progress bars replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    default=0,
    show_default=False,
    expose_value=False,
    callback=show_logs,
    help="Show log messages on stderr (-vv: more), and results in full.",
)


#: Seconds between two lines of progress if stderr is not a terminal.
EVERY = 30.0

Show = Callable[[int, int, str], None]


@contextlib.contextmanager
def progress_bar(quiet: bool) -> Iterator[Show]:
    """Yield a function to call with the progress: (done, total, what is being done).

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
            # 25 characters for spinner, bar and time, which rich would cut as well
            room = console.width - len(f"{total}/{total}") - 25
            what = what if len(what) <= room else what[: room - 1] + "…"
            bar.update(task, description=what, completed=done, total=total or None)

        yield show


def _lines(clock: Callable[[], float] = time.monotonic) -> Show:
    """Return a function that writes progress to stderr at most every `EVERY` seconds, so short work writes nothing."""
    last = clock()

    def show(done: int, total: int, what: str) -> None:
        nonlocal last
        if clock() - last < EVERY:
            return
        last = clock()
        counted = f" ({done} of {total})" if total else f" ({done})" if done else ""
        print(f"{time.strftime('%H:%M:%S')} {what}{counted}", file=sys.stderr, flush=True)

    return show


#: Name of the error handler that `write_anything` gives the streams.
_ESCAPES = "promptsearch.escapes"


def write_anything() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, e.g. as `\\u732b`, which JSON can read."""
    codecs.register_error(_ESCAPES, _escape)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process; the next file to be opened would take its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            with contextlib.suppress(ValueError, OSError):  # the stream is closed or was given up
                reconfigure(errors=_ESCAPES)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


def after_interrupt(error: BaseException) -> bool:
    """Return whether an error follows from Ctrl-C, which may interrupt an import that then fails in another way."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, KeyboardInterrupt):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False


def repeat_lost_interrupts() -> None:
    """Send Ctrl-C to this process again if Python has ignored it, as it does in finalizers and weak references."""
    others = sys.unraisablehook
    if getattr(others, "repeats", False):
        return

    def hook(args: Any) -> None:
        if not isinstance(args.exc_value, KeyboardInterrupt):
            return others(args)
        # Send it a little later, because here it would be ignored again.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
        return None

    hook.repeats = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def describe(error: Exception) -> str:
    """Describe an unexpected error in one line: what it is, what to do, and the log with the traceback."""
    from promptsearch.banks import printable

    what = printable(" ".join(str(error).split()))[:300]
    if isinstance(error, OSError) and error.strerror:
        place = f"{printable(error.filename)}: " if error.filename else "the output, or a file: "
        what = f"{place}{error.strerror}"
        remedy = "solve the problem and run the same command again"
    elif isinstance(error, MemoryError):
        what, remedy = "out of memory", "use a smaller --encode-batch or --memory, or a larger machine"
    else:
        what = f"unexpected {type(error).__name__}{_place(error)}{f': {what}' if what else ''}"
        remedy = "what is recorded is safe; please report it with"
    log = _write_log(error)
    if isinstance(error, (OSError, MemoryError)):
        return f"{what}; {remedy}" + (f" (details: {log})" if log is not None else "")
    return f"{what}; {remedy} {log if log is not None else 'the details, which could not be written anywhere'}"


def _place(error: Exception) -> str:
    """Return the name of the file and the line in which an error was raised, as text."""
    from promptsearch.banks import printable

    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f" in {printable(Path(at.tb_frame.f_code.co_filename).name)}:{at.tb_lineno}"


def _write_log(error: Exception) -> Path | None:
    """Append the traceback to a log, and return the log's path, or None if nothing can be written."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    entry = f"{datetime.now().isoformat(timespec='seconds')} {' '.join(sys.argv)}\n{text}\n"
    for folder in _folders():
        file = folder / "errors.log"
        with contextlib.suppress(OSError, ValueError):
            folder.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8", errors="backslashreplace") as f:
                f.write(entry)
            return file
    return None


def _folders() -> list[Path]:
    """Return folders for the log in order of preference: that of the runs, then the temporary one."""
    found = []
    if named := os.environ.get("PROMPTSEARCH_HOME"):
        found.append(Path(named))
    else:
        with contextlib.suppress(Exception):  # any failure means that the next folder is tried
            import platformdirs

            found.append(Path(platformdirs.user_data_dir("promptsearch")))
    with contextlib.suppress(OSError):
        found.append(Path(tempfile.gettempdir()) / f"promptsearch-{os.getuid() if hasattr(os, 'getuid') else 'log'}")
    return found


def give_up_stdout() -> None:
    """Discard the unwritten output of stdout, which Python would otherwise fail to write when it exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
