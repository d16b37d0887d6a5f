"""Texts to unit vectors through an open_clip model, each distinct token prefix computed once per layer.

In a causal text tower a position depends on the tokens up to it only.  So nothing after the pooled token matters,
two texts share everything up to where they part, and a batch of texts is a trie of token prefixes: one row per node
in every layer norm, projection and MLP, and attention from each node to its ancestors.
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

NODES = {"cpu": 2048, "cuda": 32768}  # per chunk: on a CPU the MLP's hidden rows of a chunk stay in the cache
TEXTS = 16384  # tokenized at a time
PLAIN_BATCH = 64


class TextEncoder:
    """Texts to unit vectors with the weights, precision and device of an open_clip model.

    >>> encoder = TextEncoder(model, open_clip.get_tokenizer("RN50"))
    >>> encoder.encode(["a photo of a cat.", "a photo of a car."]).shape
    (2, 1024)

    `shared` tells whether prefixes are shared; where they cannot be, the model's own `encode_text` is used and
    `why_plain` gives the reason.  `nodes` bounds the trie nodes computed at a time, and so the memory.
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
        """Whether each distinct prefix is computed once; otherwise `why_plain` says why not."""
        return self._tower is not None

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors (n, D) of the texts, in their order; equal texts are encoded once.

        They equal `F.normalize(model.encode_text(tokenizer(texts)))` to rounding.  Raises InputError where a text is
        not a string or the tokenizer does not fit the model, PromptSearchError where a vector is not finite.
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
        """Rows of at most `TEXTS` distinct texts that `encode` computes together.

        Each chunk given to `encode` alone makes one call of the model with the same input, so the same bits.
        """
        rows = np.array(sorted(range(len(texts)), key=lambda i: texts[i].lower()), dtype=np.int64)
        if self._tower is None:
            return [rows[at : at + PLAIN_BATCH] for at in range(0, len(rows), PLAIN_BATCH)]
        ids, lengths = self._tokens(self._tower, [texts[i] for i in rows])
        return [rows[chunk] for chunk in _chunks(ids, lengths, self._budget())]

    def trie(self, texts: Sequence[str]) -> Trie:
        """The prefixes of these texts: what `encode` computes for them, apart from its chunks' common prefixes.

        Raises InputError where prefixes are not shared.
        """
        if self._tower is None:
            raise InputError(f"the model has no trie of prefixes: {self.why_plain}")
        return Trie.build(*self._tokens(self._tower, list(texts)))

    def _tokens(self, tower: Tower, texts: list[str]) -> tuple[Ints, Ints]:
        """Token ids (n, L) and how many of each text's tokens matter (n,), those up to the pooled one."""
        ids = np.asarray(self.tokenizer(texts), dtype=np.int64)
        tower.check(ids)
        return ids, tower.pooled_position(ids) + 1

    def _culprit(self, texts: list[str], vectors: Floats) -> str:
        """The first text that is not finite on its own: it spoils the texts of its attention block too."""
        bad = [text for text, vector in zip(texts, vectors, strict=True) if not np.isfinite(vector).all()]
        return next((text for text in bad if not np.isfinite(self._vectors([text])).all()), bad[0])

    def _vectors(self, texts: list[str]) -> Floats:
        """Unit vectors (n, D) of distinct texts."""
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
            vectors = _unit(torch.cat(parts))  # only here does the host wait for the device
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise PromptSearchError(
                f"{device} ran out of memory with {nodes} text prefixes at a time: "
                "lower --encode-batch (nodes of a TextEncoder is 64 times that)"
            ) from error
        out = np.empty_like(vectors)
        out[np.concatenate(chunks)] = vectors
        return out

    def _budget(self) -> int:
        device = next(self.model.parameters()).device
        return self.nodes or NODES["cpu" if device.type == "cpu" else "cuda"]

    def _plain(self, texts: list[str], device: torch.device) -> torch.Tensor:
        """The model's own encoding (n, D), every text padded to the full context."""
        import torch

        features = self.model.encode_text(torch.as_tensor(self.tokenizer(texts), device=device))
        if getattr(features, "ndim", None) != 2:
            raise InputError(
                f"the encode_text of this {type(self.model).__name__} does not give one vector per text; "
                "choose a model whose text tower pools and gives no tokens"
            )
        return features


def _unit(features: torch.Tensor) -> Floats:
    import torch.nn.functional as F

    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _chunks(ids: Ints, lengths: Ints, nodes: int) -> Iterator[Ints]:
    """Rows in runs of about equal size whose tries have at most `nodes` nodes, or one text where that is longer."""
    order, shared = prefix_order(ids, lengths)
    lengths = lengths[order]
    total = np.cumsum(lengths - shared)  # distinct prefixes of the rows so far
    count = -(-int(total[-1]) // nodes)
    target = min(nodes, -(-int(total[-1]) // count) + int(lengths.max()))
    start = 0
    while start < len(order):
        before = total[start] - lengths[start]  # a chunk computes the whole path of its first row
        stop = max(start + 1, int(np.searchsorted(total, before + target, side="right")))
        yield order[start:stop]
        start = stop
