"""Local causal language models of transformers, which write lines and compute the likelihood of texts."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import default_cache_dir
from promptsearch.evaluators.data.hub import first_line
from promptsearch.lm import gguf_file
from promptsearch.lm.lines import LONGEST, Line, LineRules
from promptsearch.lm.locate import EMBEDDED, ModelPlace, check_drawing
from promptsearch.lm.reader import Reader, common_beginning

if TYPE_CHECKING:
    from promptsearch.lm.lines import LineWriter

#: Number of lines written at a time, and of logits computed at a time when texts are rated.
ROWS, RATED = 64, 1 << 26
#: Lines sampled per request. A single line is a new template in two thirds of cases, the best of four almost always.
CONTINUATIONS = 4
#: Models with fewer parameters do not write in bfloat16, which would save little time.
SMALL = 20_000_000
#: Number of words that are tried in each gap.
FILLINGS = 12
#: Token that separates documents in the training text of models with special tokens like GPT-2's.
SEPARATOR = "<|endoftext|>"


class LocalModel:
    r"""A local language model, loaded when first needed, which writes lines and rates texts in batches.

        model = LocalModel(locate("embedded"))
        print(model.write_lines(["Caption: a photo of a {}.\nShorter:"], seed=0)[0][0].text)
        print(model.log_likelihood(["a photo of a cat."]))

    Each line has its own random generator, made from the seed and the line's position; no global seed is set.

    Args:
        place: The model's files, from `locate`.
        temperature: Sampling temperature, above 0.
        top_p: Probability mass from which tokens are sampled, above 0 and at most 1.

    Attributes:
        continuations: Number of lines sampled for each request; the most likely new one is used.

    Raises:
        InputError: The temperature or top-p is out of range.
    """

    def __init__(self, place: ModelPlace, *, temperature: float = 1.0, top_p: float = 0.95) -> None:
        if not temperature > 0:
            raise InputError(f"--temperature {temperature}: must be above 0, because answers are sampled")
        check_drawing(temperature, top_p)
        self.place, self.temperature, self.top_p = place, temperature, top_p
        self.continuations = CONTINUATIONS
        self._usage: Counter[str] = Counter()

    @property
    def usage(self) -> Counter[str]:
        """Number of calls, tokens read, tokens written and milliseconds so far."""
        return self._usage

    @property
    def fingerprint(self) -> str:
        """Hash of the model's files."""
        return self.place.fingerprint

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded model, which only understands prompts like those that it was trained on."""
        return self.place.name == EMBEDDED

    @functools.cached_property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    @functools.cached_property
    def context(self) -> int:
        """Largest number of tokens in a prompt and its answer together."""
        config = self._model.config
        known = (getattr(config, k, None) for k in ("max_position_embeddings", "n_positions", "seq_length"))
        return int(next((k for k in known if k), 1 << 20))

    def load(self) -> LocalModel:
        """Load the model now, in the calling thread, and return it.

        Raises:
            PromptSearchError: The model cannot be loaded.
        """
        _ = self._model, self._tokenizer
        return self

    def recall(self, key: str) -> Any:
        """Return a value that this or another process stored for this model, or None.

        Args:
            key: The key given to `remember`.
        """
        return self._remembered().get(key)

    def remember(self, key: str, value: Any) -> None:
        """Store a value for `recall` in the cache; nothing happens if the cache cannot be written.

        Args:
            key: The key.
            value: A JSON-serialisable value.
        """
        kept = {**self._remembered(), key: value}
        path = self._memory
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(kept), "utf-8")
            os.replace(temporary, path)

    def _remembered(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._memory.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    @property
    def _memory(self) -> Path:
        return default_cache_dir() / gguf_file.KIND / f"{self.fingerprint}.json"

    def fits(self, prompt: Any) -> bool:
        """Return whether a prompt and an answer fit into the context.

        Args:
            prompt: A text or a conversation (a list of messages).
        """
        return len(self._ids(prompt)) + LONGEST <= self.context

    def share(self, prompts: Sequence[Any]) -> None:
        """Keep the model's state after the common prefix of some prompts, for all later prompts that begin with it.

        Args:
            prompts: Texts or conversations (lists of messages).
        """
        self._writer.reader.hold(common_beginning([self._ids(p) for p in prompts]))

    def write_lines(
        self, prompts: Sequence[Any], seed: int, *, names: Sequence[str] = (), rules: LineRules | None = None
    ) -> list[list[Line]]:
        """Write lines that continue each text, or reply to each conversation.

        The common prefix of the prompts is read once; the one given to `share` is kept for the next call.

        Args:
            prompts: Texts or conversations (lists of messages).
            seed: Seed of the sampling.
            names: Words that no line may contain.
            rules: Further rules for the lines; by default those of a template.

        Returns:
            The lines for each prompt, most likely first.

        Raises:
            InputError: A prompt is too long for the model's context.
            PromptSearchError: The model cannot be loaded, or the GPU ran out of memory.
        """
        rules = replace(rules or LineRules(continuations=self.continuations), names=tuple(names))
        lines: list[list[Line]] = []
        many = max(1, ROWS // rules.continuations)
        for at in range(0, len(prompts), many):
            some = replace(rules, barred=rules.barred[at : at + many])
            lines += self._write(prompts[at : at + many], [seed, at], some)
        return lines

    def write_phrases(
        self, prompts: Sequence[str], seed: int, *, words: int, names: Sequence[Sequence[str]], continuations: int
    ) -> list[list[Line]]:
        """Write lines without a `{}` that continue each text.

        Args:
            prompts: Texts to continue.
            seed: Seed of the sampling.
            words: Largest number of words in a line.
            names: For each prompt, words that its lines must not contain.
            continuations: Number of lines begun for each prompt; of several, the last one to end is dropped.

        Returns:
            The lines for each prompt, most likely first.

        Raises:
            InputError: A prompt is too long for the model's context.
            PromptSearchError: The model cannot be loaded, or the GPU ran out of memory.
        """
        barred = tuple(tuple(some) for some in names)
        rules = LineRules(place=False, words=words, least=1, continuations=continuations, barred=barred)
        return self.write_lines(prompts, seed, rules=rules)

    def fill(
        self, gaps: Sequence[tuple[str, str]], seed: int, *, context: str = "", names: Sequence[str] = ()
    ) -> list[list[Line]]:
        """Fill each gap between two texts with words that the model considers likely.

        Args:
            gaps: The texts before and after each gap.
            seed: Seed of the sampling.
            context: Lines that the model reads first, once.
            names: Words that no line may contain.

        Returns:
            The filled lines for each gap, most likely first.

        Raises:
            PromptSearchError: The model cannot be loaded, or the GPU ran out of memory.
        """
        head = self._ids(f"{context}\n" if context else "\n")
        rules = LineRules(names=tuple(names), continuations=FILLINGS)

        def ids(text: str) -> list[int]:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

        return self._counted(lambda: self._writer.fill(head, gaps, ids, [seed], rules, self.top_p))

    def _write(self, prompts: Sequence[Any], seed: Sequence[int], rules: LineRules) -> list[list[Line]]:
        rows = [self._ids(p) for p in prompts]
        longest = max(map(len, rows))
        if longest + LONGEST > self.context:
            raise InputError(
                f"a prompt of {longest} tokens and an answer of {LONGEST} do not fit into the context of "
                f"{self.context} of the language model {self.place.name}; name one with a longer context"
            )
        return self._counted(lambda: self._writer.write(rows, seed, rules, self.temperature, self.top_p))

    def _counted(self, write: Callable[[], list[list[Line]]]) -> list[list[Line]]:
        """Return the lines of `write`, and add its tokens and time to the usage."""
        import torch

        with self._loaded.lock:
            writer = self._writer
            started, before, writer.written = time.monotonic(), writer.reader.read, 0
            try:
                lines = write()
            except torch.cuda.OutOfMemoryError as e:
                raise PromptSearchError(
                    f"the GPU ran out of memory while {self.place.name} wrote; name a smaller --lm, "
                    "or fewer --offspring"
                ) from e
            cost = {
                "calls": 1,
                "tokens read": writer.reader.read - before - writer.written,
                "tokens written": writer.written,
                "milliseconds": round(1000 * (time.monotonic() - started)),
            }
            self._usage.update(cost)
        return lines

    def log_likelihood(self, texts: Sequence[str]) -> np.ndarray:
        """Return the log-likelihood of each text.

        For a text's tokens x_1, ..., x_L: sum_t log p(x_t | x_1, ..., x_{t-1}).

        Args:
            texts: The n texts.

        Returns:
            (n, 2): log-likelihood in nats of each text, and the number of tokens summed over.

        Raises:
            InputError: A text is longer than the model's context.
            PromptSearchError: The model cannot be loaded.
        """
        import torch

        rows = [self._start + list(self._tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.context:
                raise InputError(
                    f"the text {text[:60]!r} has {len(row)} tokens and the language model {self.place.name} "
                    f"reads {self.context}; shorten the template, or name another --fluency-lm"
                )
        order = sorted(range(len(texts)), key=lambda i: len(rows[i]))
        result = np.zeros((len(texts), 2))
        vocabulary = self._model.config.vocab_size
        while order:
            many = max(1, RATED // (vocabulary * max(2, len(rows[order[-1]]))))
            some, order = order[-many:], order[:-many]
            width = max(2, *(len(rows[i]) for i in some))
            # The padding follows the text, where causal attention does not see it, so no mask is needed.
            ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in some], device=self._device)  # (B, L)
            mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in some], device=self._device)
            with self._loaded.lock, torch.inference_mode():
                logits = self._model(input_ids=ids, use_cache=False).logits[:, :-1].float()  # (B, L - 1, V)
            own = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)  # (B, L - 1)
            own = own * mask[:, 1:]
            result[some, 0] = own.double().sum(1).cpu().numpy()
            result[some, 1] = mask[:, 1:].sum(1).cpu().numpy()
        return result

    def _ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return self._start + list(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = self._tokenizer.apply_chat_template(
            _without_system(prompt, self._tokenizer),
            add_generation_prompt=True,
            enable_thinking=False,  # an answer has no room for reasoning
        )
        return list(ids["input_ids"] if hasattr(ids, "keys") else ids)

    @functools.cached_property
    def _start(self) -> list[int]:
        """Return the tokens before each text: the separator of documents, the tokenizer's start token, or none."""
        tokenizer = self._tokenizer
        if self.chats and SEPARATOR in tokenizer.get_vocab():  # the first token of chat models begins a turn
            return [int(tokenizer.convert_tokens_to_ids(SEPARATOR))]
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [] if start is None else [start]

    @functools.cached_property
    def _pad(self) -> int:
        """Return the token that fills up shorter rows; it is masked, so any token will do."""
        tokenizer = self._tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Return the tokens that end an answer according to the model's configuration."""
        own = self._model.generation_config.eos_token_id
        return [] if own is None else [own] if isinstance(own, int) else list(own)

    @functools.cached_property
    def _writer(self) -> LineWriter:
        from promptsearch.lm.lines import LineWriter, Vocabulary

        vocabulary = Vocabulary.of(self._tokenizer, self._model.config.vocab_size, self._ends)
        return LineWriter(Reader(self._loaded.writing, self._pad), vocabulary)

    @property
    def _device(self) -> Any:
        return self._model.device

    @property
    def _tokenizer(self) -> Any:
        return self._loaded.tokenizer

    @property
    def _model(self) -> Any:
        return self._loaded.model

    @functools.cached_property
    def _loaded(self) -> _Loaded:
        with _LOADING:
            if (loaded := _LOADED.get(self.fingerprint)) is None:
                loaded = _LOADED[self.fingerprint] = _load(self.place)
            return loaded


