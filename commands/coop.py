"""The command `promptsearch coop`."""

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
    rating_option,
    refuse_unused,
    start_option,
)
from promptsearch.config import BankId
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command(epilog=example("promptsearch coop --shots 16"))
@problem_options
@pictures_option
@draw_options
@click.option("--vectors", type=int, default=16, show_default=True, help="Number of context vectors.")
@click.option(
    "--position",
    default="end",
    show_default=True,
    shell_complete=complete.words("end", "middle", "front"),
    help="Position of the class name: end, middle or front.",
)
@click.option("--specific", is_flag=True, help="Learn a context for each class (CSC) instead of a shared one.")
@click.option("--init", help='Text to start from instead of random vectors, e.g. "a photo of a"; sets --vectors.')
@click.option(
    "--epochs", type=int, help="Number of epochs.  [default: CoOp's, 50, 100, 100, 200, 200 for 1, 2, 4, 8, 16 shots]"
)
@click.option("--rate", type=float, default=0.002, show_default=True, help="Learning rate.")
@click.option("--batch", type=int, default=32, show_default=True, help="Pictures per step.")
@click.option("--augment", is_flag=True, help="Crop and flip the pictures at random in every step, as published; slow.")
@click.option("--kg", type=float, default=0.0, show_default=True, help="Weight of KgCoOp's regulariser.")
@click.option(
    "--bank",
    "bank_spec",
    shell_complete=complete.banks,
    help="Bank for --hull or --sample; without them, its templates nearest to the learnt context are shown.",
)
@click.option("--hull", type=float, default=0.0, show_default=True, help="Weight of the distance to the bank's hull.")
@click.option("--sample", type=int, help="Learn a mixture of the bank's templates instead, and keep this many.")
@click.option("--gumbel", is_flag=True, help="With --sample: sample templates (Gumbel-softmax) during training.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Save the learnt vectors (safetensors).")
@rating_option
@start_option
@output_options
def coop(bank_spec: str | None, **options: Any) -> None:
    """Learn context vectors by gradient descent (CoOp), as a baseline for readable prompts.

    Picture features are cached, and pictures are not augmented unless --augment is given.

    Run the same command again to resume an interrupted training, or to show the result of a finished one.
    """
    from promptsearch.banks import load_bank
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.runs.baselines.learners import learn_context, sample_bank
    from promptsearch.search.gradient import CoOpOptions, Schedule, SparseOptions, published_epochs

    names = ("vectors", "position", "specific", "init", "epochs", "rate", "batch", "augment", "kg", "hull", "sample")
    own = {k: options.pop(k) for k in (*names, "gumbel")}
    bank = load_bank(bank_spec) if bank_spec else None
    if bank is None and (own["hull"] or own["sample"] is not None):
        raise InputError("--hull and --sample need the templates of a bank; give --bank, e.g. --bank templates")
    if own["gumbel"] and own["sample"] is None:
        raise InputError("--gumbel: needs --sample; say how many templates to keep, e.g. --sample 4")
    if own["sample"] is not None:
        of_contexts = ("vectors", "position", "specific", "init", "epochs", "rate", "batch", "augment", "kg", "hull")
        refuse_unused(of_contexts, "--sample learns no context; leave one of the two out")
    if own["init"] is not None:
        refuse_unused(["vectors"], "--init determines the number of vectors; leave one of the two out")
    if not own["augment"]:
        refuse_unused(["pictures"], "the training uses cached features; add --augment")
    epochs = own["epochs"] if own["epochs"] is not None else published_epochs(options["shots"])
    schedule = Schedule(epochs, own["rate"], own["batch"])
    learnt = CoOpOptions(
        own["vectors"], own["position"], own["specific"], own["init"], schedule, own["kg"], own["hull"]
    )
    sparse = SparseOptions(own["sample"], gumbel=own["gumbel"]) if own["sample"] is not None else None
    own["epochs"] = epochs

    def train(setting: Setting) -> Trained:
        if bank is not None and sparse is not None:
            return sample_bank(setting, sparse, bank)
        return learn_context(setting, learnt, bank, own["augment"])

    baseline_command("coop", own, train, options, BankId(bank.name, bank.hash) if bank is not None else BankId())
