"""Texts to unit vectors through an open_clip model, each distinct token prefix computed once per layer.

In a causal text tower a position depends on the tokens up to it only.  So nothing after the pooled token matters,
two texts share everything up to where they part, and a batch of texts is a trie of token prefixes: one row per node
in every layer norm, projection and MLP, and attention from each node to its ancestors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.trie import AttentionBlocks, Ints, Trie, prefix_order

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

NODES = {"cpu": 2048, "cuda": 32768}  # per chunk: on a CPU the MLP's hidden rows of a chunk stay in the cache
BLOCK = 32  # nodes per attention block: 24 to 32 was fastest of 8 to 128, about 5% of a layer's time
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
        self.tokenizer = tokenizer
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
        nodes = self.nodes or NODES["cpu" if device.type == "cpu" else "cuda"]
        try:
            if self._tower is None:
                parts = [self._plain(texts[i : i + PLAIN_BATCH], device) for i in range(0, len(texts), PLAIN_BATCH)]
                return _unit(torch.cat(parts))
            ids, lengths = self._tokens(self._tower, texts)
            chunks = list(_chunks(ids, lengths, nodes))
            parts = [self._tower.features(Trie.build(ids[rows], lengths[rows]), device) for rows in chunks]
            vectors = _unit(torch.cat(parts))  # only here does the host wait for the device
        except torch.cuda.OutOfMemoryError as error:
            raise PromptSearchError(
                f"{device} ran out of memory while encoding {len(texts)} texts: "
                f"lower nodes (now {nodes}) or use the CPU"
            ) from error
        out = np.empty_like(vectors)
        out[np.concatenate(chunks)] = vectors
        return out

    def _plain(self, texts: list[str], device: torch.device) -> torch.Tensor:
        """The model's own encoding (n, D), every text padded to the full context."""
        features = self.model.encode_text(self.tokenizer(texts).to(device))
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


