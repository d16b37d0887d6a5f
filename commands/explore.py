"""The command `promptsearch explore`, which serves a local web page for trying prompts."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import pictures_option, problem_options, refuse_idle_pictures
from promptsearch.commands.terminal import progress_bar, verbose_option
from promptsearch.errors import PromptSearchError


@click.command(epilog=example("promptsearch explore --model zeroshot --dataset cifar10-dark"))
@click.option(
    "--bank",
    "bank_spec",
    default="templates",
    show_default=True,
    shell_complete=complete.banks,
    help="Bank listed on the page: a file, or a built-in bank (see `promptsearch banks list`).",
)
@problem_options
@click.option("--shots", type=int, default=16, show_default=True, help="Labelled pictures per class.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option(
    "--held-out",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="Number of other training pictures to measure the accuracy on.",
)
@pictures_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=8765,
    show_default=True,
    help="Port of the page; 0 picks a free one.",
)
@click.option("--open", "launch", is_flag=True, help="Open the page in a browser.")
@click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
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
    """Serve a local web page on which you type prompts and see at once how well they classify.

    The page is served on 127.0.0.1 only, at an address that contains a secret, until Ctrl-C. The test split is never
    opened.
    """
    from promptsearch.banks import load_bank
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
            # encoding a text loads the model now, not at the first request
            explorer.look(["a photo of a {}.", "a picture of a {}."])
        source = problem.source
        picture = (lambda index: next(source.stored("train", [index])).open()) if source.has_pictures else None
        heading = f"{problem.encoder.spec.name} on {problem.source.name}, {shots} shots per class, seed {seed}"
        token = secrets.token_urlsafe(16)
        address = f"http://{HOST}:{sock.getsockname()[1]}/{token}/"
        if not quiet:
            for note in problem.notes:
                click.echo(note, err=True)
        click.echo(f"{address} (press Ctrl-C to stop)")
        if launch:
            click.launch(address)
        app = build_app(explorer, bank, heading, picture, token)
        try:
            make_server(app).run(sockets=[sock])
        except KeyboardInterrupt:
            pass
        finally:
            problem.encoder.close()
    # exit at once: nobody waits for the result, and a running computation keeps the interpreter from ending
    if app.state.computing:
        sys.stdout.flush()
        os._exit(0)
