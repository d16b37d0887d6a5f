"""The picture conditions used to train `tiny`, as batched tensor operations of random strength."""

from __future__ import annotations

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def flip_and_shift(x: Tensor, gen: torch.Generator) -> Tensor:
    """Mirror and shift each picture at random, by at most 3 of 32 pixels.

    Args:
        x: (B, 3, 32, 32) pictures.
        gen: Source of randomness.

    Returns:
        (B, 3, 32, 32) pictures.
    """
    flip = torch.rand(len(x), generator=gen) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = F.pad(x, (3, 3, 3, 3), mode="reflect")  # (B, 3, 38, 38)
    dy, dx = torch.randint(0, 7, (2, len(x)), generator=gen)
    rows = dy[:, None] + torch.arange(32)  # (B, 32)
    cols = dx[:, None] + torch.arange(32)
    index = torch.arange(len(x))[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def _uniform(n: int, low: float, high: float, gen: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=gen) * (high - low) + low)[:, None, None, None]


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = 4
    axis = torch.arange(-radius, radius + 1, dtype=x.dtype)
    kernel = torch.exp(-(axis**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    x = F.pad(x, (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernel[:, None, :, None], groups=3)
    return F.conv2d(x, kernel[:, None, None, :], groups=3)


def _one(values: list[float], gen: torch.Generator) -> float:
    return values[int(torch.randint(len(values), (1,), generator=gen))]


def _gray(x: Tensor) -> Tensor:
    return (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).expand_as(x)


def apply_condition(name: str, x: Tensor, gen: torch.Generator) -> Tensor:  # noqa: C901 (a list of cases)
    """Apply a picture condition to a batch.

    Args:
        name: The condition, e.g. "dark".
        x: (B, 3, 32, 32) pictures with values in [0, 1].
        gen: Draws the strength.

    Returns:
        (B, 3, 32, 32) pictures with values in [0, 1], rounded to 8 bits.
    """
    n = len(x)
    if name == "blurry":
        x = _blur(x, _one([0.9, 1.2, 1.5, 1.8], gen))
    elif name == "pixelated":
        side = int(_one([9, 10, 11, 12, 13, 14, 16], gen))
        small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        x = F.interpolate(small, size=(32, 32), mode=["nearest", "bilinear"][int(_one([0, 1], gen))])
    elif name == "dark":
        x = x * _uniform(n, 0.12, 0.4, gen)
    elif name == "bright":
        x = 1 - (1 - x) * _uniform(n, 0.2, 0.5, gen)
    elif name == "gray":
        x = _gray(x)
    elif name == "sketch":
        g = _gray(x)[:, :1]
        g = F.pad(g, (1, 1, 1, 1), mode="reflect")
        dx = g[:, :, 1:-1, 2:] - g[:, :, 1:-1, :-2]
        dy = g[:, :, 2:, 1:-1] - g[:, :, :-2, 1:-1]
        x = (1 - 2 * (dx**2 + dy**2).sqrt()).expand(-1, 3, -1, -1)
    elif name == "closeup":
        side = int(_one([17, 19, 21], gen))
        top, left = (torch.randint(0, 33 - side, (2,), generator=gen)).tolist()
        x = F.interpolate(x[:, :, top : top + side, left : left + side], size=(32, 32), mode="bilinear")
    elif name == "small":
        side = int(_one([15, 18, 20], gen))
        top, left = (torch.randint(0, 33 - side, (2,), generator=gen)).tolist()
        canvas = torch.rand((n, 3, 1, 1), generator=gen).repeat(1, 1, 32, 32)
        canvas[:, :, top : top + side, left : left + side] = F.interpolate(
            x, size=(side, side), mode="bilinear", antialias=True
        )
        x = canvas
    elif name == "noisy":
        x = x + torch.randn(x.shape, generator=gen) * _uniform(n, 0.08, 0.25, gen)
    elif name == "rotated":
        x = torch.rot90(x, int(_one([1, 2, 3], gen)), (2, 3))
    elif name == "painted":
        levels = _one([3, 4, 5], gen)
        x = _blur(x, 0.7)
        x = 0.5 + 1.3 * ((x * levels).round() / levels - 0.5)
    elif name == "negative":
        x = 1 - x
    return (x.clamp(0, 1) * 255).round() / 255
