"""Reads and augments the training pictures, and applies the conditions that captions name.

All random numbers come from generators that are passed in, on the device of the pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIDE = 32
#: The data sets, beginning with those whose class names are most ordinary, because a concept is called by its first
#: class's name.
DATASETS = ["natural8", "tiny_imagenet", "imagenette", "caltech101", "flowers5", "scene15", "imagenet1000"]


def parquet_files(folder: Path) -> list[tuple[str, Path]]:
    """Return (data set, parquet file) for every data set under `folder`.

    Raises:
        click.UsageError: There is no such file.
    """
    named = [d for d in DATASETS if (folder / d).is_dir()]
    named += sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in DATASETS)
    files = [(name, file) for name in named for file in sorted((folder / name).glob("train-*.parquet"))]
    if not files:
        raise click.UsageError(f"{folder}: no */train-*.parquet (img: bytes, label: class label with names)")
    return files


def _names(file: Path) -> list[str]:
    """Read the class names from the metadata of a parquet file that `datasets` wrote."""
    about = json.loads((pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    names = about.get("info", {}).get("features", {}).get("label", {}).get("names")
    if not names:
        raise click.UsageError(f"{file}: no class names in its schema (write it with datasets' ClassLabel)")
    return list(names)


def read_classes(folder: Path) -> list[tuple[str, str]]:
    """Return (data set, class name) of every class of all data sets; labels are indices into this list."""
    first: dict[str, Path] = {}
    for name, file in parquet_files(folder):
        first.setdefault(name, file)
    return [(name, label) for name, file in first.items() for label in _names(file)]


def _decode(cells: list[bytes]) -> np.ndarray:
    rows = [Image.open(io.BytesIO(cell)).convert("RGB") for cell in cells]
    rows = [row if row.size == (SIDE, SIDE) else row.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for row in rows]
    return np.stack([np.asarray(row) for row in rows])


def read_pictures(folder: Path, workers: int, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Decode the pictures of every data set.

    Args:
        folder: The folder of the data sets.
        workers: Number of decoding processes.
        limit: Largest number of pictures of each data set, evenly spaced; None for all.

    Returns:
        Pictures (N, 3, 32, 32) as bytes, and labels (N,), which are indices into `read_classes`.
    """
    chunks: list[list[bytes]] = []
    labels: list[np.ndarray] = []
    start: dict[str, int] = {}
    for number, (name, _) in enumerate(read_classes(folder)):
        start.setdefault(name, number)
    for name, file in parquet_files(folder):
        table = pq.read_table(file)
        if limit and table.num_rows > limit:
            table = table.take(np.linspace(0, table.num_rows - 1, limit).astype(int))
        cells = [cell["bytes"] for cell in table.column("img").to_pylist()]
        chunks += [cells[at : at + 500] for at in range(0, len(cells), 500)]
        labels.append(table.column("label").to_numpy() + start[name])
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_decode, chunks))
    else:
        parts = [_decode(chunk) for chunk in chunks]
    return np.ascontiguousarray(np.concatenate(parts).transpose(0, 3, 1, 2)), np.concatenate(labels)


def _uniform(x: Tensor, low: float, high: float, gen: torch.Generator) -> Tensor:
    """Draw one number for each picture of x: (B, 1, 1, 1)."""
    import torch

    return torch.rand((len(x), 1, 1, 1), generator=gen, device=x.device) * (high - low) + low


