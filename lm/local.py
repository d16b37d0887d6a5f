"""A causal language model of the transformers library: it writes, and says how likely a text is."""

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
from promptsearch.lm.reader import common_beginning

if TYPE_CHECKING:
    from promptsearch.lm.lines import LineWriter

#: Lines written at a time; logits computed at a time where texts are rated.
ROWS, RATED = 64, 1 << 26
#: Lines drawn for each request: of one line two thirds are new templates, of the best of four all but a few.
CONTINUATIONS = 4
#: Models of fewer parameters write in the precision that they are stored in: there is little to gain.
SMALL = 20_000_000
#: Words that are tried in each gap.
FILLINGS = 12
#: What separates documents in the training text of models whose tokenizer has GPT-2's kind of special tokens.
SEPARATOR = "<|endoftext|>"


class LocalModel:
    r"""Loads a folder or a GGUF file when first needed; writes lines by sampling, seeded, a batch at a time.

        model = LocalModel(locate("embedded"))
        print(model.write_lines(["Caption: a photo of a {}.\nShorter:"], seed=0)[0][0].text)
        print(model.log_likelihood(["a photo of a cat."]))

    Every line has a generator of its own, made from the seed and its place: nothing global is seeded.

    Attributes:
        chats: whether the tokenizer has a chat template.
        continuations: lines drawn for each request, of which the likeliest that is new is taken.
        usage: calls, tokens read and written, and the seconds that took, so far.

    Raises:
        InputError: a temperature or a top-p that is none.
        PromptSearchError: the model cannot be loaded.
    """

    def __init__(self, place: ModelPlace, *, temperature: float = 1.0, top_p: float = 0.95) -> None:
        if not temperature > 0:
            raise InputError(f"--temperature {temperature}: must be above 0; answers are drawn")
        check_drawing(temperature, top_p)
        self.place, self.temperature, self.top_p = place, temperature, top_p
        self.continuations = CONTINUATIONS
        self._usage: Counter[str] = Counter()

    @property
    def usage(self) -> Counter[str]:
        """Calls, tokens read and written, and milliseconds, so far."""
        return self._usage

    @property
    def fingerprint(self) -> str:
        """A hash of the model's files."""
        return self.place.fingerprint

    @property
    def embedded(self) -> bool:
        """Whether it is the model that is shipped, which knows the examples it was trained on and no others."""
        return self.place.name == EMBEDDED

    @functools.cached_property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    @functools.cached_property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        config = self._model.config
        known = (getattr(config, k, None) for k in ("max_position_embeddings", "n_positions", "seq_length"))
        return int(next((k for k in known if k), 1 << 20))

    def load(self) -> LocalModel:
        """Load it now, in this thread."""
        _ = self._model, self._tokenizer
        return self

    def recall(self, key: str) -> Any:
        """What was remembered of this model under a key, by whichever process; None where nothing was."""
        return self._remembered().get(key)

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value for `recall`; where the cache cannot be written it is measured again next time."""
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
        """Whether a prompt and an answer fit into the context."""
        return len(self._ids(prompt)) + LONGEST <= self.context

    def share(self, prompts: Sequence[Any]) -> None:
        """Keep what these prompts begin with alike, once it is read, for all prompts that begin so."""
        self._writer.reader.hold(common_beginning([self._ids(p) for p in prompts]))

    def write_lines(
        self, prompts: Sequence[Any], seed: int, *, names: Sequence[str] = (), rules: LineRules | None = None
    ) -> list[list[Line]]:
        """Lines that go on with each prompt, or reply to each conversation, the likeliest first.

        What the prompts begin with alike is read once; what `share` was told of is kept for the next call.

        Args:
            prompts: texts or conversations (lists of messages).
            seed: what the draws depend on.
            names: words that no line may hold.
            rules: what else a line must be; a template, unless they say otherwise.

        Raises:
            InputError: a prompt that is too long for the model's context.
            PromptSearchError: the device ran out of memory.
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
        """Lines without a `{}` of at most so many words, the likeliest first.

        Args:
            prompts: texts that the lines go on with.
            seed: what the draws depend on.
            words: the most words of a line.
            names: for each prompt, words that its lines may not hold.
            continuations: lines that are drawn for each prompt.
        """
        barred = tuple(tuple(some) for some in names)
        rules = LineRules(place=False, words=words, least=1, continuations=continuations, barred=barred)
        return self.write_lines(prompts, seed, rules=rules)

    def fill(
        self, gaps: Sequence[tuple[str, str]], seed: int, *, context: str = "", names: Sequence[str] = ()
    ) -> list[list[Line]]:
        """For each gap between two texts, the texts joined by a word that the model holds likely, the likeliest first.

        Args:
            gaps: what stands before and behind each gap.
            seed: what the draws depend on.
            context: lines that the text is read behind; they are read once.
            names: words that no line may hold.
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
        """Call the model, and count what that cost."""
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
        """(n, 2): the natural log-likelihood of each text, and how many tokens that is the sum over."""
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
            # Padding stands behind the text: causal attention never sees it, and no mask is needed.
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
            enable_thinking=False,  # of models that may think aloud: an answer has no room for it
        )
        return list(ids["input_ids"] if hasattr(ids, "keys") else ids)

    @functools.cached_property
    def _start(self) -> list[int]:
        """What texts begin with: the token between documents, or the tokenizer's own first one, where it has one."""
        tokenizer = self._tokenizer
        if self.chats and SEPARATOR in tokenizer.get_vocab():  # the first token of these begins a turn
            return [int(tokenizer.convert_tokens_to_ids(SEPARATOR))]
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [] if start is None else [start]

    @functools.cached_property
    def _pad(self) -> int:
        """What fills rows up; it is masked, so a model without a pad token takes its end token, or any."""
        tokenizer = self._tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Tokens that end an answer, by the model's own account."""
        own = self._model.generation_config.eos_token_id
        return [] if own is None else [own] if isinstance(own, int) else list(own)

    @functools.cached_property
    def _writer(self) -> LineWriter:
        from promptsearch.lm.lines import LineWriter, Vocabulary
        from promptsearch.lm.reader import Reader

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
    """A model and its tokenizer, for all in this process who write or rate by it; one at a time uses it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.lock = threading.Lock()

    @functools.cached_property
    def writing(self) -> Any:
        """The model that draws lines, in bfloat16 on a processor that computes in it: two thirds of the time.

        Ratings stay in the model's own precision, so they are the same on every processor.
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
    """Load a model onto the GPU as it is stored, or in full precision for the CPU."""
    import torch

    _hush()
    folder = place.folder
    if place.gguf is not None and not folder.is_dir():
        folder = gguf_file.convert(place.gguf, place.name, place.fingerprint)
    model, tokenizer = _from_folder(place.name, folder)
    model.eval()
    return _Loaded(model.to("cuda") if torch.cuda.is_available() else model.float(), tokenizer)


def _from_folder(name: str, folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer that transformers saved, the model as it is stored.

    Raises:
        PromptSearchError: one of them cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as e:  # every kind of damage has an error of its own
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
    """Templates that know no system role get its text in front of the user's."""
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
