"""The last line of defence: output that a console cannot show, and errors that nobody foresaw."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

#: Name of the error handler that `write_anything` gives the streams.
_ESCAPES = "promptsearch.escapes"


def write_anything() -> None:
    """Let stdout and stderr write what their encoding lacks as an escape, e.g. `\\u732b`, which JSON reads back."""
    codecs.register_error(_ESCAPES, _escape)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this; the next file that is opened would be in its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            with contextlib.suppress(ValueError, OSError):  # closed, or already given up
                reconfigure(errors=_ESCAPES)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


def after_interrupt(error: BaseException) -> bool:
    """Whether an error only followed from Ctrl-C: an import that it cuts raises errors of its own."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, KeyboardInterrupt):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False


def repeat_lost_interrupts() -> None:
    """Send Ctrl-C to this process again where Python prints and ignores it: in finalizers and weak references."""
    others = sys.unraisablehook
    if getattr(others, "repeats", False):
        return

    def hook(args: Any) -> None:
        if not isinstance(args.exc_value, KeyboardInterrupt):
            return others(args)
        # Later, because here it would be ignored again.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
        return None

    hook.repeats = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def describe(error: Exception) -> str:
    """An unexpected error as one line: what it is, what can be done, and where the rest of it was written."""
    from promptsearch.banks import printable

    what = printable(" ".join(str(error).split()))[:300]
    if isinstance(error, OSError) and error.strerror:
        place = f"{printable(error.filename)}: " if error.filename else "the output, or a file: "
        what = f"{place}{error.strerror}"
        remedy = "see to that, and give the same command again"
    elif isinstance(error, MemoryError):
        what, remedy = "out of memory", "give it less at a time (--encode-batch, --memory), or a larger machine"
    else:
        what = f"unexpected {type(error).__name__}{_place(error)}{f': {what}' if what else ''}"
        remedy = "what is recorded is safe; please report it with"
    log = _write_log(error)
    if isinstance(error, (OSError, MemoryError)):
        return f"{what}; {remedy}" + (f" (details: {log})" if log is not None else "")
    return f"{what}; {remedy} {log if log is not None else 'the details, which could not be written anywhere'}"


def _place(error: Exception) -> str:
    """Where an error was raised: a file's name and its line."""
    from promptsearch.banks import printable

    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f" in {printable(Path(at.tb_frame.f_code.co_filename).name)}:{at.tb_lineno}"


def _write_log(error: Exception) -> Path | None:
    """Append the traceback to a log: where it is, or None where nothing can be written."""
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
    """Where a log may be: with the kept runs, else with temporary files."""
    found = []
    if named := os.environ.get("PROMPTSEARCH_HOME"):
        found.append(Path(named))
    else:
        with contextlib.suppress(Exception):  # it is the last resort that is looked for
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
