"""open_clip's byte-pair tokenizer with the tokens of each word remembered: the same ids, some twenty times faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Words remembered before the memory is emptied and begins anew.
WORDS = 1 << 20


class WordTokenizer:
    """Token ids of texts, equal to those of an open_clip `SimpleTokenizer`.

        fast = WordTokenizer(open_clip.get_tokenizer("RN50"))
        fast(["a photo of a cat."])  # (1, 77) int64

    The tokenizer never joins characters across white space, and its cleaning leaves printable ASCII without `&` as it
    is, apart from case and white space.  So the tokens of such a text are those of its words, one after the other, and
    a word is tokenized once.  Any other text is given to the tokenizer whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._words: dict[str, list[int]] = {}
        self.context_length = int(tokenizer.context_length)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start and end, however long it is."""
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
        """(n, context length) ids with start and end, padded with zeros; a text that is too long is cut off."""
        start, end, most = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id, self.context_length
        rows = [[start, *self.encode(text)[: most - 2], end] for text in texts]
        lengths = np.array([len(row) for row in rows], np.intp)
        ids = np.zeros((len(rows), most), np.int64)
        ids[np.arange(most) < lengths[:, None]] = [i for row in rows for i in row]  # row after row
        return ids


def remembering(tokenizer: Any) -> Any:
    """A tokenizer that gives the same ids faster where it is open_clip's own, else the tokenizer itself."""
    from open_clip.tokenizer import SimpleTokenizer

    if type(tokenizer) is not SimpleTokenizer or tokenizer.reduction_fn is not None or not tokenizer.context_length:
        return tokenizer
    # Other ways of cleaning (SigLIP's) drop punctuation.
    return WordTokenizer(tokenizer) if tokenizer.clean_fn.__name__ == "_clean_lower" else tokenizer
