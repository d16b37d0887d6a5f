"""A few-shot task: a seeded draw of pictures and labels, and a test split that can be opened once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from promptsearch.errors import InputError, PromptSearchError

MOST_VALIDATION = 4  # pictures per class; the usual protocol validates on min(shots, 4)


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
        allow_fewer: Use all pictures of a class that has too few, instead of raising an error: at least three quarters
            of them for the support set, the rest (at most `validation`) for validation.

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
        f"{shots}{f' and {held_out} more for validation' if held_out else ''} are needed; "
        f"{remedy}what there is with --allow-fewer"
    )


#: The label of a picture that is used without its label.
UNLABELLED = -1

#: Largest number of classes with few pictures that a sentence names.
NAMED = 3


@dataclass(frozen=True)
class Split:
    """Pictures of a split.

    Attributes:
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        indices: (N,) indices in the data set's split.
    """

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, at: np.ndarray) -> Split:
        """Return the pictures at some positions, which may repeat."""
        return Split(self.features[at], self.labels[at], self.indices[at])


class FeatureSource(Protocol):
    """The source of a task's features: a feature pack, or pictures and a model."""

    name: str
    class_names: tuple[str, ...]
    fingerprint: str

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of all pictures of "train" or "test", and their indices in the data set's split."""

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors (n, D) of the pictures at these positions in the result of `labels`."""


def _no_test() -> Split:
    raise PromptSearchError("these pictures have no test split")


@dataclass
class Task:
    """One few-shot problem.

    Only `open_test()` returns the test split, and it does so once.
    """

    dataset: str
    class_names: tuple[str, ...]
    shots: int
    seed: int
    support: Split
    validation: Split
    _test: Callable[[], Split]
    test_opened: int = field(default=0)

    @classmethod
    def build(
        cls,
        source: FeatureSource,
        shots: int,
        seed: int,
        unlabelled: int | None = None,
        allow_fewer: bool = False,
        validation: int | None = None,
    ) -> Task:
        """Draw a task, and get the features of its pictures.

        Args:
            source: The source of features.
            shots: Labelled pictures per class.
            seed: Seed of the draw.
            unlabelled: If `shots` is 0, number of pictures to draw without their labels.
            allow_fewer: Use all pictures of a class that has too few, instead of raising an error.
            validation: Number of other pictures per class to draw for validation; by default min(shots, 4).

        Raises:
            InputError: There are too few pictures.
        """
        labels, indices = source.labels("train")
        if shots == 0 and unlabelled is not None:
            both = draw_unlabelled(len(labels), unlabelled, seed)
            labels, n = np.full(len(labels), UNLABELLED), len(both)
        else:
            drawn = draw(
                labels,
                shots,
                seed,
                class_names=source.class_names,
                validation=validation,
                allow_fewer=allow_fewer,
            )
            both, n = np.concatenate([drawn.support, drawn.validation]), len(drawn.support)
        features = source.features("train", both)

        def split(part: slice) -> Split:
            at = both[part]
            return Split(features[part], labels[at], indices[at])

        def test() -> Split:
            test_labels, test_indices = source.labels("test")
            return Split(source.features("test", np.arange(len(test_labels))), test_labels, test_indices)

        return cls(source.name, source.class_names, shots, seed, split(slice(0, n)), split(slice(n, None)), test)

    @classmethod
    def test_only(cls, source: FeatureSource) -> Task:
        """Build a task with the test split of a data set and no few-shot pictures, to judge prompts found elsewhere."""
        nothing = Split(np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))

        def test() -> Split:
            labels, indices = source.labels("test")
            return Split(source.features("test", np.arange(len(labels))), labels, indices)

        return cls(source.name, source.class_names, 0, 0, nothing, nothing, test)

    @classmethod
    def whole(cls, source: FeatureSource, shots: int, seed: int) -> Task:
        """Take all training pictures as the support set, and none for validation.

        Args:
            source: The source of features.
            shots: Pictures per class; 0 if they have no labels.
            seed: Seed of the search.
        """
        labels, indices = source.labels("train")
        both = Split(source.features("train", indices), labels, indices)
        return cls(source.name, source.class_names, shots, seed, both, both.part(np.arange(0)), _no_test)

    @property
    def labelled(self) -> bool:
        """Whether the pictures of the support set have labels."""
        return self.shots > 0

    def imbalance(self) -> str | None:
        """Return a sentence about classes with fewer pictures than others or than shots, or None if there are none."""
        if not self.labelled:
            return None
        counts = np.bincount(self.support.labels, minlength=len(self.class_names))
        most = max(self.shots, int(counts.max()))  # given pictures are all used, some classes may have more than shots
        few = np.flatnonzero(counts < most)
        if not few.size:
            return None
        fewest = sorted(few, key=lambda c: counts[c])[:NAMED]
        some = ", ".join(f"{self.class_names[c]} {counts[c]}" for c in fewest) + (" …" if len(few) > NAMED else "")
        return (
            f"{len(few)} of {len(counts)} classes have fewer than {most} few-shot pictures ({some}), "
            f"{counts.sum():,} pictures in all: cross-entropy and accuracy on them weigh classes by their pictures; "
            "--objective balanced weighs classes alike."
        )

    def open_test(self) -> Split:
        """Open the test split; call this once, after the winner was chosen.

        Raises:
            PromptSearchError: The test split of this task was opened before.
        """
        if self.test_opened:
            raise PromptSearchError("the test split of this task was opened before; build a new task to open it again")
        self.test_opened += 1
        return self._test()
