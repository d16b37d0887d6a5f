"""Runs a causal language model on rows of tokens and reads their common prefix only once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

#: Name under which `_attend` is registered with transformers.
ATTENTION = "promptsearch"
#: Keys and values of each layer.
Layers = list[tuple[Any, Any]]


class _Store:
    """Keys and values per layer: (1, G, P, D) of a shared prefix, and (B, G, S, D) of the rows after it."""

    def __init__(self, prefix: Layers) -> None:
        self.prefix = prefix
        self.rows: Layers = []

    def grow(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        import torch

        if layer == len(self.rows):
            self.rows.append((key, value))
        else:
            keys, values = self.rows[layer]
            self.rows[layer] = (torch.cat([keys, key], 2), torch.cat([values, value], 2))
        return self.rows[layer]


_ACTIVE: ContextVar[_Store | None] = ContextVar("store", default=None)


class Reader:
    """Computes the next-token logits of rows of tokens, first for whole rows and then token by token.

        reader = Reader(model, pad=0)
        logits = reader.begin([[5, 6, 7], [5, 6, 9]])  # (2, V)
        logits = reader.go_on([8, 8])                  # (2, V)

    The common prefix of the rows is read once, and all rows attend to the same copy of its keys and values. A prefix
    given to `hold` is kept for later calls of `begin`. A model whose attention cannot be replaced (because it does not
    support transformers' attention interface) reads every row completely at every step.

    Args:
        model: A causal language model of transformers.
        pad: Token that fills up shorter rows.
        share: Whether the common prefix is read once, instead of once per row.

    Attributes:
        shared: Number of tokens in the common prefix of the current rows.
        read: Number of tokens that the model has read so far.
    """

    def __init__(self, model: Any, pad: int, *, share: bool = True) -> None:
        self.model, self.pad, self.share = model, pad, share
        self.shared = self.read = 0
        self._held: tuple[int, ...] = ()
        self._layers: Layers | None = None  # keys and values of the held prefix, once it is read
        self._caching = _replace_attention(model)
        self._rows: list[list[int]] = []
        self._store = _Store([])
        self._mask: Any = None  # (B, S) which keys of a row are no padding
        self._at: Any = None  # (B,) next position of each row

    def hold(self, tokens: Sequence[int]) -> None:
        """Keep the keys and values of a prefix, once it is read, for all later rows that begin with it.

        Args:
            tokens: The prefix; it replaces the one that is held.
        """
        if tuple(tokens) != self._held:
            self._held, self._layers = tuple(tokens), None

    def begin(self, rows: Sequence[Sequence[int]]) -> Any:
        """Read rows of tokens.

        Args:
            rows: At least one token for each of B rows.

        Returns:
            (B, V) logits of the next token of each row.
        """
        import torch

        if not self._caching:
            self._rows = [list(r) for r in rows]
            return self._whole()
        prefix, p = self._read_prefix(rows)
        self.shared = p
        rest = [list(r[p:]) for r in rows]
        width = max(map(len, rest))
        device = self.model.device
        ids = torch.tensor([[self.pad] * (width - len(r)) + r for r in rest], device=device)  # (B, S)
        own = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rest], device=device)  # (B, S)
        at = (own.cumsum(1) - 1).clamp(min=0) + p  # (B, S)
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mask = causal & own.bool()[:, None, None, :]  # (B, 1, S, S)
        self._store = _Store(prefix)
        logits = self._forward(ids, at, mask)[:, -1]  # (B, V)
        self._mask, self._at = own.bool(), at[:, -1] + 1
        self.read += sum(map(len, rest))
        return logits.float()

    def go_on(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each row.

        Args:
            tokens: (B,) the tokens.

        Returns:
            (B, V) logits of the next token of each row.
        """
        import torch

        if not self._caching:
            for row, token in zip(self._rows, tokens, strict=True):
                row.append(token)
            return self._whole()
        self.read += len(tokens)
        ids = torch.tensor(tokens, device=self.model.device)[:, None]  # (B, 1)
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        logits = self._forward(ids, self._at[:, None], self._mask[:, None, None, :])[:, -1]
        self._at = self._at + 1
        return logits.float()

    def select(self, rows: Sequence[int]) -> None:
        """Continue with some of the current rows.

        Args:
            rows: Indices of the rows; a repeated index duplicates its row.
        """
        import torch

        if not self._caching:
            self._rows = [list(self._rows[i]) for i in rows]
            return
        index = torch.tensor(rows, device=self.model.device)
        self._mask, self._at = self._mask[index], self._at[index]
        self._store.rows = [(k[index], v[index]) for k, v in self._store.rows]

    def rate(self, context: Sequence[int], texts: Sequence[Sequence[int]]) -> Any:
        """Return the log-likelihood of texts that follow a context.

        For the tokens x_1, ..., x_L of a text: sum_t log p(x_t | context, x_1, ..., x_{t-1}).

        Args:
            context: At least one token; the context is read once.
            texts: The tokens of each of n texts.

        Returns:
            (n, 2): log-likelihood in nats and number of tokens of each text.
        """
        import torch

        rows = [[*context, *t] for t in texts]
        head = 0
        if self._caching:
            self.hold(context[:-1])
            prefix, head = self._read_prefix([list(context)])
        rest = [r[head:] for r in rows]
        width = max(map(len, rest))
        device = self.model.device
        ids = torch.tensor([r + [self.pad] * (width - len(r)) for r in rest], device=device)  # (B, S)
        if self._caching:
            self._store = _Store(prefix)
            at = (torch.arange(width, device=device) + head)[None].expand(len(rows), -1)
            mask = torch.ones(1, 1, width, width, dtype=torch.bool, device=device).tril()
            logits = self._forward(ids, at, mask)
        else:
            with torch.inference_mode():
                logits = self.model(input_ids=ids, use_cache=False).logits
        self.read += sum(map(len, rest))
        logs = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # (B, S - 1)
        result = [
            (float(logs[i, len(r) - len(t) - 1 : len(r) - 1].double().sum()), len(t))
            for i, (r, t) in enumerate(zip(rest, texts, strict=True))
        ]
        return torch.tensor(result, dtype=torch.float64)

    def _read_prefix(self, rows: Sequence[Sequence[int]]) -> tuple[Layers, int]:
        """Return the keys and values of the rows' common prefix and its length, less than that of every row."""
        held, n = self._held, len(self._held)
        if not self.share:
            return [], 0
        if held and all(len(r) > n and tuple(r[:n]) == held for r in rows):
            if self._layers is None:
                self._layers = self._read(held)
            return self._layers, n
        common = common_beginning(rows)
        return (self._read(common), len(common)) if common else ([], 0)

    def _read(self, tokens: Sequence[int]) -> Layers:
        import torch

        self._store = _Store([])
        ids = torch.tensor([list(tokens)], device=self.model.device)  # (1, P)
        mask = torch.ones(1, 1, len(tokens), len(tokens), dtype=torch.bool, device=ids.device).tril()
        self._forward(ids, torch.arange(len(tokens), device=ids.device)[None], mask)
        self.read += len(tokens)
        return self._store.rows

    def _forward(self, ids: Any, at: Any, mask: Any) -> Any:
        import torch

        with torch.inference_mode(), _using(self._store):
            return self.model(input_ids=ids, position_ids=at, attention_mask=mask, use_cache=False).logits

    def _whole(self) -> Any:
        import torch

        width = max(map(len, self._rows))
        self.read += sum(map(len, self._rows))
        device = self.model.device
        ids = torch.tensor([[self.pad] * (width - len(r)) + r for r in self._rows], device=device)  # (B, L)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in self._rows], device=device)
        with torch.inference_mode():
            return self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1].float()


