"""The table of templates scores the same whatever its memory, its threads and its batches."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.scoring.template_table import TemplateTable


def table(templates: int, classes: int, pictures: int, dim: int = 16, memory: int | None = None) -> TemplateTable:
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    t = TemplateTable(unit(pictures, dim), rng.integers(0, classes, pictures), 100.0, memory)
    t.add(unit(templates, classes, dim))
    return t


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    many = table(200, 10, 160)
    one = table(200, 10, 160)
    monkeypatch.setattr(many, "_cores", 4)
    monkeypatch.setattr(one, "_cores", 1)
    index = np.random.default_rng(1).integers(0, 200, (500, 3))
    for a, b in zip(many.score(index), one.score(index), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_table_that_does_not_fit_its_memory_scores_the_same() -> None:
    whole, small = table(40, 10, 160), table(40, 10, 160, memory=1000)
    assert whole.kept and not small.kept
    index = np.random.default_rng(1).integers(0, 40, (50, 4))
    for a, b in zip(whole.score(index), small.score(index), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2, rtol=1e-5)


def test_without_logits_a_score_is_the_same_to_the_bit_in_any_batch() -> None:
    t = table(60, 6, 90, memory=1000)
    t._recent.room = 5  # so that what was computed is forgotten and computed again
    index = np.array([sorted(np.random.default_rng(i).choice(60, 4, replace=False)) for i in range(80)])
    together = t.score(index)
    for i in range(79, -1, -1):
        alone = t.score(index[i : i + 1])
        assert (alone[0][0], alone[1][0]) == (together[0][i], together[1][i])


def test_logits_are_kept_where_only_the_gram_matrices_do_not_fit() -> None:
    whole, half = table(40, 10, 20), table(40, 10, 20, memory=70_000)
    assert half.kept and not half._paired and whole._paired
    index = np.random.default_rng(1).integers(0, 40, (50, 4))
    for a, b in zip(whole.score(index), half.score(index), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2, rtol=1e-5)


def test_a_disk_without_room_for_vectors_says_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(PromptSearchError, match=r"no room for .* GB of text vectors \(No space.*TMPDIR"):
        table(40, 10, 160, memory=1000)


def test_running_out_of_memory_says_what_to_lower() -> None:
    t = table(4, 10, 160, memory=10**15)
    with pytest.raises(PromptSearchError, match="memory ran out .*use a smaller --memory"):
        t.add(np.broadcast_to(t.vectors([0]), (5 * 10**11, 10, 16)))  # numpy's own MemoryError


def test_a_table_that_outgrows_its_memory_lets_go_of_logits() -> None:
    t = table(4, 10, 160, memory=100_000)
    assert t.kept
    before = t.score(np.array([[0, 1]]))
    t.add(t.vectors([0, 1, 2, 3]))
    t.add(t.vectors([0, 1, 2, 3]))
    assert not t.kept
    np.testing.assert_allclose(t.score(np.array([[0, 1], [4, 5]]))[1], [before[1][0]] * 2, rtol=1e-5)


def test_tables_that_share_what_they_know_do_not_mistake_templates_of_one_for_the_others() -> None:
    vectors = table(14, 5, 40).vectors(range(14))
    whole = table(8, 5, 40)
    whole.add(vectors[8:10])  # makes room for sixteen
    part = whole.part(np.arange(20))
    whole.add(vectors[10:])
    part.score(np.array([[3, 4], [3, 5], [3, 6]]))  # the part learns template 3's products with ten templates
    fresh = table(8, 5, 40)
    fresh.add(vectors[8:])
    index = np.array([[3, 11], [3, 12], [4, 13]])
    for ours, theirs in zip(whole.score(index), fresh.score(index), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_norms_are_the_lengths_of_summed_vectors(k: int, weighted: bool) -> None:
    t = table(9, 3, 12)
    rng = np.random.default_rng(1)
    index = np.array([rng.choice(9, k, replace=False) for _ in range(20)])
    weights = rng.uniform(0.1, 2, index.shape).astype(np.float32) if weighted else None
    t.score(index, weights)  # the table learns these sets' products
    summed = np.einsum("sk,skcd->scd", np.ones(index.shape) if weights is None else weights, t._vectors[index])
    np.testing.assert_allclose(t._gram_norms(index, weights), np.linalg.norm(summed, axis=-1), rtol=1e-6)


def test_a_part_scores_as_a_table_of_its_pictures_from_contiguous_logits() -> None:
    whole = table(8, 5, 40)
    at = np.random.default_rng(2).integers(0, 40, 40)
    part = whole.part(at)
    assert part._logits.flags.c_contiguous  # sums over strided rows take several times as long
    back = np.empty(40, np.intp)
    back[whole.order] = np.arange(40)
    fresh = TemplateTable(whole.features[back][at], whole.labels[back][at], 100.0)
    fresh.add(whole.vectors(range(8)))
    index = np.array([[a, b, 7] for a in range(3) for b in range(3, 7)])
    for ours, theirs in zip(part.score(index), fresh.score(index), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
