"""The command line: groups and commands, and errors turned into one line and an exit code."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import click

from promptsearch import __version__
from promptsearch.commands.banks import banks
from promptsearch.commands.beam import beam
from promptsearch.commands.cache import cache
from promptsearch.commands.climb import climb
from promptsearch.commands.compare import compare
from promptsearch.commands.completion import completion
from promptsearch.commands.coop import coop
from promptsearch.commands.doctor import doctor
from promptsearch.commands.evolve import evolve
from promptsearch.commands.explore import explore
from promptsearch.commands.export import export
from promptsearch.commands.features import features
from promptsearch.commands.logs import verbose_option
from promptsearch.commands.names import names
from promptsearch.commands.pez import pez
from promptsearch.commands.plugins import plugins
from promptsearch.commands.random import random
from promptsearch.commands.report import report
from promptsearch.commands.runs import runs
from promptsearch.commands.search import search
from promptsearch.commands.tpe import tpe
from promptsearch.commands.vpt import vpt
from promptsearch.commands.worker import worker
from promptsearch.errors import InputError, PromptSearchError

#: Commands that must work, whatever a settings file says.
_WITHOUT_SETTINGS = ("doctor", "completion")


class _WrongInput(click.ClickException):
    """click prints "Error: …" and exits with the code of bad usage."""

    exit_code = 2


class _Group(click.Group):
    """A group whose commands' errors are one line on stderr: exit code 2 for wrong input, 1 for a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        warnings.showwarning = _one_line_warning
        try:
            return super().invoke(ctx)
        except PromptSearchError as e:
            from promptsearch.banks import printable

            raise (_WrongInput if isinstance(e, InputError) else click.ClickException)(printable(e)) from e
        except KeyboardInterrupt:
            click.echo("interrupted; the same command again resumes", err=True)
            sys.exit(130)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from promptsearch.evaluators.cache import CacheWarning
    from promptsearch.plugins import PluginWarning

    if issubclass(category, (CacheWarning, PluginWarning)):
        click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="promptsearch")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file; by default the nearest promptsearch.toml, or [tool.promptsearch] of a pyproject.toml.",
)
@verbose_option
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Find readable prompts for vision-language models, without gradients."""
    if ctx.invoked_subcommand in _WITHOUT_SETTINGS:
        return
    from promptsearch.commands.settings import find_settings, read_settings

    if (path := find_settings(config)) is not None:
        ctx.default_map = read_settings(path, main)


COMMANDS = (
    beam,
    tpe,
    climb,
    random,
    evolve,
    search,
    coop,
    names,
    vpt,
    pez,
    compare,
    worker,
    banks,
    features,
    cache,
    runs,
    report,
    explore,
    export,
    plugins,
    doctor,
    completion,
)
for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
