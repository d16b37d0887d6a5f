"""Loads tokenizers of open_clip's models, makes them faster, and counts tokens without truncation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import sha256_file
from promptsearch.evaluators.data.hub import first_line
from promptsearch.evaluators.encoding.transformers_model import SOURCE

#: Largest number of words whose tokens are cached; then the cache is emptied.
WORDS = 1 << 20


class WordTokenizer:
    """Tokenizes like an open_clip `SimpleTokenizer`, but each word only once.

        fast = WordTokenizer(open_clip.get_tokenizer("RN50"))
        fast(["a photo of a cat."])  # (1, 77) int64

    The tokenizer never joins characters across white space, and cleaning does not change printable ASCII without `&`
    except for case and white space. The tokens of such a text are therefore the tokens of its words. All other texts
    are tokenized by the original tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._words: dict[str, list[int]] = {}
        self.context_length = int(tokenizer.context_length)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without start and end token."""
        if not text.isascii() or not text.isprintable() or "&" in text:
            return self._tokenizer.encode(text)
        ids: list[int] = []
        for word in text.split():
            known = self._words.get(word)
            if known is None:
                if len(self._words) >= WORDS:
                    self._words.clear()
                known = self._words[word] = self._tokenizer.encode(word)
            ids += known
        return ids

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return ids (n, context length) with start and end token, padded with zeros; long texts are truncated."""
        start, end, most = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id, self.context_length
        rows = [[start, *self.encode(text)[: most - 2], end] for text in texts]
        lengths = np.array([len(row) for row in rows], np.intp)
        ids = np.zeros((len(rows), most), np.int64)
        ids[np.arange(most) < lengths[:, None]] = [i for row in rows for i in row]  # a mask is filled row by row
        return ids


def remembering(tokenizer: Any) -> Any:
    """Return a faster tokenizer with the same token ids, or the tokenizer itself if it is not open_clip's own."""
    from open_clip.tokenizer import SimpleTokenizer

    if type(tokenizer) is not SimpleTokenizer or tokenizer.reduction_fn is not None or not tokenizer.context_length:
        return tokenizer
    # `WordTokenizer` does not know other kinds of cleaning, such as SigLIP's, which removes punctuation.
    return WordTokenizer(tokenizer) if tokenizer.clean_fn.__name__ == "_clean_lower" else tokenizer


#: Files that transformers' AutoTokenizer reads; a vocabulary is in one of `VOCABULARIES`.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "tekken.json",
)
FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "config.json",
)

# Files of a model's folder that tokenizers do not read.
_NO_TOKENIZER = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt", ".gguf", ".npz", ".npy")


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder that a tokenizer may read, by the file's name."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    return {f.name: sha256_file(f) for f in files if f.suffix.lower() not in _NO_TOKENIZER}


def load_tokenizer(source: str, folder: Path | None) -> Any:
    """Return the tokenizer of a model; code in its folder is never run.

    Args:
        source: The model's name for open_clip.
        folder: Folder of the tokenizer's files, or None for open_clip's own tokenizer.

    Raises:
        PromptSearchError: The files are missing or damaged, or need code of their own.
    """
    import open_clip
    from open_clip.factory import get_model_config
    from open_clip.tokenizer import HFTokenizer

    if folder is None:
        return open_clip.get_tokenizer(source)
    config = _text_config(folder) if source.startswith(SOURCE) else get_model_config(source)["text_cfg"]
    try:
        return HFTokenizer(
            str(folder),
            context_length=config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=config.get("tokenizer_mode"),
            trust_remote_code=False,
            **(config.get("tokenizer_kwargs") or {}),
        )
    except Exception as e:  # transformers, tokenizers and sentencepiece raise many kinds
        why = first_line(e)
        if "trust_remote_code" in str(e):
            why = "it needs code of its own, which is never run"
        raise PromptSearchError(
            f"the tokenizer in {folder} cannot be loaded ({why[:200]}); save a plain tokenizer.json there"
        ) from e


def _text_config(folder: Path) -> dict[str, Any]:
    """Return the text settings of a folder that transformers wrote, in the form of open_clip's config."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return {"context_length": config.text_config.max_position_embeddings}


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Count the tokens of each text without truncation, including the start and end tokens.

    Args:
        tokenizer: A tokenizer of open_clip (SimpleTokenizer, HFTokenizer, SigLipTokenizer), or one with `encode`.
        texts: The texts.
    """
    if _inner(tokenizer) is None:
        return [len(tokenizer.encode(text)) + 2 for text in texts]
    clips = getattr(tokenizer, "tokenizer_mode", "") == "clips"  # open_clip adds the start, end and class tokens itself
    return [len(ids) + 3 * clips for ids in _ids(tokenizer, texts, special=not clips)]


def refuse_special_tokens(tokenizer: Any, texts: Sequence[str]) -> None:
    """Refuse texts that contain a special token such as `<end_of_text>`, because the model ignores what follows it.

    Raises:
        InputError: A text contains a special token; the message names the first such text.
    """
    some = [text for text in texts if re.search(r"[<\[|]", text)]
    if not some:
        return
    inner = _inner(tokenizer)
    if inner is None:
        from open_clip.tokenizer import SimpleTokenizer

        marks = set(getattr(tokenizer, "all_special_ids", None) or SimpleTokenizer().all_special_ids)
        found = [tokenizer.encode(text) for text in some]
    else:
        marks = set(inner.all_special_ids) - {inner.unk_token_id}
        found = _ids(tokenizer, some, special=False)
    for text, ids in zip(some, found, strict=True):
        if marks & set(ids):
            raise InputError(
                f"the prompt {text!r} contains a special token of the model's tokenizer, which ends a text; "
                "write it without"
            )


def _inner(tokenizer: Any) -> Any:
    """Return the transformers tokenizer inside a tokenizer of open_clip, or None."""
    return getattr(tokenizer, "tokenizer", None)


def _ids(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    clean = getattr(tokenizer, "clean_fn", None)
    if clean is None:  # SigLipTokenizer
        from open_clip.tokenizer import get_clean_fn

        clean = get_clean_fn("canonicalize")
    cleaned = [clean(text) for text in texts]
    options = {"padding": False, "truncation": False, "verbose": False, "add_special_tokens": special}
    ids: list[list[int]] = _inner(tokenizer)(cleaned, **options)["input_ids"]
    return ids
