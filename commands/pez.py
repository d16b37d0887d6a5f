"""`promptsearch pez`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.options import draw_options, output_options, problem_options, rating_option

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command()
@problem_options
@draw_options
@click.option("--tokens", type=int, default=16, show_default=True, help="Words of the prompt.")
@click.option("--steps", type=int, default=3000, show_default=True, help="Projected gradient steps.")
@click.option("--rate", type=float, default=0.1, show_default=True, help="AdamW's learning rate.")
@click.option(
    "--position",
    default="end",
    show_default=True,
    shell_complete=complete.words("end", "middle", "front"),
    help="Of the class name: end, middle or front.",
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write what was learnt (safetensors).")
@rating_option
@output_options
def pez(tokens: int, steps: int, rate: float, position: str, **options: Any) -> None:
    """Find a hard prompt by projected gradients (PEZ, with few-shot cross-entropy): real words, but unreadable.

    The same command again resumes a training that was cut off, and shows one that is finished.
    """
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.runs.baselines.learners import project_words
    from promptsearch.search.gradient import PezOptions

    learnt = PezOptions(tokens=tokens, steps=steps, rate=rate, position=position)

    def train(setting: Setting) -> Trained:
        return project_words(setting, learnt)

    own = {"tokens": tokens, "steps": steps, "rate": rate, "position": position}
    baseline_command("pez", own, train, options)
