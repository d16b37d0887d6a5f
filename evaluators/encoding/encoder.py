"""Texts and pictures to unit vectors, by any model that open_clip can make; loaded when first needed."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache.store import Cache
from promptsearch.evaluators.cache.vector_cache import TextCache
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding.model_spec import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.evaluators.encoding.picture_encoder import PictureEncoder
    from promptsearch.evaluators.encoding.text_encoder import TextEncoder

#: Told how much of a long work is done: (done, total, what).
Progress = Callable[[int, int, str], None]

#: Text prefixes per forward pass, for each picture of `--encode-batch`.
PREFIXES = 64

#: Texts encoded between two writes to the cache: some seconds' work on a CPU, a third of one on a GPU.
PART = {"cpu": 2000, "cuda": 16384}

log = logging.getLogger(__name__)


def no_progress(done: int, total: int, what: str) -> None:
    """The Progress that says nothing."""


class TooLongError(InputError):
    """A text has more tokens than the model's text tower reads."""

    def __init__(self, text: str, tokens: int, limit: int) -> None:
        super().__init__(f"the prompt {text!r} has {tokens} tokens and the model reads {limit}; shorten its template")
        self.text, self.tokens, self.limit = text, tokens, limit

    def __reduce__(self) -> tuple[Any, ...]:  # it may come from another process
        return TooLongError, (self.text, self.tokens, self.limit)


def text_parts(texts: Sequence[str], device: str) -> list[Sequence[int]]:
    """Positions of the texts that are encoded, and kept, together.

    Sorted, so that texts which share a beginning fall into one call and its trie.
    """
    size = PART["cpu" if device == "cpu" else "cuda"]
    if len(texts) < size:
        return [range(len(texts))]
    order = np.argsort(np.array(texts, dtype=object), kind="stable").tolist()
    return [order[at : at + size] for at in range(0, len(texts), size)]


