"""The option `-v`, which shows log messages on stderr."""

from __future__ import annotations

import logging
import sys
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
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False

    def quiet() -> None:
        """Undo the setup, because a process may run several command lines."""
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)

    ctx.call_on_close(quiet)


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