@lru_cache(maxsize=4096)
def _gaussian(sigma: float, side: int) -> np.ndarray:
    """Return the matrix (side, side) that blurs a line of pixels, mirrored at its ends."""
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    at = np.abs(np.arange(side)[:, None] + offsets)  # (side, 9)
    at = np.where(at >= side, 2 * (side - 1) - at, at)
    matrix = np.zeros((side, side), np.float32)
    np.add.at(matrix, (np.arange(side)[:, None], at), kernel / kernel.sum())
    return matrix


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur pictures with a Gaussian of `sigma` pixels, along rows and along columns.  x: (B, C, 32, 32)."""
    import torch

    matrix = torch.from_numpy(_gaussian(round(sigma, 2), SIDE)).to(x.device)
    return torch.matmul(torch.matmul(matrix, x), matrix.T)


def augment(x: Tensor, gen: torch.Generator) -> Tensor:
    """Crop, mirror, sharpen or soften, change light and colour, and cover a patch, at random for each picture.

    Args:
        x: (B, 3, 32, 32) in [0, 1].
        gen: A generator on the pictures' device.

    Returns:
        Pictures of the same shape.
    """
    import torch
    import torch.nn.functional as F

    n = len(x)
    area, aspect = _uniform(x, 0.4, 1, gen).flatten().sqrt(), (_uniform(x, -0.25, 0.25, gen).flatten()).exp()
    wide, high = (area * aspect).clamp(max=1), (area / aspect).clamp(max=1)
    shift = torch.rand((2, n), generator=gen, device=x.device) * 2 - 1
    mirror = torch.where(torch.rand(n, generator=gen, device=x.device) < 0.5, -1.0, 1.0)
    angle = (_uniform(x, -0.2, 0.2, gen)).flatten()
    rows = torch.stack([wide * mirror * angle.cos(), -high * angle.sin(), shift[0] * (1 - wide)], 1)
    cols = torch.stack([wide * mirror * angle.sin(), high * angle.cos(), shift[1] * (1 - high)], 1)
    grid = F.affine_grid(torch.stack([rows, cols], 1), [n, 3, SIDE, SIDE], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    x = x + _uniform(x, -0.5, 1.5, gen) * (x - blur(x, 0.8))  # softer below 0, sharper above 0
    x = x * _uniform(x, 0.75, 1.25, gen)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * _uniform(x, 0.7, 1.3, gen) + mean
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * _uniform(x, 0.5, 1.5, gen)
    x = x * (1 + 0.1 * torch.randn((n, 3, 1, 1), generator=gen, device=x.device))
    at = torch.arange(SIDE, device=x.device)
    edges = [_uniform(x, -12, SIDE, gen).view(n, 1) for _ in range(2)]
    covered = [(at >= edge) & (at < edge + 12) for edge in edges]  # (B, 32) each
    patch = covered[0].view(n, 1, SIDE, 1) & covered[1].view(n, 1, 1, SIDE)
    patch = patch & (torch.rand((n, 1, 1, 1), generator=gen, device=x.device) < 0.4)
    return torch.where(patch, torch.rand((n, 3, 1, 1), generator=gen, device=x.device), x).clamp(0, 1)


def _edges(x: Tensor, sigma: float) -> Tensor:
    """Return the strength (B, 1, H, W) of edges at each pixel, about 1 for the strongest."""
    import torch.nn.functional as F

    g = blur(x.mean(1, keepdim=True), sigma)
    g = F.pad(g, (1, 1, 1, 1), mode="replicate")
    dx, dy = g[:, :, 1:-1, 2:] - g[:, :, 1:-1, :-2], g[:, :, 2:, 1:-1] - g[:, :, :-2, 1:-1]
    size = (dx**2 + dy**2 + 1e-8).sqrt()
    return size / (size.mean((1, 2, 3), keepdim=True) * 4 + 0.05)


def _sketch(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    """Draw the pictures in black on white, with soft pencil, thin or thick lines, or filled dark parts."""
    import torch
    import torch.nn.functional as F

    style = int(rng.choice(4, p=[0.3, 0.35, 0.2, 0.15]))
    edges = _edges(x, float(rng.uniform(0.5, 1.3)))
    if style == 0:
        lines = edges * _uniform(x, 0.6, 1.4, gen)
    elif style == 1:
        lines = torch.sigmoid((edges - _uniform(x, 0.35, 0.6, gen)) * 14)
    elif style == 2:
        lines = F.max_pool2d(torch.sigmoid((edges - _uniform(x, 0.45, 0.7, gen)) * 14), 3, stride=1, padding=1)
    else:
        g = x.mean(1, keepdim=True)
        lines = torch.sigmoid((g.mean((2, 3), keepdim=True) * _uniform(x, 0.8, 1.1, gen) - g) * 25)
    return (1 - lines).clamp(0, 1).expand(-1, 3, -1, -1)


def _painted(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    """Flatten and shift colours; half of the time with dark outlines, as in a cartoon."""
    import torch

    edges = _edges(x, 0.9) if rng.random() < 0.5 else None
    x = blur(x, float(rng.uniform(0.5, 1.2)))
    levels = float(rng.integers(3, 7))
    x = torch.round(x * levels) / levels
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * _uniform(x, 0.3, 2.2, gen)
    tint = torch.rand((len(x), 3, 1, 1), generator=gen, device=x.device)
    x = x + _uniform(x, 0, 0.35, gen) * (tint - x)
    return x if edges is None else x * (1 - torch.sigmoid((edges - 0.5) * 12))


def apply_condition(name: str, x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    """Put a batch of pictures under a condition.

    Args:
        name: A key of `captions.WORDINGS`.
        x: (B, 3, 32, 32) in [0, 1].
        rng: Draws the values that are the same for the whole batch.
        gen: Draws the values of each picture; a generator on the pictures' device.

    Returns:
        Pictures of the same shape in [0, 1].
    """
    if len(x) == 0 or name == "plain":
        return x
    if name not in _CONDITIONS:
        raise ValueError(f"no such condition: {name}")
    return _CONDITIONS[name](x, rng, gen).clamp(0, 1)


def _pixelated(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    import torch.nn.functional as F

    side = int(rng.integers(8, 15))
    smooth = rng.random() < 0.5
    small = F.interpolate(x, size=(side, side), mode="area")
    return F.interpolate(small, size=(SIDE, SIDE), mode="bilinear" if smooth else "nearest")


def _closeup(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    import torch.nn.functional as F

    side = int(rng.integers(14, 21))
    top, left = (int(v) for v in rng.integers(0, SIDE + 1 - side, 2))
    return F.interpolate(x[:, :, top : top + side, left : left + side], size=(SIDE, SIDE), mode="bilinear")


def _small(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    import torch
    import torch.nn.functional as F

    side = int(rng.integers(12, 21))
    top, left = (int(v) for v in rng.integers(0, SIDE + 1 - side, 2))
    colour = torch.rand((len(x), 3, 1, 1), generator=gen, device=x.device)
    canvas = (colour if rng.random() < 0.5 else x.mean((2, 3), keepdim=True)).repeat(1, 1, SIDE, SIDE)
    canvas[:, :, top : top + side, left : left + side] = F.interpolate(x, size=(side, side), mode="area")
    return canvas


def _noisy(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    import torch

    return x + torch.randn(x.shape, generator=gen, device=x.device) * _uniform(x, 0.08, 0.28, gen)


def _rotated(x: Tensor, rng: np.random.Generator, gen: torch.Generator) -> Tensor:
    import torch

    return torch.rot90(x, int(rng.integers(1, 4)), (2, 3))


_CONDITIONS: dict[str, Callable[[Tensor, np.random.Generator, torch.Generator], Tensor]] = {
    "blurry": lambda x, rng, gen: blur(x, float(rng.uniform(0.9, 2.2))),
    "pixelated": _pixelated,
    "dark": lambda x, rng, gen: x * _uniform(x, 0.12, 0.4, gen),
    "bright": lambda x, rng, gen: 1 - (1 - x) * _uniform(x, 0.2, 0.55, gen),
    "gray": lambda x, rng, gen: x.mean(1, keepdim=True).expand(-1, 3, -1, -1),
    "sketch": _sketch,
    "closeup": _closeup,
    "small": _small,
    "noisy": _noisy,
    "rotated": _rotated,
    "painted": _painted,
    "negative": lambda x, rng, gen: 1 - x,
}
