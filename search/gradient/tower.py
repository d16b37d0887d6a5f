"""Encodes prompts that mix tokens and learnt vectors with an open_clip text tower, differentiable in the vectors.

A prompt is a list of integers: a token id stands for its frozen embedding, and ~j (a negative number) for the learnt
vector j. Positions after the end token are not computed, and the common beginning of all prompts is computed once:
with 16 shared context vectors before ten class names, a third of the positions remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptsearch.errors import InputError

if TYPE_CHECKING:
    import torch

Prompt = Sequence[int]


@dataclass(frozen=True)
class Layout:
    """Prompts as indices into the table [frozen; learnt], padded to the longest prompt."""

    frozen: torch.Tensor  # (U, W) embeddings of the tokens that occur
    rows: torch.Tensor  # (n, L) rows of the table
    last: torch.Tensor  # (n,) position of the end token
    shared: int  # P leading positions that are the same in all prompts, 0 if they are not computed apart
    kept: torch.Tensor  # (M,) which of the n (L - P) other positions, row by row, are up to the end token of a prompt
    padded: torch.Tensor  # (n (L - P),) index into `kept` of every such position, of the end token for padding
    learnt: int  # number of learnt vectors that the prompts refer to


class TextTower:
    """Encodes prompts that contain learnt vectors.

        tower = TextTower(model, tokenizer)
        layout = tower.layout([[~0, ~1, *tower.tokens(f"{name}.")] for name in ("cat", "dog")])
        features = tower.encode(layout, torch.zeros(2, tower.width, requires_grad=True))  # (2, D)

    Args:
        model: An open_clip model.
        tokenizer: The model's tokenizer.

    Raises:
        InputError: The text tower is not causal, or not one of open_clip's own.
    """

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Any]) -> None:
        self.module, self.pool, self.eos = _recognise(model)
        self.tokenizer = tokenizer
        self.width = int(self.module.token_embedding.embedding_dim)
        self.context_length = int(self.module.context_length)
        ids = [int(i) for i in tokenizer([""])[0]]
        end = self._pooled(ids)
        self.start, self.end = ids[:end], ids[end]
        self._plain = all(_plain(block) for block in self.module.transformer.resblocks)

    @property
    def device(self) -> torch.device:
        """The device of the text tower."""
        return self.module.positional_embedding.device

    def tokens(self, text: str) -> list[int]:
        """Tokenize a text.

        Returns:
            Token ids without start and end token. Long texts are not truncated if the tokenizer has `encode`.
        """
        if (encode := getattr(self.tokenizer, "encode", None)) is not None:
            return [int(i) for i in encode(text)]
        ids = [int(i) for i in self.tokenizer([text])[0]]
        return ids[len(self.start) : self._pooled(ids)]

    def embeddings(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return a copy of the embeddings (n, W) of n tokens."""
        import torch

        return self.module.token_embedding.weight.detach()[torch.tensor(list(tokens), device=self.device)].clone()

    def layout(self, prompts: Sequence[Prompt], names: Sequence[str] = ()) -> Layout:
        """Prepare prompts for `encode`.

        Args:
            prompts: The prompts without start and end token.
            names: The class name of each prompt, for error messages.

        Raises:
            InputError: A prompt is longer than the model's context length.
        """
        import torch

        full = [[*self.start, *p, self.end] for p in prompts]
        for i, (p, own) in enumerate(zip(full, prompts, strict=True)):
            if len(p) > self.context_length:
                vectors = sum(t < 0 for t in own)
                of = f" of class {names[i]!r}" if names else ""
                raise InputError(
                    f"the prompt{of} needs {len(p)} positions ({vectors} learnt vectors, "
                    f"{len(own) - vectors} tokens, start and end), but the model's context length is "
                    f"{self.context_length}; use fewer vectors or a shorter text"
                )
        known = sorted({t for p in full for t in p if t >= 0})
        row = {t: i for i, t in enumerate(known)}
        learnt = 1 + max((~t for p in full for t in p if t < 0), default=-1)
        longest = max(map(len, full))
        rows = [[len(known) + ~t if t < 0 else row[t] for t in p] + [0] * (longest - len(p)) for p in full]
        shared = min(map(len, full)) - 1  # the end token is not shared, because its output is pooled
        shared = next((i for i in range(shared) if len({p[i] for p in full}) > 1), shared)
        shared = shared if len(full) > 1 and self._plain else 0
        last = torch.tensor([len(p) - 1 for p in full], device=self.device)
        real = torch.arange(shared, longest, device=self.device) <= last[:, None]  # (n, L - P)
        return Layout(
            self.embeddings(known),
            torch.tensor(rows, device=self.device),
            last,
            shared,
            real.flatten().nonzero().flatten(),
            real.flatten().cumsum(0) - 1,
            learnt,
        )

    def encode(self, layout: Layout, learnt: torch.Tensor | None = None) -> torch.Tensor:
        """Encode prompts to unit vectors.

        The result equals that of open_clip's `encode_text` if every learnt vector is the embedding of a token.

        Args:
            layout: The n prompts, from `layout`.
            learnt: (V, W) learnt vectors, to which ~0 ... ~(V - 1) refer.

        Returns:
            (n, D) unit vectors.
        """
        import torch
        import torch.nn.functional as F

        module = self.module
        dtype = module.transformer.get_cast_dtype()
        table = layout.frozen if learnt is None else torch.cat([layout.frozen, learnt.to(layout.frozen.dtype)])
        position = module.positional_embedding[: layout.rows.shape[1]].to(dtype)  # (L, W)
        if layout.shared:
            x = self._run_shared(layout, table.to(dtype), position)
        else:
            x = F.embedding(layout.rows, table).to(dtype) + position  # (n, L, W)
            n, length, _ = x.shape
            x = module.transformer(x, attn_mask=module.attn_mask[:length, :length])
            x = x[torch.arange(n, device=x.device), layout.last]  # (n, W)
        x = module.ln_final(x)
        projection = module.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
        return F.normalize(x.float(), dim=-1)

    def _run_shared(self, layout: Layout, table: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the outputs (n, W) of the end tokens, computing the P shared first positions once for all prompts.

        Everything but the attention is computed for P + M rows: the shared positions, and the M others of all prompts
        up to their end tokens. For the attention these M are padded to S positions a prompt.
        """
        import torch
        import torch.nn.functional as F

        module, p = self.module, layout.shared
        n, length = layout.rows.shape
        rest = length - p
        head = F.embedding(layout.rows[0, :p], table) + position[:p]  # (P, W)
        tail = F.embedding(layout.rows[:, p:].flatten()[layout.kept], table) + position[p + layout.kept % rest]
        x = torch.cat([head, tail])  # (P + M, W): every distinct position once
        ends = layout.padded[rest - 1 :: rest]  # (n,) rows of the end tokens among the M
        mask = module.attn_mask[p:length, :length].to(x.dtype)  # (S, P + S)
        blocks = module.transformer.resblocks
        for i, block in enumerate(blocks):
            attn = block.attn
            qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (P + M, 3 W)
            qkv = qkv.unflatten(1, (3, attn.num_heads, -1))
            q, k, v = qkv[:p].permute(1, 2, 0, 3).unsqueeze(1)  # (1, H, P, d) each
            own_q, own_k, own_v = (
                qkv[p:].index_select(0, layout.padded).unflatten(0, (n, rest)).permute(2, 0, 3, 1, 4)
            )  # (n, H, S, d) each
            keys = torch.cat([k.expand(n, -1, -1, -1), own_k], dim=2)  # (n, H, P + S, d)
            values = torch.cat([v.expand(n, -1, -1, -1), own_v], dim=2)
            if i == len(blocks) - 1:  # of the last layer's results only those of the end tokens are needed
                x, own_q = x[p + ends], qkv[p + ends, 0].unsqueeze(2)  # (n, W), (n, H, 1, d)
                mask = mask[layout.last - p][:, None, None]  # (n, 1, 1, P + S)
                mixed = F.scaled_dot_product_attention(own_q, keys, values, attn_mask=mask).flatten(1)  # (n, W)
            else:
                first = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]  # (H, P, d)
                second = F.scaled_dot_product_attention(own_q, keys, values, attn_mask=mask)  # (n, H, S, d)
                second = second.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, layout.kept)
                mixed = torch.cat([first.transpose(0, 1).flatten(1), second])  # (P + M, W)
            x = x + block.ls_1(attn.out_proj(mixed))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        return x

    def _pooled(self, ids: list[int]) -> int:
        """Return the position whose output becomes the text's vector, as open_clip's text_global_pool chooses it."""
        return ids.index(max(ids)) if self.pool == "argmax" else ids.index(self.eos) if self.eos in ids else 0


def split_template(tower: TextTower, before: str, name: str, after: str) -> tuple[list[int], list[int], list[int]]:
    """Tokenize a filled template in three parts.

    Args:
        tower: Tokenizes the text.
        before: Text before the class name.
        name: The class name.
        after: Text after the class name.

    Returns:
        Token ids of the three parts.

    Raises:
        InputError: The name shares a token with the text around it, so that it cannot be replaced alone.
    """
    parts = tower.tokens(before), tower.tokens(name), tower.tokens(after)
    if [t for part in parts for t in part] != tower.tokens(before + name + after):
        raise InputError(
            f"in {before + name + after!r} the class name {name!r} shares a token with the text around it; "
            "put spaces around {} in the template"
        )
    if not parts[1]:
        raise InputError(f"the class name {name!r} has no tokens; write it in letters")
    return parts


def _recognise(model: Any) -> tuple[Any, str, int]:
    """Return the text module of an open_clip model, its kind of pooling and the id of its end token."""
    import torch
    from open_clip.transformer import TextTransformer

    module = getattr(model, "text", model)
    kind = type(module).__name__
    if not isinstance(module, TextTransformer) and not all(
        hasattr(module, a) for a in ("transformer", "token_embedding", "positional_embedding", "ln_final")
    ):
        raise InputError(
            f"the text tower of this model is a {kind}, which cannot read learnt vectors; use another model"
        )
    pool = getattr(module, "pool_type", None) or getattr(module, "text_pool_type", "argmax")
    eos = getattr(module, "eos_id", None) or getattr(module, "text_eos_id", None)
    mask = module.attn_mask
    causal = mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))
    if pool not in ("argmax", "eos") or not causal or getattr(module, "cls_emb", None) is not None:
        raise InputError(
            f"learnt vectors need a causal text tower with an end token, as CLIP's, and that of this model ({kind}) is "
            "not one; use another model"
        )
    return module, pool, int(eos or 0)


def _plain(block: Any) -> bool:
    """Return whether a residual block is CLIP's standard one, whose attention `_run_shared` can compute."""
    from open_clip.transformer import ResidualAttentionBlock
    from torch import nn

    attn = block.attn
    return (
        type(block) is ResidualAttentionBlock
        and type(attn) is nn.MultiheadAttention
        and attn.in_proj_weight is not None
        and attn.bias_k is None
        and not attn.add_zero_attn
        and attn.dropout == 0
        and not hasattr(block, "ln_1_kv")
    )
