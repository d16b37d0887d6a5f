"""Seeded few-shot draws, which are the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.errors import InputError, PromptSearchError

MOST_VALIDATION = 4  # per class: the field's protocol validates on min(shots, 4)


@dataclass(frozen=True)
class Draw:
    """A draw of pictures, sorted by class, and within a class in the order drawn.

    Attributes:
        support: Indices of the pictures to learn from.
        validation: Indices of other pictures for validation.
    """

    support: np.ndarray
    validation: np.ndarray


def draw(
    labels: np.ndarray,
    shots: int,
    seed: int,
    *,
    class_names: Sequence[str],
    validation: int | None = None,
    allow_fewer: bool = False,
) -> Draw:
    """Draw labelled pictures of every class.

    Each class is shuffled by its own generator. The support set is taken from the beginning and validation from the
    end, so that with the same seed a draw with more shots contains both parts of one with fewer.

    Args:
        labels: (N,) class indices.
        shots: Number of pictures per class in the support set.
        seed: Seed of the draw.
        class_names: The C class names.
        validation: Number of other pictures per class; by default min(shots, 4).
        allow_fewer: Take what there is of a class with too few pictures: three quarters or more of them for the
            support set, and the rest, at most the number asked for, for validation.

    Raises:
        InputError: A number is out of range, or a class has too few pictures.
        PromptSearchError: A class has no picture.
    """
    if shots < 1:
        raise InputError(f"--shots {shots}: at least 1 picture per class is needed")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or larger")
    held_out = min(shots, MOST_VALIDATION) if validation is None else validation
    if held_out < 0:
        raise InputError(f"validation {held_out}: the number of validation pictures per class must be 0 or larger")
    of_class = [np.flatnonzero(np.asarray(labels) == c) for c in range(len(class_names))]
    _enough(of_class, shots, held_out, class_names, fixed=validation is not None, allow_fewer=allow_fewer)
    orders = [np.random.default_rng([seed, c]).permutation(members) for c, members in enumerate(of_class)]
    held = [held_out if len(order) >= shots + held_out else min(held_out, len(order) // 4) for order in orders]
    return Draw(
        np.concatenate([order[: min(shots, len(order) - h)] for order, h in zip(orders, held, strict=True)]),
        np.concatenate([order[::-1][:h] for order, h in zip(orders, held, strict=True)]),
    )


def draw_unlabelled(pictures: int, count: int, seed: int) -> np.ndarray:
    """Draw pictures without looking at labels; with the same seed a larger draw contains a smaller one.

    Args:
        pictures: Number of pictures to draw from.
        count: Number of pictures to draw.
        seed: Seed of the draw.

    Returns:
        (count,) indices.

    Raises:
        InputError: `count` or `seed` is out of range.
    """
    if not 1 <= count <= pictures:
        raise InputError(f"--unlabelled {count}: there are {pictures} training pictures; choose from 1 to {pictures}")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or larger")
    return np.random.default_rng([seed]).permutation(pictures)[:count]


def _enough(
    of_class: list[np.ndarray], shots: int, held_out: int, class_names: Sequence[str], *, fixed: bool, allow_fewer: bool
) -> None:
    if not of_class:
        raise PromptSearchError("there are no classes to draw from; give a data set with class names")
    fewest = min(range(len(of_class)), key=lambda c: len(of_class[c]))
    name, n = class_names[fewest], len(of_class[fewest])
    if n == 0:
        raise PromptSearchError(f"class {name!r} has no picture to draw from; add some, or remove the class")
    if shots + held_out <= n or allow_fewer:
        return
    most = n - held_out if fixed else max(n // 2, n - MOST_VALIDATION)
    remedy = f"at most --shots {most} is possible, or " if most > 0 else "add pictures of it, or take "
    raise InputError(
        f"--shots {shots}: class {name!r} has {n} training pictures, "
        f"{shots} and {held_out} more for validation are needed; {remedy}what there is with --allow-fewer"
    )
