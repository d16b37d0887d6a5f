"""`promptsearch explore`: prompts tried by hand, on a page of this machine's own."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.logs import verbose_option
from promptsearch.commands.options import pictures_option, problem_options, refuse_idle_pictures


@click.command()
@click.option(
    "--bank",
    "bank_spec",
    default="templates",
    show_default=True,
    shell_complete=complete.banks,
    help="A bank to pick from: a file, or the name of a built-in one (`promptsearch banks list`).",
)
@problem_options
@click.option("--shots", type=int, default=16, show_default=True, help="Labelled pictures per class.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw.")
@click.option(
    "--held-out",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="Training pictures besides the few shots, to look at.",
)
@pictures_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=8765,
    show_default=True,
    help="0 takes any free one.",
)
@click.option("--open", "launch", is_flag=True, help="Open the page in a browser.")
@click.option("--quiet", is_flag=True, help="No progress and no notes.")
@verbose_option
def explore(
    bank_spec: str,
    shots: int,
    seed: int,
    held_out: int,
    port: int,
    launch: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Type prompts on a local page and see at once what they change: accuracy, classes, the pictures that flip.

    The page answers on 127.0.0.1 only, at an address that holds a secret, until Ctrl-C.  It never opens the test split.
    """
    from promptsearch.banks import load_bank
    from promptsearch.commands.progress import progress_bar
    from promptsearch.errors import PromptSearchError
    from promptsearch.evaluators import open_problem
    from promptsearch.reports.explorer import Explorer
    from promptsearch.reports.server import HOST, bind, build_app, make_server

    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise PromptSearchError(f"explore needs {e.name}; pip install 'promptsearch[explore]'") from e
    bank = load_bank(bank_spec)
    with bind(port) as sock:
        with progress_bar(quiet) as progress:
            problem = open_problem(**options, progress=progress)
            refuse_idle_pictures(options["pictures"], problem)
            explorer = Explorer(problem, shots, seed, held_out)
            progress(0, 0, "reading the model")
            explorer.look(["a photo of a {}.", "a picture of a {}."])  # the first text loads the model
        source = problem.source
        picture = (lambda index: next(source.stored("train", [index])).open()) if source.has_pictures else None
        heading = f"{problem.encoder.spec.name} on {problem.source.name}, {shots} shots per class, seed {seed}"
        token = secrets.token_urlsafe(16)
        address = f"http://{HOST}:{sock.getsockname()[1]}/{token}/"
        if not quiet:
            for note in problem.notes:
                click.echo(note, err=True)
        click.echo(f"{address} (Ctrl-C ends it)")
        if launch:
            click.launch(address)
        app = build_app(explorer, bank, heading, picture, token)
        try:
            make_server(app).run(sockets=[sock])
        except KeyboardInterrupt:
            pass
        finally:
            problem.encoder.close()
    if app.state.computing:  # nobody waits for it any more, and the interpreter cannot end beside it
        sys.stdout.flush()
        os._exit(0)
