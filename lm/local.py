"""A causal language model of the transformers library: it writes, and says how likely a text is."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.hub import first_line
from promptsearch.lm.locate import ModelPlace, check_drawing

#: Tokens that an answer may have.
ANSWER = 48
#: Prompts written for at a time; texts rated at a time.
WRITTEN, RATED = 32, 128


class LocalModel:
    """Loads a folder when first needed; answers by sampling, seeded, a batch at a time.

        model = LocalModel(locate("embedded"))
        print(model.write(["Caption: a photo of a {}.\\nShorter:"], seed=0))
        print(model.log_likelihood(["a photo of a cat."]))

    Every answer has a generator of its own, made from the seed and its place: nothing global is seeded.

    Attributes:
        chats: whether the tokenizer has a chat template; without one, prompts are texts whose next line is wanted.
        usage: calls, tokens read and tokens written so far.

    Raises:
        InputError: a temperature or a top-p that is none.
        PromptSearchError: the folder cannot be loaded.
    """

    def __init__(self, place: ModelPlace, *, temperature: float = 1.0, top_p: float = 0.95) -> None:
        if not temperature > 0:
            raise InputError(f"--temperature {temperature}: must be above 0; answers are drawn")
        check_drawing(temperature, top_p)
        self.place, self.temperature, self.top_p = place, temperature, top_p
        self._usage: Counter[str] = Counter()

    @property
    def usage(self) -> Counter[str]:
        return self._usage

    @property
    def fingerprint(self) -> str:
        return self.place.fingerprint

    @functools.cached_property
    def chats(self) -> bool:
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

    def fits(self, prompt: Any) -> bool:
        return len(self._ids(prompt)) + ANSWER <= self.context

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """One answer per prompt: the rest of its last line, or the reply of a conversation.

        Raises:
            InputError: a prompt that is too long for the model's context.
            PromptSearchError: the device ran out of memory.
        """
        answers: list[str] = []
        for at in range(0, len(prompts), WRITTEN):
            answers += self._write(prompts[at : at + WRITTEN], [seed, at])
        return answers

    def log_likelihood(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 2): the natural log-likelihood of each text, and how many tokens that is the sum over."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        result = np.zeros((len(texts), 2))
        for at in range(0, len(order), RATED):
            some = order[at : at + RATED]
            rows = [self._start + self._tokenizer(texts[i], add_special_tokens=False)["input_ids"] for i in some]
            for i, row in zip(some, rows, strict=True):
                if len(row) > self.context:
                    raise InputError(
                        f"the text {texts[i][:60]!r} has {len(row)} tokens and the language model {self.place.name} "
                        f"reads {self.context}; shorten the template, or name another --fluency-lm"
                    )
            width = max(2, *(len(r) for r in rows))
            ids = torch.tensor([r + [0] * (width - len(r)) for r in rows], device=self._device)  # (B, L)
            mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=self._device)
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()  # (B, L - 1, V)
            own = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)  # (B, L - 1)
            own = own * mask[:, 1:]
            result[some, 0] = own.double().sum(1).cpu().numpy()
            result[some, 1] = mask[:, 1:].sum(1).cpu().numpy()
        return result

    def _write(self, prompts: Sequence[Any], seed: Sequence[int]) -> list[str]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        rows = [self._ids(p) for p in prompts]
        longest = max(map(len, rows))
        if longest + ANSWER > self.context:
            raise InputError(
                f"a prompt of {longest} tokens and an answer of {ANSWER} do not fit into the context of "
                f"{self.context} of the language model {self.place.name}; name one with a longer context"
            )
        pad = self._pad
        ids = torch.tensor([[pad] * (longest - len(r)) + r for r in rows], device=self._device)  # (B, L)
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=self._device)
        config = GenerationConfig(
            max_new_tokens=ANSWER,
            do_sample=False,  # the processor draws
            pad_token_id=pad,
            eos_token_id=self._ends or None,
        )
        draws = LogitsProcessorList([_Drawing(seed, self.temperature, self.top_p)])
        try:
            with torch.inference_mode():
                out = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=config,
                    logits_processor=draws,
                )[:, longest:]
        except torch.cuda.OutOfMemoryError as e:
            raise PromptSearchError(
                f"the GPU ran out of memory while {self.place.name} wrote {len(prompts)} answers; "
                "name a smaller --lm, or fewer --offspring"
            ) from e
        self._usage.update(
            {"calls": 1, "tokens read": sum(map(len, rows)), "tokens written": int((out != pad).sum().item())}
        )
        texts = self._tokenizer.batch_decode(out, skip_special_tokens=True)
        return texts if self.chats else [_first_line(t) for t in texts]

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
        """What texts begin with: the tokenizer's own first token, where it has one."""
        tokenizer = self._tokenizer
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [] if start is None else [start]

    @functools.cached_property
    def _pad(self) -> int:
        """What fills rows up; it is masked, so a model without a pad token takes its end token, or any."""
        tokenizer = self._tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Tokens that end an answer: the model's own, and where a line is wanted all that hold a line's end."""
        own = self._model.generation_config.eos_token_id
        ends = [] if own is None else [own] if isinstance(own, int) else list(own)
        if not self.chats:  # written as "Ċ" by byte-level tokenizers, as <0x0A> by others
            ends += [i for t, i in self._tokenizer.get_vocab().items() if "Ċ" in t or "\n" in t or t == "<0x0A>"]
        return sorted(set(ends))

    @property
    def _device(self) -> Any:
        return self._model.device

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        _hush()
        try:
            return AutoTokenizer.from_pretrained(self.place.folder)
        except Exception as e:  # every kind of damage has an error of its own
            raise PromptSearchError(
                f"--lm {self.place.name}: its tokenizer cannot be loaded ({first_line(e)[:200]}); fetch it again"
            ) from e

    @functools.cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        _hush()
        gpu = torch.cuda.is_available()
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.place.folder, dtype="auto" if gpu else torch.float32, use_safetensors=True
            )
        except Exception as e:
            raise PromptSearchError(
                f"--lm {self.place.name}: cannot be loaded ({first_line(e)[:200]}); fetch it again, or name another"
            ) from e
        model.eval()
        return model.to("cuda") if gpu else model


class _Drawing:
    """Adds Gumbel noise to the logits that top-p leaves: the highest is then a draw from the distribution.

    Row i of step t draws from (seed, i, t), so an answer does not depend on a global generator.
    """

    def __init__(self, seed: Sequence[int], temperature: float, top_p: float) -> None:
        self.seed, self.temperature, self.top_p = list(seed), temperature, top_p
        self.step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch
        from transformers import TopPLogitsWarper

        scores = scores.float() / self.temperature  # (B, V)
        if self.top_p < 1:
            scores = TopPLogitsWarper(self.top_p)(input_ids, scores)
        rng = np.random.default_rng([*self.seed, self.step])
        self.step += 1
        noise = rng.gumbel(size=tuple(scores.shape)).astype(np.float32)
        return scores + torch.from_numpy(noise).to(scores.device)


def _first_line(text: str) -> str:
    return text.strip("\n").split("\n", 1)[0]


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