class Encoder:
    """Encodes texts and pictures with one model, texts through the cache.

        encoder = Encoder(resolve_model("tiny", cache), cache)
        encoder.encode_texts(["a photo of a cat."])       # (1, D) float32, unit length
        encoder.encode_pictures([Image.open("cat.png")])  # (1, D)

    Args:
        batch: pictures computed at a time, and 64 times as many text prefixes (default: by the device).

    Raises:
        PromptSearchError: the weights do not fit the architecture, are damaged, or are a pickle that runs code.
    """

    def __init__(
        self, spec: ModelSpec, cache: Cache, progress: Progress = no_progress, batch: int | None = None
    ) -> None:
        if batch is not None and batch < 1:
            raise InputError(f"--encode-batch {batch}: must be at least 1")
        self.spec = spec
        self.batch = batch
        self.progress = progress
        self._cache = cache
        self._texts = TextCache(cache, spec.text_key)
        self._excess = TextCache(cache, {"model": spec.fingerprint}, kind="lengths")
        self._model: Any = None
        self._preprocess: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @property
    def logit_scale(self) -> float:
        """The model's learnt inverse temperature, as a factor (100 for OpenAI's models)."""
        return float(self.info["logit_scale"])

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """logit_scale, embed_dim and context_length, remembered so that cached runs need no torch."""
        key = {"model": self.spec.fingerprint}
        if block := self._cache.get("models", key):
            return block.meta
        info = self.measure()
        self._cache.add("models", key, {}, info)
        return info

    def measure(self) -> dict[str, Any]:
        """What `info` remembers, asked of the model."""
        return {
            "name": self.spec.name,
            "logit_scale": float(self.model.logit_scale.exp()),
            "embed_dim": int(self.encode_texts(["a"]).shape[1]),
            "context_length": int(getattr(self.tokenizer, "context_length", 77)),
        }

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32 unit vectors, equal to open_clip's `encode_text` normalised; each text encoded once ever."""
        return self._texts.lookup_parts(texts, self._encode_new_texts)

    def fits(self, texts: Sequence[str]) -> bool:
        """Whether the model reads all of these texts whole; the tokenizer is asked once about each, ever."""
        unknown = [t for t, known in zip(texts, self._texts.holds(texts), strict=True) if not known]
        return not unknown or bool(self._excess.lookup(unknown, self._count_excess).max() <= 0)

    def _count_excess(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 1): by how many tokens each text is too long for the model, or 0."""
        excess = np.zeros((len(texts), 1), np.float32)
        for i, text in enumerate(texts):
            try:
                self.refuse_too_long([text])
            except TooLongError as e:
                excess[i] = e.tokens - e.limit
        return excess

    def _encode_new_texts(self, texts: Sequence[str]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Positions and vectors of parts of the texts, as they are done."""
        log.info("encoding %d texts that are not in the cache", len(texts))
        self.refuse_too_long(texts)
        done = 0
        for rows in text_parts(texts, self.spec.device):
            if len(texts) > len(rows):
                self.progress(done, len(texts), "encoding prompts")
            yield rows, self.text_encoder.encode([texts[i] for i in rows])
            done += len(rows)
        if done > PART["cpu"]:
            self.progress(done, done, "encoding prompts")

    @functools.cached_property
    def text_encoder(self) -> TextEncoder:
        """The prefix-sharing encoder of the model's text tower."""
        from promptsearch.evaluators.encoding.text_encoder import TextEncoder

        nodes = None if self.batch is None else PREFIXES * self.batch
        return TextEncoder(self.model, self.tokenizer, nodes=nodes)

    def refuse_too_long(self, texts: Sequence[str]) -> None:
        """A tokenizer cuts a long text without a word; what is cut off could be the class name."""
        if not texts:
            return
        encode, limit = getattr(self.tokenizer, "encode", None), getattr(self.tokenizer, "context_length", None)
        if encode is None or limit is None:
            return
        for text in texts:
            # No token is shorter than a character: only long texts need to be counted.
            if len(text) + 2 > limit and (tokens := len(encode(text)) + 2) > limit:
                raise TooLongError(text, tokens, limit)

    def encode_blocks(
        self, blocks: Iterable[Iterable[Image | StoredPicture]], told: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number and vectors of each block of pictures as it is done, not always in order: what is worth keeping.

        Args:
            told: how many pictures are done.
        """
        known = list(blocks)
        return self.picture_encoder.encode_blocks(known, told) if known else iter(())  # without pictures, no model

    def encode_pictures(self, pictures: Iterable[Image | StoredPicture]) -> np.ndarray:
        """(n, D) float32 unit vectors of a stream of RGB pictures; decoding and preprocessing overlap the model.

        Raises:
            PromptSearchError: the model gives infinities or NaN, with the picture's place; or memory ran out.
        """
        return self.picture_encoder.encode(pictures)

    @functools.cached_property
    def picture_encoder(self) -> PictureEncoder:
        """The encoder of the model's picture tower."""
        from promptsearch.evaluators.encoding.picture_encoder import PictureEncoder

        spec = self.spec
        return PictureEncoder(self.model, self.preprocess, spec.device, precision=spec.precision, batch=self.batch)

    @property
    def model(self) -> Any:
        """The open_clip model, in eval mode, on its device."""
        if self._model is None:
            self._load()
        return self._model

    @property
    def preprocess(self) -> Any:
        """open_clip's transform of one PIL picture to (3, H, W)."""
        if self._model is None:
            self._load()
        return self._preprocess

    @functools.cached_property
    def tokenizer(self) -> Any:
        import open_clip

        with _quiet():
            return open_clip.get_tokenizer(self.spec.source)

    def close(self) -> None:
        """Write what is not yet in the cache."""
        self._texts.compact()
        self._excess.compact()

    def _load(self) -> None:
        import torch

        # Whoever asks first may be in inference mode; gradient baselines need ordinary tensors all the same.
        with torch.inference_mode(False):
            self._load_ordinary()

    def _load_ordinary(self) -> None:
        import torch

        spec = self.spec
        log.info("loading the model %s%s", spec.name, "" if spec.weights is None else f" from {spec.weights}")
        try:
            with _quiet():
                model, preprocess = _create(spec)
        except (InputError, PromptSearchError):
            raise
        except Exception as e:  # torch, safetensors and pickle raise many kinds: all say that the weights are bad
            raise PromptSearchError(_why_unloadable(spec, e)) from e
        model.eval().requires_grad_(False).to(spec.device)
        model.visual.to(memory_format=torch.channels_last)
        self._model, self._preprocess = model, preprocess


def _create(spec: ModelSpec) -> tuple[Any, Any]:
    import open_clip
    import torch

    if spec.tag == "random":
        with torch.random.fork_rng(devices=[]):  # open_clip's initialisation draws from the global generator
            torch.manual_seed(0)
            model, _, preprocess = open_clip.create_model_and_transforms(spec.source, pretrained=None)
        return model, preprocess
    if spec.tag is None and ":" in spec.source:
        model, _, preprocess = open_clip.create_model_and_transforms(spec.source, require_pretrained=True)
        return model, preprocess
    if spec.tag is None:
        if spec.source not in open_clip.list_models():
            raise InputError(f"--model {spec.name}: open_clip has no such architecture")
        model, _, preprocess = open_clip.create_model_and_transforms(spec.source, pretrained=str(spec.weights))
        return model, preprocess
    quick_gelu = bool(open_clip.get_pretrained_cfg(spec.source, spec.tag).get("quick_gelu", False))
    model, _, preprocess = open_clip.create_model_and_transforms(
        spec.source, pretrained=spec.tag, force_quick_gelu=quick_gelu
    )
    return model, preprocess


def _why_unloadable(spec: ModelSpec, error: Exception) -> str:
    """One line about weights that would not load, with the remedy."""
    text = str(error)
    where = f"weights {spec.weights}"
    if "Weights only load failed" in text or "UnpicklingError" in type(error).__name__:
        return (
            f"{where}: refused, not a plain state dict: it is damaged or a pickle that would run code; "
            "convert it to safetensors on a machine that trusts it"
        )
    if "size mismatch" in text:
        first = text[text.index("size mismatch") :].splitlines()[0].strip()
        return f"{where} do not fit {spec.source}: {first}; name the architecture they belong to with --model"
    if "Missing key" in text or "Unexpected key" in text:
        lines = [line.strip() for line in text.splitlines() if "key(s)" in line]
        return f"{where} do not fit {spec.source}: {lines[0][:200]}; name the architecture with --model"
    return f"{where} cannot be loaded ({(text.splitlines() or [type(error).__name__])[0][:200]}); fetch the file again"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs and warns on the root logger about what is ordinary here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
