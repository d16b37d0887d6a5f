"""The command `promptsearch vpt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import (
    draw_options,
    output_options,
    pictures_option,
    problem_options,
    refuse_unused,
    start_option,
)

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command(epilog=example("promptsearch vpt --dataset ./my-pictures --shots 16"))
@problem_options
@pictures_option
@draw_options
@click.option(
    "--kind",
    default="border",
    show_default=True,
    shell_complete=complete.words("border", "shallow", "deep"),
    help="Kind of prompt: border (any model), shallow or deep (tokens in a ViT).",
)
@click.option("--border", type=int, help="Width of the border in pixels.  [default: 30/224 of the picture's side]")
@click.option("--tokens", type=int, default=10, show_default=True, help="Number of tokens, per layer with --kind deep.")
@click.option(
    "--template",
    default="a photo of a {}.",
    show_default=True,
    help="Template of the text prompts, which are not learnt.",
)
@click.option("--epochs", type=int, default=100, show_default=True, help="Number of epochs.")
@click.option("--rate", type=float, help="Learning rate.  [default: 5 for a border, 0.0125 for tokens, at batch 32]")
@click.option("--batch", type=int, default=32, show_default=True, help="Pictures per step.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Save the learnt prompt (safetensors).")
@start_option
@output_options
def vpt(
    kind: str,
    border: int | None,
    tokens: int,
    template: str,
    epochs: int,
    rate: float | None,
    batch: int,
    **options: Any,
) -> None:
    """Learn a visual prompt, a border of pixels or tokens in a ViT, as a baseline for readable prompts.

    It needs the pictures themselves; a feature pack is not enough.

    Run the same command again to resume an interrupted training, or to show the result of a finished one.
    """
    from promptsearch.banks import Template
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.runs.baselines.learners import prompt_pictures
    from promptsearch.search.gradient import VptOptions, vpt_schedule

    if kind == "border":
        refuse_unused(["tokens"], "a border has no tokens; give --kind shallow or deep")
    else:
        refuse_unused(["border"], f"--kind {kind} has no border; give --kind border")
    text = Template(template)
    schedule = vpt_schedule(VptOptions(kind), epochs, rate, batch)
    learnt = VptOptions(kind, border, tokens, schedule)

    def train(setting: Setting) -> Trained:
        return prompt_pictures(setting, learnt, text)

    own: dict[str, Any] = {"kind": kind, "border": border, "tokens": tokens, "template": str(text)}
    own |= {"epochs": epochs, "rate": schedule.rate, "batch": batch}
    baseline_command("vpt", own, train, options)
