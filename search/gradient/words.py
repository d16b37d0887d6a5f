"""Finds the real words nearest to learnt vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptsearch.errors import InputError
from promptsearch.search.gradient.tower import TextTower

if TYPE_CHECKING:
    import torch

METRICS = ("cosine", "euclidean")


class Words:
    """The whole-word tokens of a text tower; a text of such words has exactly their tokens.

        words = Words(tower)
        print(words.text(words.nearest(learnt, "cosine")))

    A token is a whole word if its text is printable ASCII without braces and is tokenized to this token alone.

    Args:
        tower: The text tower.

    Raises:
        InputError: The tokenizer cannot encode and decode single tokens.
    """

    def __init__(self, tower: TextTower) -> None:
        import torch

        tokenizer = tower.tokenizer
        if not hasattr(tokenizer, "decode") or not hasattr(tokenizer, "encode"):
            raise InputError(
                f"the tokenizer of this model ({type(tokenizer).__name__}) cannot decode single tokens, which nearest "
                "words need; use another model"
            )
        self.tower = tower
        key = _key(tower)
        if key is None:
            self.texts = _whole_words(tower)
        else:
            self.texts = _FOUND.get(key) or _FOUND.setdefault(key, _whole_words(tower))
        self.ids = torch.tensor(sorted(self.texts), device=tower.device)
        self.vectors = tower.embeddings(self.ids.tolist())  # (V, W)

    def nearest(self, vectors: torch.Tensor, metric: str = "cosine") -> list[int]:
        """Find the word nearest to each vector.

        Args:
            vectors: (n, W) learnt vectors.
            metric: "cosine" or "euclidean".

        Returns:
            n token ids.

        Raises:
            InputError: The metric is unknown.
        """
        import torch.nn.functional as F

        if metric == "cosine":
            scores = F.normalize(vectors, dim=-1) @ F.normalize(self.vectors, dim=-1).T  # (n, V)
        elif metric == "euclidean":
            # minus the squared distance, plus a constant
            scores = 2 * vectors @ self.vectors.T - self.vectors.square().sum(1)
        else:
            raise InputError(f"metric {metric!r}: choose from {', '.join(METRICS)}")
        return [int(i) for i in self.ids[scores.argmax(dim=1)]]

    def text(self, ids: Sequence[int]) -> str:
        """Return the words of these tokens, separated by spaces."""
        return " ".join(self.texts[i] for i in ids)


#: The words of the vocabularies that this process has searched, by `_key`: most models have that of CLIP.
_FOUND: dict[tuple[Any, ...], dict[int, str]] = {}


def _key(tower: TextTower) -> tuple[Any, ...] | None:
    """Return what determines the words of a tower with open_clip's own tokenizer; None for other tokenizers."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer: Any = tower.tokenizer
    if type(tokenizer) is not SimpleTokenizer:
        return None
    merges = hashlib.sha256(repr(list(tokenizer.bpe_ranks)).encode()).digest()
    special = tuple(tokenizer.all_special_ids)
    cleaning = tokenizer.clean_fn.__name__
    return merges, special, cleaning, tower.module.token_embedding.num_embeddings, tuple(tower.start), tower.end


def _whole_words(tower: TextTower) -> dict[int, str]:
    """Return the texts of the token ids that are whole words."""
    tokenizer: Any = tower.tokenizer
    texts = {}
    for i in range(tower.module.token_embedding.num_embeddings):
        if i == tower.end or i in tower.start:
            continue
        try:
            raw = tokenizer.decode([i])
        except KeyError:  # some models have more embeddings than tokens
            continue
        # CLIP's whole-word tokens decode to text that ends in a space; no others need to be checked.
        text = raw.strip()
        if raw.endswith(" ") and text.isascii() and text.isprintable() and not set(text) & set("{}"):
            texts[i] = text
    return {i: texts[i] for i in _whole(tower, list(texts.items()))}


def _whole(tower: TextTower, items: list[tuple[int, str]], size: int = 64) -> list[int]:
    """Return the token ids whose texts are tokenized to them alone.

    Many texts are tokenized at once; if the ids of a group are not the expected ones, the group is split.
    """
    found = []
    for at in range(0, len(items), size):
        ids = [i for i, _ in items[at : at + size]]
        if tower.tokens(" ".join(t for _, t in items[at : at + size])) == ids:
            found += ids
        elif size > 1:
            found += _whole(tower, items[at : at + size], size // 8)
    return found
