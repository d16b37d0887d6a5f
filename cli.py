"""The command line: its groups and commands, and how errors become one line and an exit code."""

from __future__ import annotations

# ruff: noqa: E402
import os
import signal
import threading

# Threads that wait for work spin for milliseconds by default, and take the cores from a second program on the machine
# (benchmarks/two_at_once.py). torch's library and numpy's read these when they are imported; what is set already stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# During these imports nothing handles Ctrl-C yet, so it ends the process in the default way.
_INTERRUPT = signal.getsignal(signal.SIGINT)
if (_MAIN_THREAD := threading.current_thread() is threading.main_thread()) and callable(_INTERRUPT):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import errno
import gc
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import click

from promptsearch.banks import printable
from promptsearch.commands.banks import banks
from promptsearch.commands.beam import beam
from promptsearch.commands.cache import cache
from promptsearch.commands.climb import climb
from promptsearch.commands.compare import compare
from promptsearch.commands.completion import completion
from promptsearch.commands.coop import coop
from promptsearch.commands.data import data
from promptsearch.commands.doctor import doctor
from promptsearch.commands.evolve import evolve
from promptsearch.commands.examples import example
from promptsearch.commands.explore import explore
from promptsearch.commands.export import export
from promptsearch.commands.features import features
from promptsearch.commands.names import names
from promptsearch.commands.pez import pez
from promptsearch.commands.plugins import plugins
from promptsearch.commands.predict import predict
from promptsearch.commands.random import random
from promptsearch.commands.report import report
from promptsearch.commands.runs import runs
from promptsearch.commands.search import search
from promptsearch.commands.sort import sort
from promptsearch.commands.terminal import (
    after_interrupt,
    describe,
    give_up_stdout,
    repeat_lost_interrupts,
    verbose_option,
    write_anything,
)
from promptsearch.commands.tpe import tpe
from promptsearch.commands.vpt import vpt
from promptsearch.commands.worker import worker
from promptsearch.errors import InputError, Interrupted, PromptSearchError, PromptSearchWarning, naming_options
from promptsearch.version import __version__

#: Commands that must work, whatever a settings file says.
_WITHOUT_SETTINGS = ("doctor", "completion")


class _WrongInput(click.ClickException):
    """An InputError as click shows it: "Error: …" and exit code 2."""

    exit_code = 2


class _Group(click.Group):
    """A group that prints an error as one line on stderr, and exits with 2 for wrong input or 1 for a failure."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under the headings of `SECTIONS`, each with its line."""
        for section, lines in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(f"{command.name:10}", line) for command, line in lines.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, and turn errors at its beginning and end into one line, too."""
        try:
            write_anything()
            repeat_lost_interrupts()
            try:
                with naming_options():
                    return super().main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            _interrupted()
        # raised to the caller with `standalone_mode=False`
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as e:
            _last_line(e)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Make the context as click does, but print our own line after Ctrl-C instead of "Aborted!"."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            _interrupted()

    def invoke(self, ctx: click.Context) -> Any:
        warnings.showwarning = _one_line_warning
        try:
            return super().invoke(ctx)
        except Interrupted as e:
            click.echo(printable(e), err=True)
            sys.exit(130)
        except PromptSearchError as e:
            raise (_WrongInput if isinstance(e, InputError) else click.ClickException)(printable(e)) from e
        except KeyboardInterrupt:
            _interrupted()
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as e:
            _last_line(e)
        except BaseException as e:  # a plug-in or a library called sys.exit or the like
            if isinstance(e.__context__, BrokenPipeError):  # rich does, where the reader of a pipe has closed it
                raise e.__context__ from None
            ended = RuntimeError(f"{type(e).__name__} ({e}) was raised before the command was done")
            ended.__cause__ = e
            _last_line(ended)


def _interrupted() -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo("interrupted; run the same command again to resume", err=True)
    sys.exit(130)


def _last_line(error: Exception) -> NoReturn:
    """Print an unexpected error (of a library, or a full disk) as one line, and exit with 1; with 130 after Ctrl-C."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise error  # the reader of a pipe has closed it, so click ends quietly
    if after_interrupt(error):
        _interrupted()
    with contextlib.suppress(OSError):
        click.echo(f"Error: {describe(error)}", err=True)
    give_up_stdout()
    sys.exit(1)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, PromptSearchWarning):
        click.echo(f"Warning: {printable(str(message))}", err=True)


#: Largest width of help texts; they are as wide as the terminal, but longer lines are hard to read.
WIDTH = 120

_VARIABLES = {
    "PROMPTSEARCH_HOME": "folder of runs and learnt vectors",
    "PROMPTSEARCH_CACHE": "folder of encoded pictures and texts",
    "PROMPTSEARCH_MODELS": "folder of models that --model knows by name",
    "PROMPTSEARCH_CONFIG": "settings file, as --config",
    "NO_COLOR": "turns colours off if set",
}


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": WIDTH},
    epilog=example("promptsearch beam --bank templates --shots 16")
    + "\n\n\b\nEnvironment variables:\n"
    + "\n".join(f"  {name:20} {what}" for name, what in _VARIABLES.items()),
)
@click.version_option(__version__, prog_name="promptsearch")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file.  [default: the nearest promptsearch.toml, or [tool.promptsearch] in pyproject.toml]",
)
@verbose_option
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Find readable prompts for CLIP-style models by gradient-free search."""
    # A search keeps tens of thousands of prompt sets, none of which are in reference cycles; the garbage collector's
    # default of looking for cycles after every 700 new objects took a sixth of its time.
    gc.set_threshold(50_000, 20, 20)
    if ctx.invoked_subcommand in _WITHOUT_SETTINGS:
        return
    from promptsearch.commands.settings import find_settings, read_settings

    if (file := find_settings(config)) is not None:
        ctx.default_map = read_settings(file, main)
        if file.found:
            click.echo(printable(f"settings of {file.path}"), err=True)


#: Every command with its line of help, under the heading for its purpose.
SECTIONS: dict[str, dict[click.Command, str]] = {
    "Search for readable prompts": {
        beam: "beam search over ensembles of a bank's templates",
        tpe: "Optuna's samplers over a grammar's slots or a bank",
        climb: "hill climbing by small edits, with restarts",
        random: "random prompts, a baseline for the other searches",
        evolve: "evolution with offspring written by a language model",
        search: "run the searcher of a plug-in",
        worker: "join a run from another process or machine",
    },
    "Gradient baselines to compare with": {
        coop: "learn context vectors (CoOp, KgCoOp)",
        names: "learn the embeddings of the class names",
        vpt: "learn a visual prompt (border or ViT tokens)",
        pez: "learn a prompt of real but meaningless words (PEZ)",
    },
    "Use the winner": {
        predict: "label pictures with a run's winner",
        sort: "copy or link pictures into a folder for each class",
        export: "write the winner for CLIP_benchmark, open_clip, transformers …",
    },
    "Results": {
        compare: "compare methods on the same draws",
        runs: "list, show, resume, export and delete saved runs",
        report: "write an HTML report with plots and pictures",
        explore: "try prompts on a local web page",
    },
    "Data and setup": {
        data: "check a data set before a search",
        banks: "list, show, check and write banks of templates and phrases",
        features: "export and import picture features",
        cache: "show or clear the cache of encoded pictures and texts",
        plugins: "list the plug-ins",
        doctor: "check the installation",
        completion: "set up shell completion",
    },
}
for section in SECTIONS.values():
    for command in section:
        main.add_command(command)

if _MAIN_THREAD and callable(_INTERRUPT):
    signal.signal(signal.SIGINT, _INTERRUPT)


if __name__ == "__main__":
    main()
