"""Encodes texts and pictures to unit vectors with an open_clip model, which is loaded when it is first needed."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import Cache, TextCache
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding.given_model import GIVEN, check_triple, fingerprint_of
from promptsearch.evaluators.encoding.model_spec import ModelSpec
from promptsearch.evaluators.encoding.tokenizers import count_tokens, load_tokenizer, refuse_special_tokens
from promptsearch.evaluators.encoding.transformers_model import SOURCE, load_model, read_folder
from promptsearch.evaluators.encoding.weights_file import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.evaluators.encoding.picture_encoder import PictureEncoder
    from promptsearch.evaluators.encoding.text_encoder import TextEncoder

#: Called during long work with (done, total, description).
Progress = Callable[[int, int, str], None]

#: Number of text prefixes in a forward pass, per picture of the batch size.
PREFIXES = 64

#: Number of texts encoded between two writes to the cache: seconds of work on a CPU, a third of a second on a GPU.
PART = {"cpu": 2000, "cuda": 16384}

log = logging.getLogger(__name__)


def no_progress(done: int, total: int, what: str) -> None:
    """Report no progress."""


class TooLongError(InputError):
    """A text has more tokens than the model's context length."""

    def __init__(self, text: str, tokens: int, limit: int) -> None:
        super().__init__(f"the prompt {text!r} has {tokens} tokens and the model reads {limit}; shorten its template")
        self.text, self.tokens, self.limit = text, tokens, limit

    def __reduce__(self) -> tuple[Any, ...]:  # lets the error be pickled, because it may come from another process
        return TooLongError, (self.text, self.tokens, self.limit)


def text_parts(texts: Sequence[str], device: str) -> list[Sequence[int]]:
    """Split texts into parts that are encoded and cached together, sorted so that common prefixes are in one part.

    Args:
        texts: The texts.
        device: "cpu" or "cuda".

    Returns:
        The positions of the texts of each part.
    """
    size = PART["cpu" if device == "cpu" else "cuda"]
    if len(texts) < size:
        return [range(len(texts))]
    order = np.argsort(np.array(texts, dtype=object), kind="stable").tolist()
    return [order[at : at + size] for at in range(0, len(texts), size)]