class _Loaded:
    """A model and its tokenizer, shared within this process; a lock lets one thread use them at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.lock = threading.Lock()

    @functools.cached_property
    def writing(self) -> Any:
        """The model that writes lines, in bfloat16 if the CPU supports it, which takes two thirds of the time.

        Texts are rated in the model's own precision, so that ratings are the same on every CPU.
        """
        import torch

        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        on_cpu = self.model.device.type == "cpu"
        if not (on_cpu and supported is not None and supported()) or self.model.num_parameters() < SMALL:
            return self.model
        return copy.deepcopy(self.model).bfloat16()


_LOADED: weakref.WeakValueDictionary[str, _Loaded] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def _load(place: ModelPlace) -> _Loaded:
    """Load a model in its stored precision on the GPU, or in full precision on the CPU."""
    import torch

    _hush()
    folder = place.folder
    if place.gguf is not None and not folder.is_dir():
        folder = gguf_file.convert(place.gguf, place.name, place.fingerprint)
    model, tokenizer = _from_folder(place.name, folder)
    model.eval()
    return _Loaded(model.to("cuda") if torch.cuda.is_available() else model.float(), tokenizer)


def _from_folder(name: str, folder: Path) -> tuple[Any, Any]:
    """Load a model in its stored precision, and its tokenizer, from a folder in the format of transformers.

    Raises:
        PromptSearchError: One of them cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as e:  # the type of the error depends on the damage
        raise PromptSearchError(
            f"--lm {name}: its tokenizer cannot be loaded ({first_line(e)[:200]}); fetch it again"
        ) from e
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    except Exception as e:
        raise PromptSearchError(
            f"--lm {name}: cannot be loaded ({first_line(e)[:200]}); fetch it again, or name another"
        ) from e
    return model, tokenizer


def _without_system(messages: list[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """Move the system message into the user's, if the chat template does not support a system role."""
    template = tokenizer.chat_template
    if isinstance(template, str) and "system" in template and "raise_exception" not in template:
        return messages
    if len(messages) == 2 and messages[0]["role"] == "system":
        return [{"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}]
    return messages


def _hush() -> None:
    """Silence the progress bars and warnings of transformers about ordinary events."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