def common_beginning(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest common prefix of the rows that leaves each row at least one token.

    Args:
        rows: The tokens of each row.
    """
    most = min(map(len, rows)) - 1
    first, last = min(map(list, rows)), max(map(list, rows))  # in sorted order: these share the least
    n = next((i for i in range(most) if first[i] != last[i]), most)
    return list(first[:n])


@contextlib.contextmanager
def _using(store: _Store) -> Iterator[None]:
    token = _ACTIVE.set(store)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def _replace_attention(model: Any) -> bool:
    """Make a model use `_attend`, and return whether it supports that."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend)
    if not getattr(model, "_supports_attention_backend", False):
        return False
    try:
        model.set_attn_implementation(ATTENTION)
    except (ValueError, AttributeError, NotImplementedError):
        return False
    return bool(model.config._attn_implementation == ATTENTION)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **kw: Any
) -> tuple[Any, None]:
    """Attend from (B, H, L, D) queries to a shared prefix P and to the rows' own keys S, with one softmax over both.

    softmax(scale [Q K_P^T, Q K_S^T]) [V_P; V_S]

    The queries of all rows are multiplied with K_P as one matrix, so the prefix is not copied for each row. Without an
    active store (when `LocalModel` rates texts) this is plain causal attention.

    Returns:
        The output (B, L, H, D), and None for the weights.
    """
    import torch

    b, h, length, d = query.shape
    groups = key.shape[1]
    scale = d**-0.5 if scaling is None else scaling
    store = _ACTIVE.get()
    if store is None and attention_mask is None and kw.get("softcap") is None:
        key, value = (x.repeat_interleave(h // groups, 1) for x in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return out.transpose(1, 2), None
    if attention_mask is None:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    keys, values = (key, value) if store is None else store.grow(module.layer_idx, key, value)  # (B, G, S, D)
    r = h // groups
    q = (query * scale).reshape(b, groups, r * length, d)
    scores = (q @ keys.transpose(2, 3)).view(b, groups, r, length, -1)  # (B, G, R, L, S)
    prefix = store.prefix[module.layer_idx] if store is not None and store.prefix else None
    parts = [_capped(scores, kw).masked_fill(~attention_mask[:, :, None], float("-inf"))]
    if prefix is not None:
        flat = q.transpose(0, 1).reshape(groups, b * r * length, d)
        shared = flat @ prefix[0][0].transpose(1, 2)  # (G, B R L, P)
        shared = shared.view(groups, b, r, length, -1).transpose(0, 1)  # (B, G, R, L, P)
        parts.insert(0, _capped(shared, kw))
    weights = torch.cat(parts, -1).softmax(-1, dtype=torch.float32).to(query.dtype)  # (B, G, R, L, P + S)
    weights = weights.nan_to_num(0)  # queries of padding attend to nothing
    own = weights[..., -keys.shape[2] :].reshape(b, groups, r * length, -1)
    out = own @ values  # (B, G, R L, D)
    if prefix is not None:
        to_prefix = weights[..., : -keys.shape[2]].transpose(0, 1).reshape(groups, b * r * length, -1)
        out = out + (to_prefix @ prefix[1][0]).view(groups, b, r * length, d).transpose(0, 1)
    return out.reshape(b, h, length, d).transpose(1, 2), None


def _capped(scores: Any, kw: dict[str, Any]) -> Any:
    """Apply the model's soft cap to attention scores, if it has one: cap * tanh(scores / cap)."""
    cap = kw.get("softcap")
    return scores if cap is None else cap * (scores / cap).tanh()
