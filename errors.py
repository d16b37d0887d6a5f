"""The errors and warnings of promptsearch; each message names the value, the place and the remedy.

Messages are written with options, such as "--shots", and the command line prints them so. In Python, `str(error)` names
parameters instead, such as "shots"; `PromptSearch` uses its own names, such as "random_state" for "--seed".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

#: Parameters of `PromptSearch` and its methods, by the options of other names.
PARAMETERS = {"seed": "random_state", "dataset": "images", "to": "format", "out": "path"}

_naming_options = False


@contextlib.contextmanager
def naming_options(on: bool = True) -> Iterator[None]:
    """Context manager in which messages of this process name options, as the command line needs it.

    Args:
        on: False for parameters.
    """
    global _naming_options
    before, _naming_options = _naming_options, on
    try:
        yield
    finally:
        _naming_options = before


def _parameters(message: str, names: Mapping[str, str]) -> str:
    """Replace options by parameters in a message, except in commands between backticks."""

    def parameter(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = match[1].replace("-", "_")
        return names.get(name, name)

    return re.sub(r"`[^`]*`|(?<![\w-])--([a-z][a-z0-9-]*)", parameter, message)


class PromptSearchError(Exception):
    """Base class of all errors; the message is a single line. The command line exits with code 1.

    Args:
        message: What is wrong and what to do about it, with options of the command line in the place of parameters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    @property
    def message(self) -> str:
        """The message with options."""
        return str(self.args[0])

    def __str__(self) -> str:
        """Return the message with parameters, or with options on the command line (`naming_options`)."""
        return self.message if _naming_options else _parameters(self.message, {})

    def __format__(self, spec: str) -> str:
        """Return the message with options, so that a message that contains another one can name both."""
        return format(self.message, spec)

    def as_parameters(self) -> str:
        """Return the message with parameters of `PromptSearch`."""
        return _parameters(self.message, PARAMETERS)


class Interrupted(PromptSearchError):
    """A search was interrupted, and the same call resumes it. The command line exits with code 130.

    Attributes:
        run: Name of the run.
        done: Number of trials recorded so far.
        total: Total number of trials of the run, if known.
    """

    def __init__(self, run: str, done: int, total: int | None = None) -> None:
        self.run, self.done, self.total = run, done, total
        of = f" of {total}" if total is not None else ""
        super().__init__(
            f"interrupted after {done}{of} trials of run {run}; to resume, run the same command again "
            f"or: promptsearch runs resume {run}"
        )


class InputError(PromptSearchError, ValueError):
    """An option, a bank or a file that the user gave is wrong. The command line exits with code 2."""


class PromptSearchWarning(UserWarning):
    """A warning that something differs from what was requested; the command line prints it as one line on stderr."""
