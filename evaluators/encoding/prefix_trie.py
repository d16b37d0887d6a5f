"""The trie of token prefixes, each of which a causal text tower computes once, and attention between its nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
