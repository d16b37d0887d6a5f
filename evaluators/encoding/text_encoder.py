"""Encodes texts with an open_clip model, computing each distinct token prefix once per layer.

In a causal text tower a position depends only on the tokens up to it. Tokens after the pooled one do not matter, and
texts with the same beginning share its computation. A batch of texts therefore becomes a trie of token prefixes, with
one row per node in every layer norm, projection and MLP, and attention from each node to its ancestors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.encoding.prefix_trie import Ints, Trie, prefix_order
from promptsearch.evaluators.encoding.text_tower import Tower, recognise
from promptsearch.evaluators.encoding.word_tokenizer import remembering
from promptsearch.evaluators.scoring.memory import out_of_memory

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

NODES = {"cpu": 2048, "cuda": 32768}  # trie nodes per chunk; on a CPU the MLP's hidden rows then fit into the cache
TEXTS = 16384  # number of texts tokenized at a time
PLAIN_BATCH = 64


class TextEncoder:
    """Encodes texts to unit vectors with the weights, precision and device of an open_clip model.

    >>> encoder = TextEncoder(model, open_clip.get_tokenizer("RN50"))
    >>> encoder.encode(["a photo of a cat.", "a photo of a car."]).shape
    (2, 1024)

    If prefixes cannot be shared, the model's own `encode_text` is used; `shared` tells which, and `why_plain` why.

    Args:
        model: The open_clip model.
        tokenizer: The model's tokenizer.
        nodes: Largest number of trie nodes computed at a time, which limits the memory.

    Raises:
        InputError: `nodes` is below 1.
    """

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Any], *, nodes: int | None = None) -> None:
        if nodes is not None and nodes < 1:
            raise InputError(f"nodes is {nodes}; give at least 1, or leave it out")
        self.model = model
        self.tokenizer = remembering(tokenizer)
        self.nodes = nodes
        tower = recognise(model)
        self.why_plain: str | None = tower if isinstance(tower, str) else None
        self._tower: Tower | None = None if isinstance(tower, str) else tower

    @property
    def shared(self) -> bool:
        """Whether each distinct prefix is computed once; if not, `why_plain` says why."""
        return self._tower is not None

    def encode(self, texts: Sequence[str]) -> Floats:
        """Encode texts; equal texts are encoded once.

        Args:
            texts: n texts.

        Returns:
            (n, D) unit vectors, equal to `F.normalize(model.encode_text(tokenizer(texts)))` up to rounding.

        Raises:
            InputError: A text is not a string, or the tokenizer does not fit the model.
            PromptSearchError: A vector is not finite, or memory ran out.
        """
        import torch

        if isinstance(texts, str):
            raise InputError(f"texts is the string {texts!r}; give a list of strings")
        if len(texts) == 0:
            return self.encode([""])[:0]
        first: dict[str, int] = {}
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {i} is {text!r}, a {type(text).__name__}; give strings")
            first.setdefault(text, i)
        rows = np.array(sorted(first.values(), key=lambda i: texts[i].lower()))  # neighbours share prefixes
        out = np.empty((0, 0), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), TEXTS):
                some = rows[start : start + TEXTS]
                vectors = self._vectors([texts[i] for i in some])
                if not np.isfinite(vectors).all():
                    raise PromptSearchError(
                        "the model gives a vector that is not finite for the text "
                        f"{self._culprit([texts[i] for i in some], vectors)!r}; check its weights and precision"
                    )
                if start == 0:
                    out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
                out[some] = vectors
        source = np.array([first[text] for text in texts])
        again = np.flatnonzero(source != np.arange(len(texts)))
        out[again] = out[source[again]]
        return out

    def chunks(self, texts: Sequence[str]) -> list[Ints]:
        """Return the indices of the texts that `encode` computes together, chunk by chunk.

        A chunk that is encoded alone gives the same bits, because the model gets the same input.

        Args:
            texts: At most `TEXTS` distinct texts.
        """
        rows = np.array(sorted(range(len(texts)), key=lambda i: texts[i].lower()), dtype=np.int64)
        if self._tower is None:
            return [rows[at : at + PLAIN_BATCH] for at in range(0, len(rows), PLAIN_BATCH)]
        ids, lengths = self._tokens(self._tower, [texts[i] for i in rows])
        return [rows[chunk] for chunk in _chunks(ids, lengths, self._budget())]

    def trie(self, texts: Sequence[str]) -> Trie:
        """Return the trie of the texts' prefixes, which `encode` computes in chunks.

        Args:
            texts: The texts.

        Raises:
            InputError: Prefixes are not shared.
        """
        if self._tower is None:
            raise InputError(f"the model has no trie of prefixes: {self.why_plain}")
        return Trie.build(*self._tokens(self._tower, list(texts)))

    def _tokens(self, tower: Tower, texts: list[str]) -> tuple[Ints, Ints]:
        """Return token ids (n, L), and the number (n,) of each text's tokens up to the pooled one."""
        ids = np.asarray(self.tokenizer(texts), dtype=np.int64)
        tower.check(ids)
        return ids, tower.pooled_position(ids) + 1

    def _culprit(self, texts: list[str], vectors: Floats) -> str:
        """Return the text whose vector is not finite; it makes other texts of its attention block not finite too."""
        bad = [text for text, vector in zip(texts, vectors, strict=True) if not np.isfinite(vector).all()]
        return next((text for text in bad if not np.isfinite(self._vectors([text])).all()), bad[0])

    def _vectors(self, texts: list[str]) -> Floats:
        """Encode distinct texts to unit vectors (n, D)."""
        import torch

        device = next(self.model.parameters()).device
        nodes = self._budget()
        try:
            if self._tower is None:
                parts = [self._plain(texts[i : i + PLAIN_BATCH], device) for i in range(0, len(texts), PLAIN_BATCH)]
                return _unit(torch.cat(parts))
            ids, lengths = self._tokens(self._tower, texts)
            chunks = list(_chunks(ids, lengths, nodes))
            parts = [self._tower.features(Trie.build(ids[rows], lengths[rows]), device) for rows in chunks]
            vectors = _unit(torch.cat(parts))  # the first time that the host waits for the device
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise PromptSearchError(
                f"{device} ran out of memory with {nodes} text prefixes at a time; "
                "use a smaller --encode-batch (nodes of a TextEncoder is 64 times that)"
            ) from error
        out = np.empty_like(vectors)
        out[np.concatenate(chunks)] = vectors
        return out

    def _budget(self) -> int:
        device = next(self.model.parameters()).device
        return self.nodes or NODES["cpu" if device.type == "cpu" else "cuda"]

    def _plain(self, texts: list[str], device: torch.device) -> torch.Tensor:
        """Encode texts with the model's own `encode_text` (n, D)."""
        import torch

        features = self.model.encode_text(torch.as_tensor(self.tokenizer(texts), device=device))
        if getattr(features, "ndim", None) != 2:
            raise InputError(
                f"the encode_text of this {type(self.model).__name__} does not return one vector per text; "
                "use another model"
            )
        return features


def _unit(features: torch.Tensor) -> Floats:
    import torch.nn.functional as F

    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _chunks(ids: Ints, lengths: Ints, nodes: int) -> Iterator[Ints]:
    """Split sorted rows into chunks of about equal size whose tries have at most `nodes` nodes."""
    order, shared = prefix_order(ids, lengths)
    lengths = lengths[order]
    total = np.cumsum(lengths - shared)  # distinct prefixes of the rows so far
    count = -(-int(total[-1]) // nodes)
    target = min(nodes, -(-int(total[-1]) // count) + int(lengths.max()))
    start = 0
    while start < len(order):
        before = total[start] - lengths[start]  # a chunk computes all prefixes of its first row
        stop = max(start + 1, int(np.searchsorted(total, before + target, side="right")))
        yield order[start:stop]
        start = stop
