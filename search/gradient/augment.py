"""CoOp's published way with pictures: a random resized crop and a flip, and a new encoding, for every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

AREA = (0.08, 1.0)  # of the picture
RATIO = (3 / 4, 4 / 3)


class AugmentedPictures:
    """Unit vectors of pictures that are cropped and mirrored anew each time.

    fresh = AugmentedPictures(model, preprocess, pictures)
    features = fresh(torch.tensor([0, 3]), torch.Generator())  # (2, D)
    """

    def __init__(self, model: Any, preprocess: Callable[[Image], torch.Tensor], pictures: Iterable[Image]) -> None:
        self.model, self.preprocess, self.pictures = model, preprocess, list(pictures)
        side = model.visual.image_size
        self.size = (side, side) if isinstance(side, int) else (int(side[1]), int(side[0]))  # width, height

    def __call__(self, batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        device = next(self.model.parameters()).device
        pixels = torch.stack([self.preprocess(self._augmented(self.pictures[i], random)) for i in batch.tolist()])
        with torch.no_grad():
            return F.normalize(self.model.encode_image(pixels.to(device)).float(), dim=-1)

    def _augmented(self, picture: Image, random: torch.Generator) -> Image:
        from PIL.Image import Resampling, Transpose

        picture = picture.resize(self.size, Resampling.BICUBIC, box=random_box(*picture.size, random))
        return picture.transpose(Transpose.FLIP_LEFT_RIGHT) if _uniform(random, 0, 1) < 0.5 else picture


def random_box(width: int, height: int, random: torch.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random resized crop, as torchvision draws it: ten tries, then the centre."""
    for _ in range(10):
        area = width * height * _uniform(random, *AREA)
        ratio = math.exp(_uniform(random, math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(_uniform(random, 0, width - w + 1)), int(_uniform(random, 0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _uniform(random: torch.Generator, low: float, high: float) -> float:
    import torch

    return low + (high - low) * float(torch.rand((), generator=random))
