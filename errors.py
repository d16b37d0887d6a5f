"""The errors that promptsearch raises: every message names the value, the place and the remedy."""

from __future__ import annotations


class PromptSearchError(Exception):
    """Something failed; the message is one line and says what to do.  The command line exits with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class InputError(PromptSearchError, ValueError):
    """What the user gave is wrong: an option, a bank, a file.  The command line exits with 2."""


class PromptSearchWarning(UserWarning):
    """Something that goes on otherwise than was asked for; the command line shows it as one line on stderr."""
