"""Growing ensembles by one template scores what scoring them one by one does."""

from __future__ import annotations

import numpy as np
import pytest

from promptsearch.evaluators.scoring import TemplateTable


def table(templates: int, classes: int, pictures: int, dim: int = 16, memory: int | None = None) -> TemplateTable:
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    t = TemplateTable(unit(pictures, dim), rng.integers(0, classes, pictures), 100.0, memory)
    t.add(unit(templates, classes, dim))
    return t


@pytest.mark.parametrize(("classes", "pictures"), [(3, 7), (10, 160), (100, 400)])
def test_growing_equals_scoring(classes: int, pictures: int) -> None:
    t = table(30, classes, pictures)
    parents = np.array([[0, 5, 9], [2, 3, 4]])
    accuracy, xent = t.grow(parents)
    for p, parent in enumerate(parents):
        others = [i for i in range(30) if i not in parent]
        sets = np.array([sorted([*parent, i]) for i in others])
        a, x = t.score(sets)
        np.testing.assert_allclose(accuracy[p, others], a, atol=1.5 / pictures)  # a picture on the very edge
        np.testing.assert_allclose(xent[p, others], x, rtol=1e-5, atol=1e-5)


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
    for a, b in zip(whole.grow(index[:2]), small.grow(index[:2]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2, rtol=1e-5)


def test_a_table_that_outgrows_its_memory_lets_go_of_logits() -> None:
    t = table(4, 10, 160, memory=100_000)
    assert t.kept
    before = t.score(np.array([[0, 1]]))
    t.add(t.vectors([0, 1, 2, 3]))
    t.add(t.vectors([0, 1, 2, 3]))
    assert not t.kept
    np.testing.assert_allclose(t.score(np.array([[0, 1], [4, 5]]))[1], [before[1][0]] * 2, rtol=1e-5)
