"""Few-shot draws: stratified, nested, disjoint, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.task import draw

NAMES = ("cat", "dog", "owl")
LABELS = np.arange(90) % 3


def test_every_class_has_its_shots_and_the_parts_never_overlap() -> None:
    drawn = draw(LABELS, 8, 0, class_names=NAMES)
    assert LABELS[drawn.support].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert LABELS[drawn.validation].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len({*drawn.support.tolist(), *drawn.validation.tolist()}) == 36


@given(
    counts=st.lists(st.integers(4, 30), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_more_shots_contain_fewer(counts: list[int], order, seed: int, data: st.DataObject) -> None:
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    order.shuffle(labels)
    most = min(counts) // 2
    few, many = sorted(data.draw(st.tuples(st.integers(1, most), st.integers(1, most))))
    names = [f"class {c}" for c in range(len(counts))]
    small, large = (draw(np.array(labels), k, seed, class_names=names) for k in (few, many))
    assert set(small.support) <= set(large.support)
    assert set(small.validation) <= set(large.validation)
    assert not set(large.support) & set(large.validation)
    assert np.bincount(np.array(labels)[large.support]).tolist() == [many] * len(counts)
    assert np.bincount(np.array(labels)[large.validation]).tolist() == [min(many, 4)] * len(counts)


def test_the_same_on_every_machine() -> None:
    drawn = draw(LABELS, 2, 7, class_names=NAMES)
    assert drawn.support.tolist() == [36, 42, 76, 82, 65, 8]
    assert drawn.validation.tolist() == [33, 27, 40, 64, 86, 71]


def test_seeds_differ_and_global_randomness_is_left_alone() -> None:
    before = np.random.get_state()[1].tolist()
    first, second = (draw(LABELS, 8, seed, class_names=NAMES).support.tolist() for seed in (1, 2))
    assert first != second
    assert np.random.get_state()[1].tolist() == before


def test_another_class_changes_nothing_for_the_first() -> None:
    with_more = np.concatenate([LABELS, np.full(20, 3)])
    assert (
        draw(with_more, 4, 5, class_names=(*NAMES, "fox")).support[:12].tolist()
        == draw(LABELS, 4, 5, class_names=NAMES).support.tolist()
    )


@pytest.mark.parametrize("validation", [0, 1, 14])
def test_validation_can_be_named(validation: int) -> None:
    drawn = draw(LABELS, 16, 0, class_names=NAMES, validation=validation)
    assert (len(drawn.support), len(drawn.validation)) == (48, 3 * validation)


@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots(shots: int) -> None:
    with pytest.raises(InputError, match=f"--shots {shots}: at least 1"):
        draw(LABELS, shots, 0, class_names=NAMES)


def test_negative_seed_or_validation() -> None:
    with pytest.raises(InputError, match="--seed -3"):
        draw(LABELS, 1, -3, class_names=NAMES)
    with pytest.raises(InputError, match="validation -1"):
        draw(LABELS, 1, 0, class_names=NAMES, validation=-1)


@pytest.mark.parametrize(("there", "most"), [(2, 1), (5, 2), (8, 4), (9, 5), (19, 15)])
def test_too_many_shots_names_the_class_and_what_is_possible(there: int, most: int) -> None:
    labels = np.array([0] * 40 + [1] * there)
    with pytest.raises(InputError, match=f"'dog' has {there} training pictures.*at most --shots {most} "):
        draw(labels, 16, 0, class_names=NAMES[:2])
    assert len(draw(labels, most, 0, class_names=NAMES[:2]).support) == 2 * most
    with pytest.raises(InputError):
        draw(labels, most + 1, 0, class_names=NAMES[:2])


def test_too_much_validation_leaves_no_shot() -> None:
    with pytest.raises(InputError, match="add pictures of it"):
        draw(LABELS, 1, 0, class_names=NAMES, validation=30)


def test_a_class_without_pictures_is_named() -> None:
    with pytest.raises(PromptSearchError, match="class 'fox' has no picture"):
        draw(LABELS, 1, 0, class_names=(*NAMES, "fox"))
    with pytest.raises(PromptSearchError, match="no classes"):
        draw(LABELS, 1, 0, class_names=())
