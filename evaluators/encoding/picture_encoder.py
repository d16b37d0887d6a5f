"""Pictures to unit vectors through an open_clip model: decoded ahead, copied while it computes, its layers fused."""

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
from promptsearch.evaluators.scoring.memory import out_of_memory

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from promptsearch.evaluators.encoding.fused_resnet import FusedResNet

#: Pictures per forward pass: on a CPU larger batches fall out of the caches.
BATCH = {"cpu": 8, "cuda": 256}

#: Precisions in which a ResNet's layers are fused, by torch's names.
FUSED = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Batches of pictures that a GPU may be behind.
BEHIND = 4

log = logging.getLogger(__name__)


class PictureEncoder:
    """Pictures to unit vectors with the weights of an open_clip model.

        encoder = PictureEncoder(model, preprocess, "cpu")
        encoder.encode([Image.open("cat.png")])  # (1, D) float32

    Args:
        model: in eval mode, on the device.
        preprocess: open_clip's transform of a picture.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        batch: pictures computed at a time (default: by the device).
    """

    def __init__(
        self, model: Any, preprocess: Any, device: str, *, precision: str = "fp32", batch: int | None = None
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.size = batch or BATCH["cpu" if device == "cpu" else "cuda"]
        self._halves = Preprocessing(preprocess)
        self._launched: deque[Any] = deque()  # marks of the batches that a GPU was given

    def encode_blocks(
        self, blocks: Sequence[Iterable[Image | StoredPicture]], told: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number and vectors of each block of pictures as it is done, not always in order: what is worth keeping.

        Many stored pictures, given as sequences of sequences, are decoded by a process for each core.

        Args:
            told: how many pictures are done.
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
        """Batches of each of these blocks from processes that prepare them; None where that does not pay."""
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
        """(n, D) float32 unit vectors of a stream of RGB pictures; decoding and preprocessing overlap the model.

        Raises:
            PromptSearchError: the model gives infinities or NaN, with the picture's place; or memory ran out.
        """
        places: list[str] = []
        threads = 1 if self.device == "cpu" else 8
        batches = by_threads(_noting(pictures, places), self._halves, self.size, threads)
        return self._vectors((self._sent(x) for x in batches), places.__getitem__)

    def _vectors(self, batches: Iterable[torch.Tensor], source: Callable[[int], str | StoredPicture]) -> np.ndarray:
        """(n, D) unit vectors of batches (n, H, W, 3) on the device; `source` names a picture in a message."""
        import torch

        rows = []  # stay on the device: copying each batch back would wait for it
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
                f"{self.device} ran out of memory with {self.size} pictures at a time: lower --encode-batch"
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
        """(0, D)."""
        import torch

        side = self.model.visual.image_size
        size = (side, side) if isinstance(side, int) else tuple(side)
        return self._unit_vectors(torch.zeros(1, 3, *size))[:0]

    def _sent(self, x: torch.Tensor) -> torch.Tensor:
        """A batch on the device, without waiting for it: copied while the device computes what came before."""
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
        """Let the device be at most some batches behind: pictures that wait for it take its memory."""
        if self.device != "cuda":
            return
        import torch

        self._launched.append(event := torch.cuda.Event())
        event.record()
        if len(self._launched) > BEHIND:
            self._launched.popleft().synchronize()

    def _unit_vectors(self, x: torch.Tensor) -> torch.Tensor:
        """Unit vectors (n, D) of pictures (n, H, W, 3) in bytes, or preprocessed (n, 3, H, W), on the device."""
        import torch

        x = self._halves.normalised(x.to(self.device)).contiguous(memory_format=torch.channels_last)
        count = len(x)
        if self.device == "cuda" and count < self.size:  # cuDNN plans, and may compile, for each size of a batch
            x = torch.cat([x, x.new_zeros(self.size - count, *x.shape[1:])])
        if self._fused is not None:
            features = self._fused(x)
        else:
            with self._autocast():
                features = self.model.encode_image(x)
        return torch.nn.functional.normalize(features[:count].float(), dim=-1)

    @functools.cached_property
    def _fused(self) -> FusedResNet | None:
        """The visual tower with fused layers, where it can be; made from the model when pictures are first encoded."""
        import torch

        from promptsearch.evaluators.encoding.fused_resnet import FusedResNet, agrees, can_fuse

        if not can_fuse(self.model.visual, self.device):
            return None
        fused = FusedResNet(self.model.visual, getattr(torch, FUSED[self.precision]))
        if self.device == "cuda" and not agrees(
            fused, self.model.visual, self.size
        ):  # kernels differ from card to card
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
    """The pictures, while what each is called in a message is noted."""
    for i, picture in enumerate(pictures):
        places.append(picture.where if isinstance(picture, StoredPicture) else f"picture {i} of those given")
        yield picture
