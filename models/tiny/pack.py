"""Makes the feature pack of `tiny` from CIFAR-10: features of the held-out training pictures and the test pictures.

python -m promptsearch.models.tiny.pack --data ../shared/cifar10
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from promptsearch.evaluators import Cache, Encoder, resolve_model
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import LiveFeatures, export_pack
from promptsearch.models.tiny.train import HERE, held_out

#: Conditions of the pack in addition to unchanged pictures, chosen on held-out training pictures.
CONDITIONS = ("dark", "lowres", "negative")


@click.command()
@click.option("--data", required=True, help="CIFAR-10 in the hub's form: a folder of parquet files, or a hub id.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE / "pack")
def main(data: str, out: Path) -> None:
    """Encode plain and degraded pictures with the weights beside this file and write the pack to OUT."""
    shutil.rmtree(out, ignore_errors=True)
    cache = Cache()
    encoder = Encoder(resolve_model("tiny", cache, device="cpu"), cache)
    pictures = open_dataset(data)
    pool = held_out(pictures.labels("train"))
    for condition in (None, *CONDITIONS):
        name = "cifar10" if condition is None else f"cifar10-{condition}"
        source = LiveFeatures(pictures, condition, name, encoder, cache)
        for file in export_pack(source, encoder.spec, out, {"train": pool}):
            click.echo(f"{name}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
