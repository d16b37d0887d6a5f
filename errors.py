"""The errors and warnings of promptsearch; each message names the value, the place and the remedy."""

from __future__ import annotations


class PromptSearchError(Exception):
    """Base class of all errors; the message is a single line. The command line exits with code 1.

    Args:
        message: What is wrong and what to do about it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Interrupted(PromptSearchError):
    """A search was stopped by whoever runs it; the same call goes on with it.  The command line exits with 130.

    Attributes:
        run: name of the run.
        done: trials recorded so far.
        total: trials asked for, if that is known.
    """

    def __init__(self, run: str, done: int, total: int | None = None) -> None:
        self.run, self.done, self.total = run, done, total
        of = f" of {total}" if total is not None else ""
        super().__init__(
            f"interrupted after {done}{of} trials of run {run}; the same command again resumes, "
            f"or: promptsearch runs resume {run}"
        )


class InputError(PromptSearchError, ValueError):
    """An option, a bank or a file that the user gave is wrong. The command line exits with code 2."""


class PromptSearchWarning(UserWarning):
    """Something is done differently from what was requested; the command line shows it as one line on stderr."""
