"""Seeded few-shot draws: the same classes, shots and seed give the same pictures on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.errors import InputError, PromptSearchError

MOST_VALIDATION = 4  # per class: the field's protocol validates on min(shots, 4)


@dataclass(frozen=True)
class Draw:
    """Indices into the labels, sorted by class, within a class in the order drawn.  The two never overlap."""

    support: np.ndarray
    validation: np.ndarray


def draw(
    labels: np.ndarray, shots: int, seed: int, *, class_names: Sequence[str], validation: int | None = None
) -> Draw:
    """Draw `shots` pictures of every class, and `validation` others (default: min(shots, 4)).

    Every class is shuffled by a generator of its own; the support set is the beginning, validation the end
    (backwards).  So a draw of more shots contains each draw of fewer with the same seed, both parts of it.

    Args:
        labels: (N,) class indices.

    Raises:
        InputError: shots below 1, a negative seed or validation, more than there are of some class.
        PromptSearchError: a class without any picture.
    """
    if shots < 1:
        raise InputError(f"--shots {shots}: at least 1 picture per class is needed")
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or larger")
    held_out = min(shots, MOST_VALIDATION) if validation is None else validation
    if held_out < 0:
        raise InputError(f"validation {held_out}: the number of validation pictures per class is 0 or larger")
    of_class = [np.flatnonzero(np.asarray(labels) == c) for c in range(len(class_names))]
    _enough(of_class, shots, held_out, class_names, fixed=validation is not None)
    orders = [np.random.default_rng([seed, c]).permutation(members) for c, members in enumerate(of_class)]
    return Draw(
        np.concatenate([order[:shots] for order in orders]),
        np.concatenate([order[::-1][:held_out] for order in orders]),
    )


def draw_unlabelled(pictures: int, count: int, seed: int) -> np.ndarray:
    """`count` of so many pictures, drawn by seed alone: a draw of more contains each draw of fewer.

    Raises:
        InputError: a count below 1 or above what there are, a negative seed.
    """
    if not 1 <= count <= pictures:
        raise InputError(f"--unlabelled {count}: there are {pictures} training pictures; choose from 1 to {pictures}")
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or larger")
    return np.random.default_rng([seed]).permutation(pictures)[:count]


def _enough(of_class: list[np.ndarray], shots: int, held_out: int, class_names: Sequence[str], fixed: bool) -> None:
    if not of_class:
        raise PromptSearchError("there are no classes to draw from; give a data set with class names")
    fewest = min(range(len(of_class)), key=lambda c: len(of_class[c]))
    name, n = class_names[fewest], len(of_class[fewest])
    if n == 0:
        raise PromptSearchError(f"class {name!r} has no picture to draw from; add some, or remove the class")
    if shots + held_out <= n:
        return
    most = n - held_out if fixed else max(n // 2, n - MOST_VALIDATION)
    remedy = f"at most --shots {most} is possible" if most > 0 else "add pictures of it"
    raise InputError(
        f"--shots {shots}: class {name!r} has {n} training pictures, "
        f"{shots} and {held_out} more for validation are needed; {remedy}"
    )
