"""The command `promptsearch pez`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import draw_options, output_options, problem_options, rating_option, start_option

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command(epilog=example("promptsearch pez --shots 16"))
@problem_options
@draw_options
@click.option("--tokens", type=int, default=16, show_default=True, help="Number of words to learn.")
@click.option("--steps", type=int, default=3000, show_default=True, help="Number of steps.")
@click.option("--rate", type=float, default=0.1, show_default=True, help="AdamW's learning rate.")
@click.option(
    "--position",
    default="end",
    show_default=True,
    shell_complete=complete.words("end", "middle", "front"),
    help="Position of the class name: end, middle or front.",
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Save the learnt vectors (safetensors).")
@rating_option
@start_option
@output_options
def pez(tokens: int, steps: int, rate: float, position: str, **options: Any) -> None:
    """Learn a prompt of real words by projected gradients (PEZ); the words make no sense to a reader.

    Run the same command again to resume an interrupted training, or to show the result of a finished one.
    """
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.runs.baselines.learners import project_words
    from promptsearch.search.gradient import PezOptions

    learnt = PezOptions(tokens=tokens, steps=steps, rate=rate, position=position)

    def train(setting: Setting) -> Trained:
        return project_words(setting, learnt)

    own = {"tokens": tokens, "steps": steps, "rate": rate, "position": position}
    baseline_command("pez", own, train, options)
