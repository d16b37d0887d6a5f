"""Example lines in the help of commands."""

from __future__ import annotations


def example(*lines: str) -> str:
    """Return the epilog of a command's help with example lines, each a valid command line.

    Args:
        *lines: The command lines, e.g. "promptsearch banks list".
    """
    heading = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join(["\b", heading, *(f"  {line}" for line in lines)])  # click prints a paragraph after \b as it is
