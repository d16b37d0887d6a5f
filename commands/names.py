"""The command `promptsearch names`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands.examples import example
from promptsearch.commands.options import draw_options, output_options, problem_options, rating_option, start_option

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command(epilog=example("promptsearch names --template 'a photo of a {}.' --shots 16"))
@problem_options
@draw_options
@click.option("--template", default="a photo of a {}.", show_default=True, help="Template around the names.")
@click.option("--vectors", type=int, default=0, show_default=True, help="Smallest number of vectors per name.")
@click.option(
    "--epochs", type=int, help="Number of epochs.  [default: CoOp's, 50, 100, 100, 200, 200 for 1, 2, 4, 8, 16 shots]"
)
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Adam's learning rate.")
@click.option("--batch", type=int, default=32, show_default=True, help="Pictures per step.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Save the learnt vectors (safetensors).")
@rating_option
@start_option
@output_options
def names(template: str, vectors: int, epochs: int | None, rate: float, batch: int, **options: Any) -> None:
    """Learn the embeddings of the class names in a frozen template (LTNC-style), as a baseline for readable prompts.

    Run the same command again to resume an interrupted training, or to show the result of a finished one.
    """
    from promptsearch.banks import Template
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.runs.baselines.learners import learn_class_names
    from promptsearch.search.gradient import NamesOptions, Schedule, published_epochs

    epochs = epochs if epochs is not None else published_epochs(options["shots"])
    schedule = Schedule(epochs, rate, batch, momentum=0.0, weight_decay=0.0)
    learnt = NamesOptions(Template(template), vectors, schedule)

    def train(setting: Setting) -> Trained:
        return learn_class_names(setting, learnt)

    own = {"template": str(learnt.template), "vectors": vectors, "epochs": epochs, "rate": rate, "batch": batch}
    baseline_command("names", own, train, options)
