"""Measures how much the wording of a prompt matters under each picture condition, for the embedded model `tiny`.

    python -m promptsearch.models.tiny.conditions --data ../shared/cifar10

For each condition it prints the accuracy of "a photo of a {}.", of the bank's best template and of the worst, on the
training pictures held out from `tiny`'s training. The conditions of the shipped feature pack were chosen by this table.
"""

from __future__ import annotations

import click
import numpy as np

from promptsearch.banks import BASELINE, PromptSet, load_bank
from promptsearch.evaluators import Cache, Encoder, Evaluator, Split, Task, resolve_model
from promptsearch.evaluators.data.corruptions import CONDITIONS
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import LiveFeatures
from promptsearch.models.tiny.train import held_out


@click.command()
@click.option("--data", required=True, help="CIFAR-10 in the hub's form: a folder of parquet files, or a hub id.")
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--conditions", default=",".join(["plain", *CONDITIONS]), show_default=True)
@click.option("--every", default=1, show_default=True, help="Use only every n-th held-out picture.")
def main(data: str, bank_spec: str, conditions: str, every: int) -> None:
    """Print a table of the best and worst template under each picture condition."""
    cache = Cache()
    encoder = Encoder(resolve_model("tiny", cache, device="cpu"), cache)
    pictures = open_dataset(data)
    pool = held_out(pictures.labels("train"))[::every]
    sets = [PromptSet.of(t) for t in load_bank(bank_spec).templates]
    click.echo("| condition | a photo of a {}. | best template | accuracy | gap | worst template | accuracy |")
    click.echo("|---|---|---|---|---|---|---|")
    for condition in conditions.split(","):
        source = LiveFeatures(pictures, None if condition == "plain" else condition, condition, encoder, cache)
        split = Split(source.features("train", pool), source.labels("train")[0][pool], pool)
        task = Task(condition, source.class_names, 0, 0, split, split, lambda: split)  # noqa: B023 (never called)
        evaluator = Evaluator(task, encoder.encode_texts, encoder.logit_scale)
        accuracy = np.array([s.accuracy for s in evaluator.score(sets)])
        plain = evaluator.score([PromptSet.of(BASELINE)])[0].accuracy
        best, worst = int(accuracy.argmax()), int(accuracy.argmin())
        click.echo(
            f"| {condition} | {100 * plain:.1f} | {sets[best].templates[0]} | {100 * accuracy[best]:.1f} "
            f"| {100 * (accuracy[best] - plain):+.1f} | {sets[worst].templates[0]} | {100 * accuracy[worst]:.1f} |"
        )


if __name__ == "__main__":
    main()
