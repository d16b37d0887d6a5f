"""Training pictures as in the published CoOp: cropped and flipped at random and encoded anew in every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

AREA = (0.08, 1.0)  # smallest and largest share of the picture's area
RATIO = (3 / 4, 4 / 3)


class AugmentedPictures:
    """Encodes pictures with a new random resized crop and flip on every call.

        fresh = AugmentedPictures(model, preprocess, pictures)
        features = fresh(torch.tensor([0, 3]), torch.Generator())  # (2, D)

    Args:
        model: An open_clip model.
        preprocess: The model's preprocessing of one picture.
        pictures: The N pictures.
    """

    def __init__(self, model: Any, preprocess: Callable[[Image], torch.Tensor], pictures: Iterable[Image]) -> None:
        self.model, self.preprocess, self.pictures = model, preprocess, list(pictures)
        side = model.visual.image_size
        self.size = (side, side) if isinstance(side, int) else (int(side[1]), int(side[0]))  # width, height

    def __call__(self, batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Encode the pictures at the indices `batch` (B,) to unit vectors (B, D)."""
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
    """Draw the box of a random resized crop as torchvision does: ten attempts, then the centre.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        random: Source of randomness.

    Returns:
        (left, top, right, bottom) in pixels.
    """
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
