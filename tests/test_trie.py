"""The trie of token prefixes holds every prefix once, and its attention blocks reach exactly the ancestors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.evaluators.encoding.text_encoder import AttentionBlocks, Trie, prefix_order

CONTEXT = 7
sequence = st.lists(st.integers(0, 2), min_size=1, max_size=CONTEXT)  # 0 is a token too, as "!" is in CLIP
batches = st.lists(sequence, min_size=1, max_size=25).flatmap(
    lambda texts: st.lists(st.sampled_from(texts), max_size=5).map(lambda again: texts + again)
)


def padded(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((len(texts), CONTEXT), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids, np.array([len(text) for text in texts])


def prefix_of(trie: Trie, node: int) -> tuple[int, ...]:
    tokens = []
    while node >= 0:
        tokens.append(int(trie.token[node]))
        node = int(trie.parent[node])
    return tuple(reversed(tokens))


@given(batches)
@settings(deadline=None)
def test_every_distinct_prefix_is_one_node(texts: list[list[int]]) -> None:
    trie = Trie.build(*padded(texts))
    prefixes = [prefix_of(trie, node) for node in range(len(trie))]
    assert len(set(prefixes)) == len(prefixes)
    assert set(prefixes) == {tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)}
    assert [prefixes[leaf] for leaf in trie.leaf] == [tuple(text) for text in texts]
    assert [len(prefix) - 1 for prefix in prefixes] == trie.depth.tolist()


@given(batches)
@settings(deadline=None)
def test_nodes_are_depth_first_with_subtrees_in_one_piece(texts: list[list[int]]) -> None:
    trie = Trie.build(*padded(texts))
    prefixes = [prefix_of(trie, node) for node in range(len(trie))]
    assert (trie.parent < np.arange(len(trie))).all()
    for node, prefix in enumerate(prefixes):
        below = [other for other, longer in enumerate(prefixes) if longer[: len(prefix)] == prefix]
        assert below == list(range(node, trie.end[node]))


@given(batches, st.integers(1, 12))
@settings(deadline=None)
def test_attention_blocks_reach_each_ancestor_once(texts: list[list[int]], size: int) -> None:
    trie = Trie.build(*padded(texts))
    blocks = AttentionBlocks.build(trie, size)
    assert blocks.query.reshape(-1)[: len(trie)].tolist() == list(range(len(trie)))
    for query, keys, allowed in zip(blocks.query, blocks.key, blocks.allowed, strict=True):
        for node, mask in zip(query, allowed, strict=True):
            path, above = [], int(node)
            while above >= 0:
                path.append(above)
                above = int(trie.parent[above])
            assert sorted(keys[mask].tolist()) == sorted(path)


@given(batches)
@settings(deadline=None)
def test_neighbours_in_prefix_order_count_their_nodes(texts: list[list[int]]) -> None:
    ids, lengths = padded(texts)
    order, shared = prefix_order(ids, lengths)
    assert [texts[i] for i in order] == sorted(texts)
    assert (lengths[order] - shared).sum() == len(Trie.build(ids, lengths))
    half = order[len(order) // 2 :]
    nodes = lengths[half[0]] + (lengths[order] - shared)[len(order) // 2 + 1 :].sum()
    assert nodes == len(Trie.build(ids[half], lengths[half]))


@given(st.lists(st.lists(st.integers(0, 49407), min_size=77, max_size=77), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_texts_that_fill_the_context(texts: list[list[int]]) -> None:
    trie = Trie.build(np.array(texts), np.full(len(texts), 77))
    assert [prefix_of(trie, leaf) for leaf in trie.leaf] == [tuple(text) for text in texts]
    assert trie.depth.max() == 76


def test_no_texts_make_no_nodes() -> None:
    trie = Trie.build(np.empty((0, CONTEXT), dtype=np.int64), np.empty(0, dtype=np.int64))
    assert len(trie) == 0 and len(trie.leaf) == 0


def test_padding_is_no_node_and_a_text_may_end_inside_another() -> None:
    trie = Trie.build(np.array([[1, 5, 9, 0], [1, 6, 9, 0], [1, 5, 0, 0]]), np.array([3, 3, 2]))
    assert trie.token.tolist() == [1, 5, 9, 6, 9]
    assert trie.parent.tolist() == [-1, 0, 1, 0, 3]
    assert trie.leaf.tolist() == [2, 4, 1]
