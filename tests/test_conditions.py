"""Degraded conditions: what each does to a picture, and that it is always the same."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from promptsearch.errors import InputError
from promptsearch.evaluators.data import corruptions as conditions
from promptsearch.evaluators.data.corruptions import CONDITIONS, degrade, split_condition


def picture(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def values(p: Image.Image) -> np.ndarray:
    return np.asarray(p, dtype=np.float64)


@pytest.mark.parametrize("name", CONDITIONS)
@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_size_and_mode_stay_and_the_original_is_untouched(name: str, width: int, height: int) -> None:
    original = picture(width, height)
    before = original.tobytes()
    first, again = degrade(original, name), degrade(original.copy(), name)
    assert (first.size, first.mode) == ((width, height), "RGB")
    assert first.tobytes() == again.tobytes()
    assert original.tobytes() == before


def test_no_condition_is_the_picture_itself() -> None:
    original = picture()
    assert degrade(original, None) is original


def test_light() -> None:
    x = values(picture())
    assert np.abs(values(degrade(picture(), "dark")) - x * conditions.DARK).max() <= 0.5
    assert np.abs(values(degrade(picture(), "bright")) - (255 - (255 - x) * conditions.BRIGHT)).max() <= 0.5
    assert (values(degrade(picture(), "negative")) == 255 - x).all()


def test_rotated_is_upside_down() -> None:
    assert (values(degrade(picture(), "rotated")) == values(picture())[::-1, ::-1]).all()


def test_detail_is_lost() -> None:
    for name in ("lowres", "blurry"):
        assert values(degrade(picture(), name)).std() < 0.5 * values(picture()).std()
    flat = Image.new("RGB", (32, 32), (10, 200, 30))
    assert degrade(flat, "lowres").tobytes() == flat.tobytes()
    assert degrade(flat, "blurry").tobytes() == flat.tobytes()


def test_noise_has_its_strength_and_depends_on_the_picture() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    other = Image.new("RGB", (64, 64), (129, 128, 128))
    noise = values(degrade(grey, "noisy")) - 128
    assert noise.std() / 255 == pytest.approx(conditions.NOISE, rel=0.05)
    assert np.corrcoef(noise.ravel(), (values(degrade(other, "noisy")) - 128).ravel())[0, 1] < 0.1
    tiny = Image.new("RGB", (2, 1), (128, 128, 128))
    assert np.asarray(degrade(tiny, "noisy")).ravel().tolist() == [65, 0, 40, 80, 108, 70]


def test_sketch_is_edges_on_white() -> None:
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:, 16:] = 255
    drawn = values(degrade(Image.fromarray(halves), "sketch"))
    assert (drawn[:, 15:17] == 0).all()
    assert (drawn[:, :15] == 255).all() and (drawn[:, 17:] == 255).all()
    assert np.ptp(values(degrade(picture(), "sketch")), axis=2).max() == 0


def test_small_is_half_as_large_on_grey() -> None:
    out = values(degrade(Image.new("RGB", (32, 32), (255, 0, 0)), "small"))
    assert (out[8:24, 8:24] == (255, 0, 0)).all()
    out[8:24, 8:24] = conditions.GREY
    assert (out == conditions.GREY).all()


def test_all_conditions_differ() -> None:
    digests = {hashlib.sha256(degrade(picture(), name).tobytes()).digest() for name in (None, *CONDITIONS)}
    assert len(digests) == len(CONDITIONS) + 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", ("cifar10", None)),
        ("cifar100", ("cifar100", None)),
        ("cifar10-dark", ("cifar10", "dark")),
        ("cifar100-sketch", ("cifar100", "sketch")),
        ("someone/pets-dark", ("someone/pets-dark", None)),
        ("../data/cifar10-dark", ("../data/cifar10-dark", None)),
        ("pets-dark", ("pets-dark", None)),
    ],
)
def test_split_condition(name: str, expected: tuple[str, str | None]) -> None:
    assert split_condition(name) == expected


@pytest.mark.parametrize("name", ["cifar10-foggy", "cifar100-", "cifar10-dark-dark", "cifar10-Dark"])
def test_unknown_condition_lists_the_known(name: str) -> None:
    with pytest.raises(InputError, match="dark, lowres, noisy"):
        split_condition(name)


def test_degrade_refuses_an_unknown_condition() -> None:
    with pytest.raises(InputError, match="'foggy'.*dark"):
        degrade(picture(), "foggy")
