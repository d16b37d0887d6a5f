"""Encodes on the workers of a Ray cluster, each with its own copy of the model; results are the same bit by bit."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.cache import Cache, default_cache
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding.encoder import Encoder, Progress, no_progress, text_parts
from promptsearch.evaluators.encoding.model_spec import ModelSpec, resolve_model
from promptsearch.evaluators.encoding.picture_encoder import BATCH
from promptsearch.evaluators.encoding.ray_cluster import Cluster, Crew, Job, one_process_threads
from promptsearch.evaluators.encoding.transformers_model import SOURCE
from promptsearch.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

#: Number of batches of pictures in a job.
PIECE = {"cpu": 2, "cuda": 4}

#: Fewer texts than this are encoded by a single worker.
SHARE = 64

log = logging.getLogger(__name__)


class EncodingWorker:
    """A Ray worker that opens a model, and encodes pictures and texts.

    worker = EncodingWorker(("zeroshot", None), spec.fingerprint, "cpu", "fp32", None, 1, __version__)
    worker.pictures(some_pictures)  # (n, D)
    """

    def __init__(
        self,
        asked: tuple[str, Path | None],
        fingerprint: str,
        device: str,
        precision: str,
        batch: int | None,
        threads: int,
        version: str,
    ) -> None:
        self._asked, self._fingerprint = asked, fingerprint
        self._device, self._precision, self._batch = device, precision, batch
        self._threads, self._version = threads, version
        self._opened: Encoder | None = None

    def ready(self) -> dict[str, Any]:
        """Open the model.

        Returns:
            The worker's machine and versions.

        Raises:
            InputError: The model does not exist on the worker's machine.
            PromptSearchError: The model cannot be loaded, or differs from the model on the command's machine.
        """
        import platform

        self._encoder.model  # noqa: B018 (opened once, here)
        return {"host": platform.node(), "pid": os.getpid()}

    def info(self) -> dict[str, Any]:
        """Return `Encoder.info`, measured on the model."""
        return self._encoder.measure()

    def pictures(self, pictures: list[Image | StoredPicture]) -> np.ndarray:
        """Encode pictures to unit vectors (n, D)."""
        return self._encoder.encode_pictures(pictures)

    def texts(self, texts: list[str], share: int, shares: int) -> tuple[np.ndarray, np.ndarray]:
        """Encode every `shares`-th chunk of distinct texts; return positions (m,) and unit vectors (m, D)."""
        encoder = self._encoder
        encoder.refuse_too_long(texts)
        if shares == 1:
            return np.arange(len(texts)), encoder.text_encoder.encode(texts)
        chunks = encoder.text_encoder.chunks(texts)[share::shares]
        vectors = [encoder.text_encoder.encode([texts[i] for i in chunk]) for chunk in chunks]
        none = np.zeros(0, np.int64), np.zeros((0, encoder.info["embed_dim"]), np.float32)
        return (np.concatenate(chunks), np.concatenate(vectors)) if chunks else none

    @property
    def _encoder(self) -> Encoder:
        if self._opened is None:
            import platform

            import torch

            here = platform.node()
            if self._version != __version__:
                raise PromptSearchError(
                    f"the worker on {here} has promptsearch {__version__}, but this machine has {self._version}; "
                    "install the same version on all machines"
                )
            torch.set_num_threads(self._threads)
            cache = default_cache()
            name, weights = self._asked
            spec = resolve_model(name, cache, weights=weights, device=self._device, precision=self._precision)
            if spec.fingerprint != self._fingerprint:
                raise PromptSearchError(
                    f"--model {name} is a different model on {here}: its fingerprint there is {spec.fingerprint}, here "
                    f"{self._fingerprint}; give all machines the same weights"
                )
            self._opened = Encoder(spec, cache, batch=self._batch)
        return self._opened


class RemoteEncoder(Encoder):
    """An Encoder that works on a Ray cluster; results are cached as soon as they arrive.

        cluster = Cluster("local")
        encoder = RemoteEncoder(resolve_model("zeroshot", cache), cache, cluster)
        encoder.encode_texts(["a photo of a cat."])  # the bits that Encoder gives
        encoder.close()

    Jobs consist of the same batches that `Encoder` makes, and workers use as many threads as this process would, so
    that the vectors have the same bits.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cache: Cache,
        cluster: Cluster,
        progress: Progress = no_progress,
        batch: int | None = None,
    ) -> None:
        super().__init__(spec, cache, progress, batch)
        self._cluster = cluster

    @property
    def crew(self) -> Crew:
        """Return the workers, which are started when they are first needed."""
        self.progress(0, 0, "starting Ray workers")
        spec, threads = self.spec, one_process_threads()
        args = (asked(spec), spec.fingerprint, spec.device, spec.precision, self.batch, threads, __version__)
        return self._cluster.crew(EncodingWorker, spec.device, threads, *args)

    def encode_pictures(self, pictures: Iterable[Image | StoredPicture]) -> np.ndarray:
        """Encode RGB pictures to unit vectors (n, D), float32."""
        return next(self.encode_blocks([pictures]))[1]

    def encode_blocks(
        self, blocks: Iterable[Iterable[Image | StoredPicture]], told: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Encode blocks of pictures, and yield (number of the block, vectors) as blocks finish, in any order."""
        left: dict[int, int] = {}  # number of unfinished jobs of each block
        found: dict[int, dict[int, np.ndarray]] = {}
        empty = []

        def jobs() -> Iterator[Job[tuple[int, int]]]:
            batch = self.batch or BATCH[self.spec.device]
            size = PIECE[self.spec.device] * batch  # whole batches, as one process would make them
            for n, block in enumerate(blocks):
                pictures = [p.packed() if isinstance(p, StoredPicture) else p for p in block]
                starts = range(0, len(pictures), size)
                left[n], found[n] = len(starts), {}
                if not pictures:
                    empty.append(n)
                for at in starts:
                    yield (n, at), "pictures", (pictures[at : at + size],)

        work, done = jobs(), 0
        first = list(itertools.islice(work, 1))  # without a job, as when the cache has them all, no worker is started
        for (n, at), vectors in self.crew.run(itertools.chain(first, work)) if first else ():
            found[n][at] = vectors
            told(done := done + len(vectors))
            left[n] -= 1
            if not left[n]:
                parts = found.pop(n)
                yield n, np.concatenate([parts[at] for at in sorted(parts)])
        for n in empty:
            yield n, np.zeros((0, self.info["embed_dim"]), np.float32)

    def close(self) -> None:
        """Merge small blocks of the cache, and leave the cluster."""
        super().close()
        self._cluster.stop()

    def measure(self) -> dict[str, Any]:
        """Measure `info` on a worker's model."""
        return {**self.crew.call("info"), "name": self.spec.name}

    def _encode_new_texts(self, texts: Sequence[str]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        parts = text_parts(texts, self.spec.device)
        # If there are few parts, workers share each part by chunks; if there are many, a part is one job, tokenized
        # once.
        crew = self.crew
        shares = max(1, min(-(-2 * crew.size // len(parts)), len(texts) // SHARE))
        left = dict.fromkeys(range(len(parts)), shares)
        found: dict[int, np.ndarray] = {}
        pieces = itertools.product(enumerate(parts), range(shares))
        jobs = (((n, share), "texts", ([texts[i] for i in part], share, shares)) for (n, part), share in pieces)
        done = 0
        for (n, _), (rows, vectors) in crew.run(jobs):
            found.setdefault(n, np.empty((len(parts[n]), vectors.shape[1]), np.float32))[rows] = vectors
            left[n] -= 1
            done += len(rows)
            self.progress(done, len(texts), "encoding prompts")
            if not left[n]:
                yield parts[n], found.pop(n)

    def _load(self) -> None:
        import torch

        if self.spec.device == "cuda" and not torch.cuda.is_available():
            raise PromptSearchError(
                "this needs the model on this machine, not only on Ray's workers, and torch finds no GPU here; "
                "use --device cpu, or run it on a machine with a GPU"
            )
        super()._load()


def asked(spec: ModelSpec) -> tuple[str, Path | None]:
    """Return the arguments with which `resolve_model` finds the same model on another machine."""
    if spec.known_as is not None:
        return spec.known_as, None
    if ":" in spec.source:
        return spec.source.replace(SOURCE, "local-dir:", 1), None
    return (spec.source, spec.weights) if spec.tag is None else (f"{spec.source}:{spec.tag}", None)
