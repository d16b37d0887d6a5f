"""The errors and warnings of promptsearch; each message names the value, the place and the remedy."""

from __future__ import annotations

import re

#: Parameters of `PromptSearch` and its methods, by the options of other names.
PARAMETERS = {"seed": "random_state", "dataset": "images", "to": "format", "out": "path"}


class PromptSearchError(Exception):
    """Base class of all errors; the message is a single line. The command line exits with code 1.

    Messages name options as the command line does, because many remedies are parts of a command line, such as
    "--test-share 0.3". `PromptSearch` raises them with its own parameters (`as_parameters`).

    Args:
        message: What is wrong and what to do about it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def as_parameters(self) -> str:
        """Return the message with parameters of `PromptSearch` instead of options, e.g. "shots" for "--shots".

        Commands between backticks are not changed.
        """

        def parameter(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0]
            name = match[1].replace("-", "_")
            return PARAMETERS.get(name, name)

        return re.sub(r"`[^`]*`|(?<![\w-])--([a-z][a-z0-9-]*)", parameter, str(self))


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
