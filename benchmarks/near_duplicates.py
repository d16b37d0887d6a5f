"""How far the hashes of `--test-share` are apart: for changed copies of pictures, and for different pictures.

python benchmarks/near_duplicates.py FOLDER [--pictures 3000]
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import click
import numpy as np
from PIL import Image, ImageEnhance

from promptsearch.evaluators.data import open_dataset
from promptsearch.evaluators.data.holdout import BITS, SIDE, hash_image

#: Pictures that are copied.
COPIED = 400


def copies(picture: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield changed copies of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    yield "JPEG of quality 50", Image.open(buffer).convert("RGB")
    width, height = picture.size
    yield "half the size", picture.resize((max(8, width // 2), max(8, height // 2)), Image.Resampling.BICUBIC)
    yield "a fifth brighter", ImageEnhance.Brightness(picture).enhance(1.2)
    x, y = max(1, round(0.03 * width)), max(1, round(0.03 * height))
    yield "3 % cropped", picture.crop((x, y, width - x, height - y))
    yield "mirrored", picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def bits(picture: Image.Image) -> np.ndarray:
    """Return the bits of a picture's hash, (SIDE * SIDE,)."""
    return np.unpackbits(hash_image(picture)[: SIDE * SIDE // 8])


def mirrored_bits(picture: Image.Image) -> np.ndarray:
    """Return the bits of the mirrored picture's hash, (SIDE * SIDE,)."""
    return np.unpackbits(hash_image(picture)[SIDE * SIDE // 8 : SIDE * SIDE // 4])


@click.command()
@click.argument("folder")
@click.option("--pictures", default=3000, show_default=True, type=click.IntRange(2))
def main(folder: str, pictures: int) -> None:
    """Compare pictures of FOLDER, a data set as for --dataset."""
    data = open_dataset(folder)
    drawn = np.random.default_rng(0).permutation(len(data.labels("train")))[:pictures]
    shown = list(data.pictures("train", drawn.tolist()))
    hashes = np.stack([bits(p) for p in shown])
    signs = hashes.astype(np.float32) * 2 - 1
    turned = np.stack([mirrored_bits(p) for p in shown]).astype(np.float32) * 2 - 1
    alike = np.maximum(signs @ signs.T, signs @ turned.T)  # (N, N)
    apart = ((SIDE * SIDE - alike) / 2)[np.triu_indices(len(signs), 1)]
    near = f"the nearest differ in {apart.min():.0f} of {SIDE * SIDE} bits, {(apart <= BITS).sum()} in at most {BITS}"
    print(f"{len(hashes)} pictures, {len(apart):,} pairs: {near}")
    changed: dict[str, list[int]] = {}
    for picture, own in zip(shown[:COPIED], hashes, strict=False):
        for name, copy in copies(picture):
            differ = min((bits(copy) != own).sum(), (mirrored_bits(copy) != own).sum())
            changed.setdefault(name, []).append(int(differ))
    for name, found in changed.items():
        half, most = np.percentile(found, [50, 95])
        print(f"{name}: half of the copies differ in at most {half:.0f} bits, 95 % in at most {most:.0f}")


if __name__ == "__main__":
    main()
