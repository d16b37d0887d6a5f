"""`promptsearch coop`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.options import (
    draw_options,
    output_options,
    pictures_option,
    problem_options,
    rating_option,
    refuse_unused,
)

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


@click.command()
@problem_options
@pictures_option
@draw_options
@click.option("--vectors", type=int, default=16, show_default=True, help="Context vectors.")
@click.option(
    "--position",
    default="end",
    show_default=True,
    shell_complete=complete.words("end", "middle", "front"),
    help="Of the class name: end, middle or front.",
)
@click.option("--specific", is_flag=True, help="A context for every class (CSC) instead of one for all.")
@click.option("--init", help='Text to start from instead of noise, e.g. "a photo of a"; sets --vectors.')
@click.option("--epochs", type=int, help="By default CoOp's: 50, 100, 100, 200, 200 for 1, 2, 4, 8, 16 shots.")
@click.option("--rate", type=float, default=0.002, show_default=True, help="Learning rate.")
@click.option("--batch", type=int, default=32, show_default=True, help="Pictures per step.")
@click.option("--augment", is_flag=True, help="Crop and mirror the pictures anew for every step, as published; slow.")
@click.option("--kg", type=float, default=0.0, show_default=True, help="KgCoOp's pull to the hand-written prompt.")
@click.option(
    "--bank",
    "bank_spec",
    shell_complete=complete.banks,
    help="A bank for --hull or --sample; alone: whose nearest templates are shown.",
)
@click.option("--hull", type=float, default=0.0, show_default=True, help="Pull to the convex hull of the bank.")
@click.option("--sample", type=int, help="Learn a mixture of the bank's templates instead; keep so many of it.")
@click.option("--gumbel", is_flag=True, help="With --sample: sample templates (Gumbel-softmax) while learning.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write what was learnt (safetensors).")
@rating_option
@output_options
def coop(bank_spec: str | None, **options: Any) -> None:
    """Learn context vectors by gradient (CoOp): what readable prompts are compared with.

    Picture features are cached and not augmented unless --augment is given.  The same command again resumes a training
    that was cut off, and shows one that is finished.
    """
    from promptsearch.banks import load_bank
    from promptsearch.commands.baseline_run import baseline_command
    from promptsearch.config import BankId
    from promptsearch.errors import InputError
    from promptsearch.runs.baselines.learners import learn_context, sample_bank
    from promptsearch.search.gradient import CoOpOptions, Schedule, SparseOptions, published_epochs

    names = ("vectors", "position", "specific", "init", "epochs", "rate", "batch", "augment", "kg", "hull", "sample")
    own = {k: options.pop(k) for k in (*names, "gumbel")}
    bank = load_bank(bank_spec) if bank_spec else None
    if bank is None and (own["hull"] or own["sample"] is not None):
        raise InputError("--hull and --sample need the templates of a --bank, e.g. --bank templates")
    if own["gumbel"] and own["sample"] is None:
        raise InputError("--gumbel: goes with --sample; say how many templates to keep, e.g. --sample 4")
    if own["sample"] is not None:
        of_contexts = ("vectors", "position", "specific", "init", "epochs", "rate", "batch", "augment", "kg", "hull")
        refuse_unused(of_contexts, "--sample learns no context; leave one of the two out")
    if own["init"] is not None:
        refuse_unused(["vectors"], "--init sets it by the number of its tokens; leave one of the two out")
    if not own["augment"]:
        refuse_unused(["pictures"], "cached features are learnt from; it goes with --augment")
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
