"""Runs the causal text tower of an open_clip model on the nodes of a trie of token prefixes."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import InputError
from promptsearch.evaluators.encoding.prefix_trie import AttentionBlocks, Ints, Trie

if TYPE_CHECKING:
    import torch

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
