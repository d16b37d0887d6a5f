"""Pictures decoded, resized and cropped ahead of the model: by threads, or by a process for each core.

What a process hands over is bytes, a quarter of the floats that a model reads: they are normalised where the model is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.encoded_picture import StoredPicture

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

#: Pictures that a process prepares at a time: few enough that the first ones come soon.
CHUNK = 64

#: Fewer pictures than this are not worth starting processes for, which takes some tenths of a second.
MANY = 512

#: Chunks that each process may be ahead.
AHEAD = 2


class Preprocessing:
    """open_clip's transform of a picture in two halves, with the same result as the whole, to the bit.

        halves = Preprocessing(preprocess)
        pixels = halves.pixels(picture)                                # (H, W, 3) uint8
        halves.normalised(torch.from_numpy(pixels)[None])              # (1, 3, H, W) float32, as preprocess(picture)

    Where the transform does not end as open_clip's do, `pixels` is the whole of it and `normalised` leaves it alone.
    """

    def __init__(self, transform: Any) -> None:
        from torchvision.transforms import Compose, Normalize, ToTensor

        steps = list(transform.transforms) if type(transform) is Compose else [transform]
        last = steps[-2:]
        self.splits = len(last) == 2 and isinstance(last[0], ToTensor) and type(last[1]) is Normalize
        self._steps = steps[:-2] if self.splits else steps
        self._scale = (last[1].mean, last[1].std) if self.splits else None
        self._on: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # by device

    def pixels(self, picture: Image | StoredPicture) -> NDArray[Any]:
        """(H, W, 3) uint8: decoded, resized and cropped; (3, H, W) float32 where the transform does not split."""
        x: Any = picture.open() if isinstance(picture, StoredPicture) else picture
        for step in self._steps:
            x = step(x)
        return np.array(x)  # PIL's own memory is read-only

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """What the model reads (N, 3, H, W), of a batch of what `pixels` gives, on its device."""
        import torch

        if self._scale is None or x.dtype != torch.uint8:
            return x
        name = str(x.device)
        if name not in self._on:  # made once: making a tensor on a device waits for it
            mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device)[:, None, None] for v in self._scale)
            self._on[name] = mean, std
        mean, std = self._on[name]
        return x.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(mean).div_(std)


def by_threads(
    pictures: Iterable[Image | StoredPicture], halves: Preprocessing, size: int, threads: int
) -> Iterator[torch.Tensor]:
    """Batches (B, H, W, 3) of a stream, prepared up to two batches ahead by threads of this process."""
    import torch

    waiting: deque[Future[NDArray[Any]]] = deque()

    def batch(most: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([waiting.popleft().result() for _ in range(min(most, len(waiting)))]))

    with ThreadPoolExecutor(threads) as pool:
        for picture in pictures:
            waiting.append(pool.submit(halves.pixels, picture))
            if len(waiting) == 3 * size:
                yield batch(size)
        while waiting:
            yield batch(size)


def processes_for(count: int, chunk: int, pixels: int) -> int:
    """How many processes are to prepare so many pictures; 0 where threads of this one do it as well.

    Args:
        chunk: pictures that a process prepares at a time.
        pixels: bytes of one of them.
    """
    # Only a fork starts at once, and needs no `if __name__ == "__main__"` of the user's; Macs cannot fork with threads.
    if count < MANY or not sys.platform.startswith("linux"):
        return 0
    workers = min(cores(), count // (2 * chunk))
    if workers < 2:
        return 0
    try:  # they hand over in shared memory, of which containers have 64 MB unless told otherwise
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0
    return workers if free > 2 * workers * AHEAD * chunk * pixels else 0


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Macs and Windows do not say
        return os.cpu_count() or 1


class _Chunks:
    """What torch's DataLoader asks for a chunk: the pictures of some blocks, numbered through."""

    def __init__(self, blocks: Sequence[Sequence[StoredPicture]], halves: Preprocessing) -> None:
        self._blocks, self._halves = blocks, halves

    def __getitem__(self, at: tuple[int, slice]) -> torch.Tensor | PromptSearchError:
        import torch

        block, part = at
        try:
            pictures = self._blocks[block][part]
            return torch.from_numpy(np.stack([self._halves.pixels(p) for p in pictures]))
        except PromptSearchError as e:  # DataLoader would put the whole traceback into its message
            return e


def by_processes(
    blocks: Sequence[Sequence[StoredPicture]], halves: Preprocessing, chunk: int, workers: int, pinned: bool
) -> Iterator[torch.Tensor]:
    """Chunks (at most `chunk`, H, W, 3) of each block in order, prepared ahead by processes.

    Raises:
        PromptSearchError: a picture cannot be decoded, or a process was killed.
    """
    import torch
    from torch.utils.data import DataLoader

    parts = [(n, slice(at, at + chunk)) for n, block in enumerate(blocks) for at in range(0, len(block), chunk)]
    loader: DataLoader[Any] = DataLoader(
        _Chunks(blocks, halves),  # type: ignore[arg-type]  # all that it needs
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        multiprocessing_context="fork",
        worker_init_fn=_yielding,
        generator=torch.Generator(),  # it draws a seed: not from everybody's generator
    )
    try:
        for found in loader:
            if isinstance(found, PromptSearchError):
                raise found
            yield found
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
        raise PromptSearchError(
            "a process that decodes pictures was killed, perhaps because memory ran out: "
            "lower --encode-batch, or give the machine more memory (containers: --shm-size)"
        ) from e


def _yielding(worker: int) -> None:
    """Other programs, and the model's own threads, come first."""
    os.nice(5)
