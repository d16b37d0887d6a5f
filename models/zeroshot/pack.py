"""Makes the feature packs of `zeroshot`: float16 features of the test pictures and of some training pictures.

python -m promptsearch.models.zeroshot.pack --data ../shared
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from promptsearch.evaluators import Cache, Encoder, resolve_model
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import LiveFeatures, export_pack

HERE = Path(__file__).resolve().parent
#: Name of each pack and the folder of its pictures; `cifar10-dark` and the like are made from `cifar10`.
FOLDERS = {
    "cifar10": "cifar10",
    "cifar10-dark": "cifar10",
    "cifar10-lowres": "cifar10",
    "cifar10-negative": "cifar10",
    "cifar100": "cifar100",
    "pacs-photo": "pacs/photo",
    "pacs-art": "pacs/art",
    "pacs-sketch": "pacs/sketch",
}
#: Largest number of training pictures per class in a pack; few-shot tasks are drawn from these.
TRAIN_PER_CLASS = 200


def some_of_each(labels: np.ndarray, most: int) -> np.ndarray:
    """Return the sorted indices of at most `most` pictures of each class, drawn with a fixed seed.

    Args:
        labels: (N,) class indices.
        most: Largest number of pictures of a class.
    """
    rngs = [np.random.default_rng([2026, label]) for label in range(int(labels.max()) + 1)]
    return np.sort(np.concatenate([r.permutation(np.flatnonzero(labels == c))[:most] for c, r in enumerate(rngs)]))


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE / "pack")
@click.option("--pack", "names", multiple=True, type=click.Choice(list(FOLDERS)), help="Which packs.  [default: all]")
def main(data: Path, out: Path, names: tuple[str, ...]) -> None:
    """Encode the pictures in DATA's folders with the weights beside this file and write the packs to OUT."""
    cache = Cache()
    encoder = Encoder(resolve_model("zeroshot", cache, device="cpu"), cache)
    for name in names or FOLDERS:
        pictures = open_dataset(str(data / FOLDERS[name]))
        condition = name.partition("-")[2] if name.startswith("cifar10-") else None
        source = LiveFeatures(pictures, condition, name, encoder, cache)
        some = some_of_each(pictures.labels("train"), TRAIN_PER_CLASS)
        for file in export_pack(source, encoder.spec, out, {"train": some}, np.float16):
            click.echo(f"{name}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
