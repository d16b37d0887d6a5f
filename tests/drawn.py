"""Pictures that tests draw: circles, squares and triangles, no two of which are nearly the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")


def shape(name: str, seed: int, size: int = 48) -> Image.Image:
    """A shape of random place, size and colours on stripes of random width."""
    rng = np.random.default_rng([SHAPES.index(name), seed])
    picture = Image.new("RGB", (size, size), tuple(rng.integers(120, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):  # strokes, so that no two pictures agree outside the shape
        ends = rng.integers(0, size, 4).tolist()
        pen.line(ends, fill=tuple(rng.integers(0, 256, 3).tolist()), width=3)
    r = int(rng.integers(size // 6, size // 3))
    x, y = (int(v) for v in rng.integers(r, size - r, 2))
    fill = tuple(rng.integers(0, 120, 3).tolist())
    if name == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif name == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: int) -> bytes:
    """The bytes of a picture's file."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def class_folders(root: Path, each: int, first: int = 0, names: tuple[str, ...] = SHAPES) -> Path:
    """Write `each` pictures of every shape to root/SHAPE/NUMBER.png."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + each):
            shape(name, i).save(root / name / f"{i}.png")
    return root
