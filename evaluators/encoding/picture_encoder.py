"""Encodes pictures with an open_clip model, decoding and copying ahead and with fused layers."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding.picture_loader import (
    CHUNK,
    Preprocessing,
    by_processes,
    by_threads,
    processes_for,
)
from promptsearch.evaluators.scoring.template_table import out_of_memory

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from promptsearch.evaluators.encoding.fused_resnet import FusedResNet

#: Number of pictures in a forward pass; larger batches do not fit into a CPU's caches.
BATCH = {"cpu": 8, "cuda": 256}

#: Precisions in which a ResNet's layers are fused, with the names of torch's dtypes.
FUSED = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Largest number of batches waiting for a GPU.
BEHIND = 4

log = logging.getLogger(__name__)


class PictureEncoder:
    """Encodes pictures to unit vectors with an open_clip model.

        encoder = PictureEncoder(model, preprocess, "cpu")
        encoder.encode([Image.open("cat.png")])  # (1, D) float32

    Args:
        model: The model, in eval mode on its device.
        preprocess: open_clip's transform of a picture.
        device: "cpu", "cuda" or "mps".
        precision: "fp32", "bf16" or "fp16".
        batch: Number of pictures in a forward pass; by default it depends on the device.
    """

    def __init__(
        self, model: Any, preprocess: Any, device: str, *, precision: str = "fp32", batch: int | None = None
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.size = batch or BATCH["cpu" if device == "cpu" else "cuda"]
        # On a CPU the model takes ten times as long as resizing, so resizing need not be fast and is exactly
        # open_clip's.
        self._halves = Preprocessing(preprocess, quick=device == "cuda")
        self._launched: deque[Any] = deque()  # CUDA events of the batches that were sent to the GPU

    def encode_blocks(
        self, blocks: Sequence[Iterable[Image | StoredPicture]], told: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Encode blocks of pictures; many stored pictures, given as sequences, are decoded by one process per core.

        Args:
            blocks: The blocks.
            told: Called with the number of pictures done.

        Yields:
            (number of the block, vectors (n, D)) as blocks finish, not always in order.
        """
        done = 0

        def counted(pictures: Iterable[Image | StoredPicture]) -> Iterator[Image | StoredPicture]:
            nonlocal done
            for picture in pictures:
                yield picture
                done += 1
                if done % 16 == 0:
                    told(done)

        def counted_batches(loaded: Iterator[torch.Tensor], pictures: Sequence[Any]) -> Iterator[torch.Tensor]:
            nonlocal done
            for _ in range(0, len(pictures), self.size):
                yield (batch := next(loaded))
                told(done := done + len(batch))

        loaded = self._loaded(blocks)
        for n, pictures in enumerate(blocks):
            if loaded is None or not isinstance(pictures, Sequence):
                yield n, self.encode(counted(pictures))
            else:
                yield n, self._vectors(counted_batches(loaded, pictures), pictures.__getitem__)

    def _loaded(self, blocks: Sequence[Iterable[Image | StoredPicture]]) -> Iterator[torch.Tensor] | None:
        """Return batches of all blocks, prepared by processes, or None if that would not be faster."""
        sized = [b for b in blocks if isinstance(b, Sequence) and len(b) > 0 and isinstance(b[0], StoredPicture)]
        if len(sized) < len(blocks):
            return None
        one = self._halves.pixels(sized[0][0]).nbytes if sized else 0
        size, count = self.size, sum(map(len, sized))
        chunk = size if size < CHUNK else CHUNK
        workers = processes_for(count, chunk, one)
        if not workers:
            return None
        chunks = by_processes(sized, self._halves, chunk, workers, self.device == "cuda")

        def batches() -> Iterator[torch.Tensor]:
            import torch

            for block in sized:
                for at in range(0, len(block), size):
                    parts = [self._sent(next(chunks)) for _ in range(at, min(at + size, len(block)), chunk)]
                    yield parts[0] if len(parts) == 1 else torch.cat(parts)

        return batches()

    def encode(self, pictures: Iterable[Image | StoredPicture]) -> np.ndarray:
        """Encode RGB pictures, decoding and preprocessing some while the model computes others.

        Args:
            pictures: n pictures.

        Returns:
            (n, D) float32 unit vectors.

        Raises:
            PromptSearchError: A vector is not finite (the message names the picture), or memory ran out.
        """
        places: list[str] = []
        threads = 1 if self.device == "cpu" else 8
        batches = by_threads(_noting(pictures, places), self._halves, self.size, threads)
        return self._vectors((self._sent(x) for x in batches), places.__getitem__)

    def _vectors(self, batches: Iterable[torch.Tensor], source: Callable[[int], str | StoredPicture]) -> np.ndarray:
        """Encode batches on the device to unit vectors (n, D); `source` returns a picture's name for messages."""
        import torch

        rows = []  # stay on the device, because copying each batch back would wait for it
        try:
            with torch.inference_mode():
                for x in batches:
                    rows.append(self._unit_vectors(x))
                    self._throttle()
                vectors = (torch.cat(rows) if rows else self._none()).cpu().numpy()
        except (MemoryError, RuntimeError) as e:
            if not out_of_memory(e):
                raise
            raise PromptSearchError(
                f"{self.device} ran out of memory with {self.size} pictures at a time; use a smaller --encode-batch"
            ) from e
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            bad = source(int(np.argmin(finite)))
            raise PromptSearchError(
                f"the model gives a vector that is not finite for {bad if isinstance(bad, str) else bad.where}; "
                "check that picture and the model's weights, or use --precision fp32"
            )
        return vectors

    def _none(self) -> torch.Tensor:
        """Return an empty tensor (0, D)."""
        import torch

        side = self.model.visual.image_size
        size = (side, side) if isinstance(side, int) else tuple(side)
        return self._unit_vectors(torch.zeros(1, 3, *size))[:0]

    def _sent(self, x: torch.Tensor) -> torch.Tensor:
        """Copy a batch to the device while the device computes earlier ones."""
        if self.device != "cuda":
            return x.to(self.device)
        import torch

        x = x if x.is_pinned() else x.pin_memory()
        with torch.cuda.stream(self._copies):
            there = x.to("cuda", non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._copies)
        there.record_stream(torch.cuda.current_stream())
        return there

    @functools.cached_property
    def _copies(self) -> Any:
        import torch

        return torch.cuda.Stream()

    def _throttle(self) -> None:
        """Wait if too many batches are waiting for the device, because they take its memory."""
        if self.device != "cuda":
            return
        import torch

        self._launched.append(event := torch.cuda.Event())
        event.record()
        if len(self._launched) > BEHIND:
            self._launched.popleft().synchronize()

    def _unit_vectors(self, x: torch.Tensor) -> torch.Tensor:
        """Encode pictures on the device, bytes (n, H, W, 3) or preprocessed (n, 3, H, W), to unit vectors (n, D)."""
        import torch

        x = self._halves.normalised(x.to(self.device)).contiguous(memory_format=torch.channels_last)
        count = len(x)
        if self.device == "cuda" and count < self.size:  # cuDNN plans, and may compile, anew for each batch size
            x = torch.cat([x, x.new_zeros(self.size - count, *x.shape[1:])])
        if self._fused is not None:
            features = self._fused(x)
        else:
            with self._autocast():
                features = self.model.encode_image(x.to(self._dtype))
        return torch.nn.functional.normalize(features[:count].float(), dim=-1)

    @functools.cached_property
    def _dtype(self) -> torch.dtype:
        """The dtype of the picture tower's input, which is that of its first convolution."""
        import torch

        kernels = (m.weight.dtype for m in self.model.visual.modules() if isinstance(m, torch.nn.Conv2d))
        return next(kernels, torch.float32)

    @functools.cached_property
    def _fused(self) -> FusedResNet | None:
        """The picture tower with fused layers, or None if it is not supported."""
        import torch

        from promptsearch.evaluators.encoding.fused_resnet import FusedResNet, agrees, can_fuse

        if not can_fuse(self.model.visual, self.device):
            return None
        fused = FusedResNet(self.model.visual, getattr(torch, FUSED[self.precision]))
        if self.device == "cuda" and not agrees(fused, self.model.visual, self.size):  # the kernels differ between GPUs
            log.warning("cuDNN's fused convolutions give other vectors on this GPU: they are not used")
            return None
        return fused

    def _autocast(self) -> contextlib.AbstractContextManager:
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device, dtype=dtype)


def _noting(pictures: Iterable[Image | StoredPicture], places: list[str]) -> Iterator[Image | StoredPicture]:
    """Yield pictures, and append each one's name, which messages use, to `places`."""
    for i, picture in enumerate(pictures):
        places.append(picture.where if isinstance(picture, StoredPicture) else f"picture {i} of those given")
        yield picture
