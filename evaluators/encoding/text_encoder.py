"""Encodes texts with an open_clip model, computing each distinct token prefix once per layer.

In a causal text tower a position depends only on the tokens up to it. Tokens after the pooled one do not matter, and
texts with the same beginning share its computation. A batch of texts therefore becomes a trie of token prefixes, with
one row per node in every layer norm, projection and MLP, and attention from each node to its ancestors.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.encoding.tokenizers import remembering
from promptsearch.evaluators.scoring.template_table import out_of_memory

if TYPE_CHECKING:
    import torch


Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def prefix_order(ids: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Sort token sequences, and count the tokens that each shares with its predecessor.

    The rows s to e of the order have `lengths[s]` plus the sum of `lengths - shared` of the rows after s distinct
    prefixes.

    Args:
        ids: (n, L) token ids; only `ids[i, :lengths[i]]` of row i are used.
        lengths: (n,) lengths.

    Returns:
        The lexicographic order (n,), in which a prefix precedes its extensions, and the number of shared tokens (n,)
        along it.
    """
    width = int(lengths.max(initial=0))
    if len(ids) == 0 or width == 0:
        return np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64)
    cut = np.where(np.arange(width) < lengths[:, None], ids[:, :width], -1)  # (n, width), -1 sorts first
    order = np.lexsort(cut.T[::-1])
    cut = cut[order]
    same = np.zeros(cut.shape, dtype=bool)
    same[1:] = np.logical_and.accumulate(cut[1:] == cut[:-1], axis=1)
    return order, np.minimum(same.sum(axis=1), lengths[order])


