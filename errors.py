"""The errors and warnings of promptsearch; each message names the value, the place and the remedy."""

from __future__ import annotations


class PromptSearchError(Exception):
    """Base class of all errors; the message is a single line. The command line exits with code 1.

    Args:
        message: What is wrong and what to do about it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class InputError(PromptSearchError, ValueError):
    """An option, a bank or a file that the user gave is wrong. The command line exits with code 2."""


class PromptSearchWarning(UserWarning):
    """Something is done differently from what was requested; the command line shows it as one line on stderr."""