@dataclass(frozen=True)
class Tower:
    """The text half of an open_clip model whose structure is known, run on the nodes of a trie."""

    module: Any  # a CLIP or a TextTransformer: they name their parts alike
    pool: str  # first, last, argmax or eos, as in open_clip's text_global_pool
    eos: int | None

    def check(self, ids: Ints) -> None:
        """Raises InputError where these token ids (n, L) cannot come from this tower's tokenizer."""
        context, vocabulary = self.module.context_length, self.module.token_embedding.num_embeddings
        if ids.ndim != 2 or ids.shape[1] != context:
            raise InputError(
                f"the tokenizer gives token ids of shape {ids.shape}, the text tower takes {context} per text: "
                "use the model's own tokenizer (open_clip.get_tokenizer) with its context length"
            )
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise InputError(
                f"the tokenizer gives the token {ids.max()}, the text tower knows {vocabulary}: "
                "use the model's own tokenizer (open_clip.get_tokenizer)"
            )

    def pooled_position(self, ids: Ints) -> Ints:
        """The position (n,) whose output is the text's vector: text_global_pool of open_clip."""
        if self.pool == "argmax":
            return ids.argmax(axis=1)
        if self.pool == "eos":
            return (ids == self.eos).argmax(axis=1)
        return np.full(len(ids), 0 if self.pool == "first" else ids.shape[1] - 1)

    def features(self, trie: Trie, device: torch.device) -> torch.Tensor:
        """What encode_text gives (n, D), before normalisation, for each leaf of the trie."""
        from torch import nn

        module, blocks = self.module, self.module.transformer.resblocks
        attend = _Attend(trie, device, module.transformer.get_cast_dtype())
        context = module.context_length
        pair, spread = np.unique(trie.token * context + trie.depth, return_inverse=True)
        leaf, back = np.unique(trie.leaf, return_inverse=True)
        x = self._embed(_send(pair // context, device), _send(pair % context, device))  # (U, W)
        for i, block in enumerate(blocks):
            qkv = _qkv(block.attn, block.ln_1(x))  # (M, 3, H, W/H)
            if i == 0:  # so far a node is a token at a position, and many nodes are the same one
                nodes = _send(spread, device)
                x, qkv = x[nodes], qkv[nodes]
            mixed = attend(block.attn, qkv)  # (M, W)
            if i == len(blocks) - 1:  # nobody attends to the last layer's outputs: the leaves are enough
                leaves = _send(leaf, device)
                x, mixed = x[leaves], mixed[leaves]
            mixed = block.attn.out_proj(mixed)
            if hasattr(block, "ln_attn"):
                mixed = block.ln_attn(mixed)
            x = x + block.ls_1(mixed)
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        x = module.ln_final(x)
        projection = module.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return x[_send(back, device)]

    def _embed(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        dtype = self.module.transformer.get_cast_dtype()
        return self.module.token_embedding(token).to(dtype) + self.module.positional_embedding[position].to(dtype)


class _Attend:
    """Attention of each node of one trie to its ancestors and itself, the same in every layer."""

    def __init__(self, trie: Trie, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        blocks = AttentionBlocks.build(trie, BLOCK)
        self.count, self.block, self.keys = blocks.allowed.shape
        self.nodes = len(trie)
        self.query, self.key = _send(blocks.query.reshape(-1), device), _send(blocks.key.reshape(-1), device)
        allowed = _send(blocks.allowed, device)[:, None]  # the same for all heads
        self.mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)

    def __call__(self, attn: Any, qkv: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values (M, 3, H, W/H) to the input of out_proj (M, W)."""
        import torch.nn.functional as F

        _, _, heads, size = qkv.shape
        q = qkv[:, 0].index_select(0, self.query).view(self.count, self.block, heads, size)
        kv = qkv[:, 1:].index_select(0, self.key).view(self.count, self.keys, 2, heads, size)
        k, v = kv.unbind(2)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=self.mask
        )  # (blocks, H, B, W/H)
        if getattr(attn, "head_scale", None) is not None:
            mixed = mixed * attn.head_scale
        mixed = mixed.transpose(1, 2).reshape(-1, heads * size)[: self.nodes]
        return attn.ln_inner(mixed) if hasattr(attn, "ln_inner") else mixed


def _qkv(attn: Any, x: torch.Tensor) -> torch.Tensor:
    """Queries, keys and values (M, 3, H, W/H) of node rows (M, W)."""
    import torch
    import torch.nn.functional as F

    qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).view(len(x), 3, attn.num_heads, -1)
    if hasattr(attn, "ln_q"):
        q, k, v = qkv.unbind(1)
        qkv = torch.stack([attn.ln_q(q), attn.ln_k(k), v], dim=1)
    return qkv


def _send(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """To the device without waiting for it."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def recognise(model: Any) -> Tower | str:
    """The model's causal text tower, or the reason why prefixes cannot be shared in it.

    Types are compared exactly: a subclass, a wrapper or a quantised layer may compute something else.
    """
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer, Transformer
    from torch import nn

    if type(model) is CLIP:
        module, pool, eos = model, model.text_pool_type, getattr(model, "text_eos_id", None)
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        module, pool, eos = model.text, model.text.pool_type, getattr(model.text, "eos_id", None)
    elif type(model) is CustomTextCLIP:
        return f"its text tower is a {type(model.text).__name__}, not a TextTransformer of open_clip"
    else:
        return f"it is a {type(model).__name__}, not a CLIP or CustomTextCLIP of open_clip"
    if getattr(module, "cls_emb", None) is not None:
        return "its text tower pools a class token after the padding"
    if getattr(module, "output_tokens", False):
        return "its text tower gives tokens besides the vector"
    if pool not in ("first", "last", "argmax", "eos"):
        return f"its text tower pools by {pool!r}, which gives no single position"
    if not _causal(module.attn_mask):
        return "its text tower is not causal"
    if type(module.transformer) is not Transformer:
        return f"its text transformer is a {type(module.transformer).__name__}, not a Transformer of open_clip"
    known = _acting_by_row()
    for part in (module.token_embedding, module.ln_final, module.text_projection):
        if part is not None and type(part) not in {*known, nn.Embedding, nn.Parameter}:
            return f"its text tower has a {type(part).__name__}"
    for i, block in enumerate(module.transformer.resblocks):
        if reason := _unknown(block, known):
            return f"layer {i} of its text tower has {reason}"
    return Tower(module, pool, eos)


def _causal(mask: torch.Tensor | None) -> bool:
    import torch

    return mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))


def _acting_by_row() -> set[type]:
    """The modules that treat each row of their input alone."""
    from open_clip.transformer import LayerNorm, LayerNormFp32, LayerScale, QuickGELU
    from torch import nn
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    linear: set[type] = {nn.Linear, NonDynamicallyQuantizableLinear, LayerScale}
    return linear | {nn.LayerNorm, LayerNorm, LayerNormFp32, nn.GELU, QuickGELU, nn.Identity, nn.Sequential}


def _unknown(block: Any, known: set[type]) -> str | None:
    """What in this residual block is not known to be computed row by row, apart from its plain attention."""
    from open_clip.transformer import Attention, CustomResidualAttentionBlock, ResidualAttentionBlock
    from torch import nn

    attn = block.attn
    if type(block) is ResidualAttentionBlock and type(attn) is nn.MultiheadAttention:
        if attn.in_proj_weight is None or attn.bias_k is not None or attn.add_zero_attn or attn.dropout > 0:
            return "an unusual MultiheadAttention"
        if hasattr(block, "ln_1_kv"):
            return "cross-attention"
    elif type(block) is CustomResidualAttentionBlock and type(attn) is Attention and hasattr(attn, "ln_inner"):
        if attn.logit_scale is not None:
            return "scaled cosine attention"
        if attn.attn_drop.p > 0 or attn.out_drop.p > 0:
            return "dropout"
        known = known | {nn.Dropout}
    else:
        return f"a {type(block).__name__} with {type(attn).__name__}"
    for part in block.modules():
        if part is not block and part is not attn and type(part) not in known:
            return f"a {type(part).__name__}"
    return None