@dataclass(frozen=True)
class Trie:
    """The distinct prefixes of token sequences in depth-first order: parents first, each subtree contiguous.

    >>> trie = Trie.build(np.array([[1, 5, 9], [1, 6, 9], [1, 5, 0]]), np.array([3, 3, 2]))
    >>> trie.token.tolist(), trie.parent.tolist(), trie.leaf.tolist()
    ([1, 5, 9, 6, 9], [-1, 0, 1, 0, 3], [2, 4, 1])
    """

    token: Ints  # (M,) the last token of each prefix
    depth: Ints  # (M,) its position in the sequence, from 0
    parent: Ints  # (M,) the prefix without its last token, -1 for none
    end: Ints  # (M,) one past the last descendant: u is v or an ancestor of v if and only if u <= v < end[u]
    leaf: Ints  # (n,) the node of each whole sequence

    @classmethod
    def build(cls, ids: Ints, lengths: Ints) -> Trie:
        """Build the trie of token sequences.

        Args:
            ids: (n, L) token ids; only `ids[i, :lengths[i]]` of row i are used.
            lengths: (n,) lengths from 1 to L.
        """
        ids, lengths = np.asarray(ids, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
        order, shared = prefix_order(ids, lengths)
        ids, lengths = ids[order, : int(lengths.max(initial=0))], lengths[order]
        column = np.arange(ids.shape[1])
        new = (column >= shared[:, None]) & (column < lengths[:, None])  # (n, L) first row with this prefix
        number = np.cumsum(new).reshape(new.shape) - 1  # along sorted rows, counting is depth-first
        node = np.maximum.accumulate(np.where(new, number, -1), axis=0)  # (n, L) later rows keep what they share
        row, depth = np.nonzero(new)
        parent = np.where(depth > 0, node[row, depth - 1], -1)
        leaf = np.empty(len(ids), dtype=np.int64)
        leaf[order] = node[np.arange(len(ids)), lengths - 1]
        return cls(ids[row, depth], depth, parent, _ends(depth, parent), leaf)

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class AttentionBlocks:
    """Attention over a trie as dense attention in blocks of neighbouring nodes.

    Every ancestor of a node is in the node's block of the depth-first order, or is an ancestor of the block's first
    node, because subtrees are contiguous. The keys of a block of B nodes are therefore the ancestors of its first node
    and the B nodes themselves.
    """

    query: Ints  # (blocks, B) nodes in order; the last node fills the last block
    key: Ints  # (blocks, K) ancestors of the first node, then the block; absent ones point at node 0
    allowed: Bools  # (blocks, B, K) whether the key is the query's node or one of its ancestors, each of them once

    @classmethod
    def build(cls, trie: Trie, size: int) -> AttentionBlocks:
        """Build blocks of `size` nodes, or a single block if the trie is smaller."""
        size = min(size, len(trie))
        own = np.arange(-(-len(trie) // size) * size).reshape(-1, size)  # (blocks, B)
        above = trie.parent[own[:, 0]]
        ancestors = []
        while (above >= 0).any():
            ancestors.append(above)
            above = np.where(above >= 0, trie.parent[above], -1)
        key = np.concatenate([np.stack(ancestors, axis=1), own], axis=1) if ancestors else own
        present = (key >= 0) & (key < len(trie))
        query, key = np.minimum(own, len(trie) - 1), np.where(present, key, 0)
        at = query[:, :, None]
        allowed = present[:, None, :] & (key[:, None, :] <= at) & (at < trie.end[key][:, None, :])
        return cls(query, key, allowed)


def _ends(depth: Ints, parent: Ints) -> Ints:
    """Return one past the last descendant of each node (M,), from subtree sizes summed level by level."""
    size = np.ones(len(depth), dtype=np.int64)
    for level in range(int(depth.max(initial=0)), 0, -1):
        nodes = np.flatnonzero(depth == level)
        np.add.at(size, parent[nodes], size[nodes])
    return np.arange(len(depth)) + size


BLOCK = 32  # nodes per attention block; 24 to 32 were fastest of 8 to 128


@dataclass(frozen=True)
class Tower:
    """The text tower of an open_clip model of known structure, run on the nodes of a trie."""

    module: Any  # a CLIP or a TextTransformer, whose parts have the same names
    pool: str  # first, last, argmax or eos, as in open_clip's text_global_pool
    eos: int | None

    def check(self, ids: Ints) -> None:
        """Check that token ids (n, L) can come from the model's tokenizer.

        Raises:
            InputError: They have another length, or an id is too large.
        """
        context, vocabulary = self.module.context_length, self.module.token_embedding.num_embeddings
        if ids.ndim != 2 or ids.shape[1] != context:
            raise InputError(
                f"the tokenizer gives token ids of shape {ids.shape}, but the text tower needs {context} per text; "
                "use the model's own tokenizer (open_clip.get_tokenizer) with its context length"
            )
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise InputError(
                f"the tokenizer gives the token {ids.max()}, but the text tower has only {vocabulary} tokens; "
                "use the model's own tokenizer (open_clip.get_tokenizer)"
            )

    def pooled_position(self, ids: Ints) -> Ints:
        """Return the position (n,) whose output becomes the text's vector, like open_clip's text_global_pool."""
        if self.pool == "argmax":
            return ids.argmax(axis=1)
        if self.pool == "eos":
            return (ids == self.eos).argmax(axis=1)
        return np.full(len(ids), 0 if self.pool == "first" else ids.shape[1] - 1)

    def features(self, trie: Trie, device: torch.device) -> torch.Tensor:
        """Compute the result of encode_text (n, D), before normalisation, for each leaf of the trie."""
        from torch import nn

        module, blocks = self.module, self.module.transformer.resblocks
        attend = _Attend(trie, device, module.transformer.get_cast_dtype())
        context = module.context_length
        pair, spread = np.unique(trie.token * context + trie.depth, return_inverse=True)
        leaf, back = np.unique(trie.leaf, return_inverse=True)
        x = self._embed(_send(pair // context, device), _send(pair % context, device))  # (U, W)
        for i, block in enumerate(blocks):
            qkv = _qkv(block.attn, block.ln_1(x))  # (M, 3, H, W/H)
            if i == 0:  # before attention, nodes with the same token at the same position are equal
                nodes = _send(spread, device)
                x, qkv = x[nodes], qkv[nodes]
            mixed = attend(block.attn, qkv)  # (M, W)
            if i == len(blocks) - 1:  # after the last layer's attention only the leaves are needed
                leaves = _send(leaf, device)
                x, mixed = x[leaves], mixed[leaves]
            mixed = _linear(mixed, block.attn.out_proj.weight, block.attn.out_proj.bias)
            if hasattr(block, "ln_attn"):
                mixed = block.ln_attn(mixed)
            x = x + block.ls_1(mixed)
            x = x + block.ls_2(_mlp(block.mlp, block.ln_2(x)))
        x = module.ln_final(x)
        projection = module.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return x[_send(back, device)]

    def _embed(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        dtype = self.module.transformer.get_cast_dtype()
        return self.module.token_embedding(token).to(dtype) + self.module.positional_embedding[position].to(dtype)


class _Attend:
    """Attention of each node of a trie to its ancestors and itself; the mask is the same in every layer."""

    def __init__(self, trie: Trie, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        blocks = AttentionBlocks.build(trie, BLOCK)
        self.count, self.block, self.keys = blocks.allowed.shape
        self.nodes = len(trie)
        self.query, self.key = _send(blocks.query.reshape(-1), device), _send(blocks.key.reshape(-1), device)
        allowed = _send(blocks.allowed, device)[:, None]  # the same for all heads
        self.mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)

    def __call__(self, attn: Any, qkv: torch.Tensor) -> torch.Tensor:
        """Compute the input of out_proj (M, W) from queries, keys and values (M, 3, H, W/H)."""
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
    """Compute queries, keys and values (M, 3, H, W/H) of nodes (M, W)."""
    import torch

    qkv = _linear(x, attn.in_proj_weight, attn.in_proj_bias).view(len(x), 3, attn.num_heads, -1)
    if hasattr(attn, "ln_q"):
        q, k, v = qkv.unbind(1)
        qkv = torch.stack([attn.ln_q(q), attn.ln_k(k), v], dim=1)
    return qkv


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply a block's MLP to nodes (M, W)."""
    from torch import nn

    fused = type(mlp.gelu) is nn.GELU
    hidden = _linear(x, mlp.c_fc.weight, mlp.c_fc.bias, mlp.gelu.approximate if fused else None)  # (M, 4W)
    if not fused:
        hidden = mlp.gelu(hidden)
    if hasattr(mlp, "ln"):
        hidden = mlp.ln(hidden)
    return _linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gelu: str | None = None) -> torch.Tensor:
    """Compute F.linear followed by F.gelu with the given approximation.

    In float32 on an x86 CPU both are one call of oneDNN, which torch itself only uses for bfloat16. For these shapes it
    is 10 to 20 % faster than MKL, and a third with the GELU.
    """
    import torch
    import torch.nn.functional as F

    if _onednn(x.device.type, x.dtype, weight.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], gelu or "")
    x = F.linear(x, weight, bias)
    return F.gelu(x, approximate=gelu) if gelu else x


def _onednn(device: str, *dtypes: torch.dtype) -> bool:
    import torch

    return (
        device == "cpu"
        and set(dtypes) == {torch.float32}
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _send(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device without waiting for the copy."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def recognise(model: Any) -> Tower | str:
    """Return the model's causal text tower, or the reason why prefixes cannot be shared.

    Types are compared exactly, because a subclass, a wrapper or a quantised layer may compute something else.

    Args:
        model: An open_clip model.
    """
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer, Transformer

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
    return _unknown_part(module) or Tower(module, pool, eos)


def _unknown_part(module: Any) -> str | None:
    """Return which part of a text tower is not known to process rows independently, or None."""
    from torch import nn

    known = _acting_by_row()
    for part in (module.token_embedding, module.ln_final, module.text_projection):
        if part is not None and type(part) not in {*known, nn.Embedding, nn.Parameter}:
            return f"its text tower has a {type(part).__name__}"
    for i, block in enumerate(module.transformer.resblocks):
        if reason := _unknown(block, known):
            return f"layer {i} of its text tower has {reason}"
    return None


def _causal(mask: torch.Tensor | None) -> bool:
    import torch

    return mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))


def _acting_by_row() -> set[type]:
    """Return the types of modules that process each row of their input independently."""
    from open_clip.transformer import LayerNorm, LayerNormFp32, LayerScale, QuickGELU
    from torch import nn
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    linear: set[type] = {nn.Linear, NonDynamicallyQuantizableLinear, LayerScale}
    return linear | {nn.LayerNorm, LayerNorm, LayerNormFp32, nn.GELU, QuickGELU, nn.Identity, nn.Sequential}


def _unknown(block: Any, known: set[type]) -> str | None:
    """Return what in a residual block, apart from attention, is not known to process rows independently, or None."""
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
    if [name for name, _ in block.mlp.named_children() if name != "ln"] != ["c_fc", "gelu", "c_proj"]:
        return "an unusual MLP"
    for part in block.modules():
        if part is not block and part is not attn and type(part) not in known:
            return f"a {type(part).__name__}"
    return None


Floats = NDArray[np.float32]

NODES = {"cpu": 2048, "cuda": 32768}  # trie nodes per chunk; on a CPU the MLP's hidden rows then fit into the cache
TEXTS = 16384  # number of texts tokenized at a time
PLAIN_BATCH = 64


class TextEncoder:
    """Encodes texts to unit vectors with the weights, precision and device of an open_clip model.

    >>> encoder = TextEncoder(model, open_clip.get_tokenizer("RN50"))
    >>> encoder.encode(["a photo of a cat.", "a photo of a car."]).shape
    (2, 1024)

    If prefixes cannot be shared (`shared` is False), the model's own `encode_text` is used; `why_plain` says why.

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
        # sorted texts share prefixes with their neighbours
        rows = np.array(sorted(first.values(), key=lambda i: texts[i].lower()))
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
