"""Degrades pictures when they are read, with fixed strengths and the same result on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.errors import InputError
from promptsearch.evaluators.data.dataset_names import SHORT_NAMES

if TYPE_CHECKING:
    from PIL.Image import Image

DARK = 0.25  # share of the light that is left
BRIGHT = 0.25  # share of the darkness that is left
LOWRES = 10 / 32  # share of the side: 10 of 32 pixels
NOISE = 0.2  # standard deviation, as a share of the full range
EDGES = 2.0  # ink per gradient magnitude
BLUR = 1.5 / 32  # standard deviation, as a share of the shorter side
SMALL = 0.5  # share of the side
GREY = (128, 128, 128)
LUMA = (0.299, 0.587, 0.114)


def _values(picture: Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64) / 255  # (H, W, 3)


def _picture(values: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))


def _scaled(side: int, factor: float) -> int:
    return max(1, round(side * factor))


def dark(picture: Image) -> Image:
    """Darken a picture to a quarter of its light."""
    return _picture(_values(picture) * DARK)


def bright(picture: Image) -> Image:
    """Overexpose a picture: every pixel keeps a quarter of its distance to white."""
    return _picture(1 - (1 - _values(picture)) * BRIGHT)


def negative(picture: Image) -> Image:
    """Invert every channel."""
    return _picture(1 - _values(picture))


def lowres(picture: Image) -> Image:
    """Average a picture down to 10/32 of its sides, and interpolate it back to its size."""
    from PIL.Image import Resampling

    low = (_scaled(picture.width, LOWRES), _scaled(picture.height, LOWRES))
    return picture.resize(low, Resampling.BOX).resize(picture.size, Resampling.BILINEAR)


def noisy(picture: Image) -> Image:
    """Add Gaussian noise, from a generator that is seeded by the picture's own pixels."""
    x = _values(picture)
    seed = hashlib.sha256(picture.tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    return _picture(x + NOISE * rng.standard_normal(x.shape))


def sketch(picture: Image) -> Image:
    """Draw grey edges on white: 1 - 2 |gradient| by central differences, mirrored at the border."""
    grey = np.pad(_values(picture) @ np.array(LUMA), 1, mode="reflect")  # (H + 2, W + 2)
    dx = grey[1:-1, 2:] - grey[1:-1, :-2]
    dy = grey[2:, 1:-1] - grey[:-2, 1:-1]
    edges = 1 - EDGES * np.hypot(dx, dy)  # (H, W)
    return _picture(np.repeat(edges[:, :, None], 3, axis=2))


def rotated(picture: Image) -> Image:
    """Turn a picture upside down (180 degrees)."""
    from PIL.Image import Transpose

    return picture.transpose(Transpose.ROTATE_180)


def blurry(picture: Image) -> Image:
    """Blur a picture by a Gaussian in proportion to its shorter side."""
    from PIL.ImageFilter import GaussianBlur

    return picture.filter(GaussianBlur(BLUR * min(picture.size)))


def small(picture: Image) -> Image:
    """Shrink a picture to half its sides, in the middle of a grey canvas of its old size."""
    from PIL import Image

    size = (_scaled(picture.width, SMALL), _scaled(picture.height, SMALL))
    canvas = Image.new("RGB", picture.size, GREY)
    canvas.paste(
        picture.resize(size, Image.Resampling.BOX),
        ((picture.width - size[0]) // 2, (picture.height - size[1]) // 2),
    )
    return canvas


CONDITIONS: dict[str, Callable[[Image], Image]] = {
    f.__name__: f for f in (dark, lowres, noisy, sketch, negative, rotated, blurry, bright, small)
}


def split_condition(name: str) -> tuple[str, str | None]:
    """Split a name such as `cifar10-dark` into (`cifar10`, `dark`).

    Only short names can have a condition; a hub id or a path is returned unchanged, with None.

    Raises:
        InputError: A short name has an unknown condition.
    """
    base, dash, condition = name.partition("-")
    if base not in SHORT_NAMES or not dash:
        return name, None
    _known(condition, name)
    return base, condition


def degrade(picture: Image, condition: str | None) -> Image:
    """Return a degraded copy of an RGB picture, of the same size; with None, the picture itself."""
    if condition is None:
        return picture
    return CONDITIONS[_known(condition, condition)](picture)


def _known(condition: str, given: str) -> str:
    if condition not in CONDITIONS:
        raise InputError(f"{given!r}: unknown condition {condition!r}; there are {', '.join(CONDITIONS)}")
    return condition
