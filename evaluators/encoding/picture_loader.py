"""Decodes, resizes and crops pictures ahead of the model, by threads or by one process per core.

Processes return bytes, which take a quarter of the memory of floats and are normalised on the model's device.
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
from promptsearch.evaluators.encoding.device import available_cores

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

#: Number of pictures that a process prepares at a time, small enough that the first ones are ready soon.
CHUNK = 64

#: Processes are only started for at least this many pictures, because starting them takes tenths of a second.
MANY = 512

#: Number of chunks that each process may be ahead of the model.
AHEAD = 2


class Preprocessing:
    """open_clip's transform of a picture, split into two steps; the result has the same bits.

        halves = Preprocessing(preprocess)
        pixels = halves.pixels(picture)                                # (H, W, 3) uint8
        halves.normalised(torch.from_numpy(pixels)[None])              # (1, 3, H, W) float32, as preprocess(picture)

    If the transform does not end like open_clip's, `pixels` applies all of it, and `normalised` does nothing.

    Args:
        transform: The transform.
        quick: Whether to resize with torch, which takes a quarter of the time if the CPU has AVX2. Its weights have
            16 bits instead of 22, so that some values differ from Pillow's by 1 or 2 of 255.
    """

    def __init__(self, transform: Any, quick: bool = False) -> None:
        from torchvision.transforms import Compose, Normalize, ToTensor

        steps = list(transform.transforms) if type(transform) is Compose else [transform]
        last = steps[-2:]
        self.splits = len(last) == 2 and isinstance(last[0], ToTensor) and type(last[1]) is Normalize
        self._steps = steps[:-2] if self.splits else steps
        self._scale = (last[1].mean, last[1].std) if self.splits else None
        self._on: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # by device
        self.quick = quick and self.splits and _resizes_quickly(self._steps)

    def pixels(self, picture: Image | StoredPicture) -> NDArray[Any]:
        """Decode, resize and crop a picture to (H, W, 3) uint8; to (3, H, W) float32 if the transform is not split."""
        x: Any = picture.open() if isinstance(picture, StoredPicture) else picture
        if self.quick and x.mode == "RGB":
            return self._quick_pixels(x)
        for step in self._steps:
            x = step(x)
        return np.array(x)  # PIL's own memory is read-only

    def _quick_pixels(self, picture: Image) -> NDArray[Any]:
        import torch
        from torchvision.transforms import CenterCrop
        from torchvision.transforms.v2.functional import resize_image

        first = self._steps[0]
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, H, W), channels last in memory
        x = resize_image(x, first.size, first.interpolation, first.max_size, True)
        for step in self._steps[1:]:
            if isinstance(step, CenterCrop):
                x = step(x)
        return x.permute(1, 2, 0).numpy()

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise a batch of results of `pixels` to model inputs (N, 3, H, W), on the batch's device."""
        import torch

        if self._scale is None or x.dtype != torch.uint8:
            return x
        name = str(x.device)
        if name not in self._on:  # cached, because creating a tensor on a device waits for it
            mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device)[:, None, None] for v in self._scale)
            self._on[name] = mean, std
        mean, std = self._on[name]
        return x.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(mean).div_(std)


def _resizes_quickly(steps: Sequence[Any]) -> bool:
    """Whether these steps are open_clip's Resize, CenterCrop and conversion to RGB, and torch resizes fast here."""
    import torch
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    if not steps or type(steps[0]) is not Resize or "AVX" not in torch.backends.cpu.get_cpu_capability():
        return False
    others = {getattr(s, "__name__", type(s).__name__) for s in steps[1:] if type(s) is not CenterCrop}
    return steps[0].interpolation == InterpolationMode.BICUBIC and others <= {"MaybeConvertMode", "_convert_to_rgb"}


def by_threads(
    pictures: Iterable[Image | StoredPicture], halves: Preprocessing, size: int, threads: int
) -> Iterator[torch.Tensor]:
    """Yield batches (B, H, W, 3) of pictures, prepared up to two batches ahead by threads.

    Args:
        pictures: The pictures.
        halves: The transform.
        size: Number of pictures in a batch.
        threads: Number of threads.
    """
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
    """Return how many processes should prepare pictures; 0 if threads are as fast.

    Args:
        count: Number of pictures.
        chunk: Number of pictures that a process prepares at a time.
        pixels: Size of one prepared picture in bytes.
    """
    # Forking is fast and needs no `if __name__ == "__main__"` in the user's script, but does not work on macOS.
    if count < MANY or not sys.platform.startswith("linux"):
        return 0
    workers = min(available_cores(), count // (2 * chunk))
    if workers < 2:
        return 0
    try:  # processes return pictures in shared memory, which is limited to 64 MB in containers by default
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0
    return workers if free > 2 * workers * AHEAD * chunk * pixels else 0


class _Chunks:
    """A data set for torch's DataLoader whose items are chunks of pictures."""

    def __init__(self, blocks: Sequence[Sequence[StoredPicture]], halves: Preprocessing) -> None:
        self._blocks, self._halves = blocks, halves

    def __getitem__(self, at: tuple[int, slice]) -> torch.Tensor | PromptSearchError:
        import torch

        block, part = at
        try:
            pictures = self._blocks[block][part]
            return torch.from_numpy(np.stack([self._halves.pixels(p) for p in pictures]))
        except PromptSearchError as e:  # returned, because DataLoader would put the traceback into its message
            return e


def by_processes(
    blocks: Sequence[Sequence[StoredPicture]], halves: Preprocessing, chunk: int, workers: int, pinned: bool
) -> Iterator[torch.Tensor]:
    """Yield the chunks of each block in order, prepared ahead by processes.

    Args:
        blocks: Blocks of pictures.
        halves: The transform.
        chunk: Largest number of pictures in a chunk.
        workers: Number of processes.
        pinned: Whether chunks are in pinned memory, for a GPU.

    Yields:
        Chunks (n, H, W, 3).

    Raises:
        PromptSearchError: A picture cannot be decoded, or a process was killed.
    """
    import torch
    from torch.utils.data import DataLoader

    parts = [(n, slice(at, at + chunk)) for n, block in enumerate(blocks) for at in range(0, len(block), chunk)]
    loader: DataLoader[Any] = DataLoader(
        _Chunks(blocks, halves),  # type: ignore[arg-type]  # has the method that DataLoader needs
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        multiprocessing_context="fork",
        worker_init_fn=_yielding,
        generator=torch.Generator(),  # DataLoader draws a seed, which must not change the global generator
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
            "a process that decodes pictures was killed, perhaps because memory ran out; "
            "use a smaller --encode-batch, or more memory (in containers `--shm-size`)"
        ) from e


def _yielding(worker: int) -> None:
    """Lower a worker's priority below that of other programs and the model's threads."""
    os.nice(5)