class Encoder:
    """Encodes texts and pictures with one model; text vectors are cached.

        encoder = Encoder(resolve_model("zeroshot", cache), cache)
        encoder.encode_texts(["a photo of a cat."])       # (1, D) float32, unit length
        encoder.encode_pictures([Image.open("cat.png")])  # (1, D)

    Args:
        spec: The model.
        cache: The cache of vectors.
        progress: Called during long work.
        batch: Number of pictures in a forward pass, and 64 times as many text prefixes; by default it depends on the
            device.

    Raises:
        InputError: `batch` is below 1.
        PromptSearchError: The weights do not fit the architecture, are damaged, or are a pickle that runs code.
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
        self._excess = TextCache(cache, {"model": spec.fingerprint, "counted": "exactly"}, kind="lengths")
        self._model: Any = None
        self._preprocess: Any = None

    @classmethod
    def of_model(
        cls, model: Any, preprocess: Any, tokenizer: Any, cache: Cache, progress: Progress = no_progress
    ) -> Encoder:
        """Return the encoder of a model that is loaded already.

        Args:
            model: An open_clip model.
            preprocess: Its transform of one PIL picture to (3, H, W).
            tokenizer: Its tokenizer, as `open_clip.get_tokenizer` gives it.
            cache: Where text vectors are cached, under a digest of the triple.
            progress: Called during long work.

        Raises:
            InputError: The three are something else.
        """
        check_triple(model, preprocess, tokenizer)
        device = next(model.parameters()).device.type
        fingerprint = fingerprint_of(model, preprocess, tokenizer)
        spec = ModelSpec(f"{type(model).__name__}{GIVEN}", "given", None, None, fingerprint, device, "fp32")
        encoder = cls(spec, cache, progress)
        encoder._model = copy.deepcopy(model).eval() if model.training else model
        encoder._preprocess, encoder.tokenizer = preprocess, tokenizer
        return encoder

    @property
    def loaded(self) -> bool:
        """Whether the model was loaded."""
        return self._model is not None

    @property
    def logit_scale(self) -> float:
        """The model's learnt inverse temperature, as a factor (100 for OpenAI's models)."""
        return float(self.info["logit_scale"])

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """Name, logit scale, embedding size and context length; they are cached, so that cached runs need no torch."""
        key = {"model": self.spec.fingerprint}
        if block := self._cache.get("models", key):
            return block.meta
        info = self.measure()
        self._cache.add("models", key, {}, info)
        return info

    def measure(self) -> dict[str, Any]:
        """Measure `info` on the model."""
        return {
            "name": self.spec.name,
            "logit_scale": float(self.model.logit_scale.detach().exp()),
            "embed_dim": int(self.encode_texts(["a"]).shape[1]),
            "context_length": int(getattr(self.tokenizer, "context_length", 77)),
        }

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts to unit vectors (n, D), float32, equal to open_clip's normalised `encode_text`, with caching."""
        return self._texts.lookup_parts(texts, self._encode_new_texts)

    def has_cached(self, texts: Sequence[str]) -> bool:
        """Return whether the vectors of all texts are cached, so that `encode_texts` needs no model."""
        return all(self._texts.holds(texts))

    def fits(self, texts: Sequence[str]) -> bool:
        """Return whether all texts fit into the model's context length; the answers are cached."""
        unknown = [t for t, known in zip(texts, self._texts.holds(texts), strict=True) if not known]
        return not unknown or bool(self._excess.lookup(unknown, self._count_excess).max() <= 0)

    def _count_excess(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens by which each text is too long (n, 1), or 0."""
        excess = np.zeros((len(texts), 1), np.float32)
        for i, text in enumerate(texts):
            try:
                self.refuse_too_long([text])
            except TooLongError as e:
                excess[i] = e.tokens - e.limit
            except InputError:  # a special token ends the text
                excess[i] = 1
        return excess

    def _encode_new_texts(self, texts: Sequence[str]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Encode texts in parts, and yield (positions, vectors) of each part."""
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
        """Check that every text is read whole; tokenizers truncate silently, which could cut off the class name.

        Raises:
            TooLongError: A text is too long.
            InputError: A text contains a special token of the tokenizer, which ends it.
        """
        if not texts:
            return
        counting, limit = self._counting, getattr(self.tokenizer, "context_length", None)
        if limit is None:
            return
        # A token of open_clip's own tokenizer has at least one byte, so a short ASCII text cannot be too long; `&` may
        # begin an entity that becomes more bytes.
        short = limit - 2 if hasattr(counting, "encode") else -1
        some = [t for t in texts if len(t) > short or not t.isascii() or "&" in t]
        for text, tokens in zip(some, count_tokens(counting, some), strict=True):
            if tokens > limit:
                raise TooLongError(text, tokens, limit)
        refuse_special_tokens(counting, texts)

    def encode_blocks(
        self, blocks: Iterable[Iterable[Image | StoredPicture]], told: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Encode blocks of pictures.

        Args:
            blocks: The blocks.
            told: Called with the number of pictures done.

        Yields:
            (number of the block, vectors (n, D)) as blocks finish, not always in order.
        """
        known = list(blocks)
        # the model is not loaded if there are no pictures
        return self.picture_encoder.encode_blocks(known, told) if known else iter(())

    def encode_pictures(self, pictures: Iterable[Image | StoredPicture]) -> np.ndarray:
        """Encode RGB pictures, decoding and preprocessing some while the model computes others.

        Args:
            pictures: n pictures.

        Returns:
            (n, D) float32 unit vectors.

        Raises:
            PromptSearchError: A vector is not finite (the message names the picture), or memory ran out.
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
        """The open_clip model, in eval mode on its device."""
        if self._model is None:
            self._load()
        return self._model

    @property
    def preprocess(self) -> Any:
        """open_clip's transform from a PIL picture to (3, H, W)."""
        if self._model is None:
            self._load()
        return self._preprocess

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        with _quiet():
            return load_tokenizer(self.spec.source, self.spec.tokenizer)

    @functools.cached_property
    def _counting(self) -> Any:
        """The tokenizer, or an equivalent one that is faster."""
        from promptsearch.evaluators.encoding.tokenizers import remembering

        return remembering(self.tokenizer)

    def close(self) -> None:
        """Merge small blocks of the cache."""
        self._texts.compact()
        self._excess.compact()

    def _load(self) -> None:
        import torch

        # The first caller may be in inference mode, but gradient baselines need ordinary tensors.
        with torch.inference_mode(False):
            self._load_ordinary()

    def _load_ordinary(self) -> None:
        import torch

        spec = self.spec
        log.info("loading the model %s%s", spec.name, "" if spec.weights is None else f" from {spec.weights}")
        try:
            with _quiet(), _no_remote_code():
                model, preprocess = _create(spec)
        except (InputError, PromptSearchError):
            raise
        except Exception as e:  # torch, safetensors and pickle raise many types of errors for bad weights
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
    if spec.source.startswith(SOURCE):
        folder = Path(spec.source.removeprefix(SOURCE))
        return load_model(folder, read_folder(folder, spec.name)[1]["processor"])
    if spec.tag is None and ":" in spec.source:
        model, _, preprocess = open_clip.create_model_and_transforms(spec.source, require_pretrained=True)
        return model, preprocess
    if spec.tag is None:
        if spec.source not in open_clip.list_models():
            raise InputError(f"--model {spec.name}: open_clip has no such architecture")
        if spec.weights is not None and is_torchscript(spec.weights):
            return _from_torchscript(spec)
        model, _, preprocess = open_clip.create_model_and_transforms(spec.source, pretrained=str(spec.weights))
        return model, preprocess
    quick_gelu = bool(open_clip.get_pretrained_cfg(spec.source, spec.tag).get("quick_gelu", False))
    model, _, preprocess = open_clip.create_model_and_transforms(
        spec.source, pretrained=spec.tag, force_quick_gelu=quick_gelu
    )
    return model, preprocess


def _from_torchscript(spec: ModelSpec) -> tuple[Any, Any]:
    """Return the model and the preprocessing of a TorchScript archive of OpenAI, with its weights in float32."""
    import open_clip
    import torch

    assert spec.weights is not None
    arrays = read_torchscript(spec.weights)
    with torch.random.fork_rng(devices=[]):
        model, _, preprocess = open_clip.create_model_and_transforms(spec.source, pretrained=None)
    model.load_state_dict({name: torch.from_numpy(array).float() for name, array in arrays.items()})
    return model, preprocess


def _why_unloadable(spec: ModelSpec, error: Exception) -> str:
    """Return why weights cannot be loaded, with the remedy, in one line."""
    text = str(error)
    where = f"weights {spec.weights}"
    if "Weights only load failed" in text or "UnpicklingError" in type(error).__name__:
        return (
            f"{where}: refused, because it is not a plain state dict but damaged, or a pickle that would run code; "
            "convert it to safetensors on a machine that trusts it"
        )
    if "size mismatch" in text:
        first = text[text.index("size mismatch") :].splitlines()[0].strip()
        return f"{where} do not fit {spec.source}: {first}; name their architecture with --model"
    if "Missing key" in text and spec.weights is not None and is_torchscript(spec.weights):
        return (
            f"{where} are a TorchScript archive, read as OpenAI's are, whose tensors do not fit {spec.source}; name "
            "its architecture with --model, or make it a state dict where you trust it: "
            "torch.save(torch.jit.load(OLD).state_dict(), NEW)"
        )
    if "Missing key" in text or "Unexpected key" in text:
        lines = [line.strip() for line in text.splitlines() if "key(s)" in line]
        return f"{where} do not fit {spec.source}: {lines[0][:200]}; name the architecture with --model"
    return f"{where} cannot be loaded ({(text.splitlines() or [type(error).__name__])[0][:200]}); fetch the file again"


@contextlib.contextmanager
def _no_remote_code() -> Iterator[None]:
    """Have transformers refuse a text tower that needs code of its own, instead of asking at the terminal."""
    from transformers import dynamic_module_utils

    asked = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = asked


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's logs and warnings about ordinary events."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
