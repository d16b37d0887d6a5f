"""A few-shot task: the drawn pictures and labels, and a test split that can be opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.draw import draw, draw_unlabelled

#: The label of a picture that is used without its label.
UNLABELLED = -1

#: Classes with few pictures that a sentence names.
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

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of all pictures of "train" or "test", and their indices in the data set's split."""

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors (n, D) of pictures by their positions in the result of `labels`."""


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
        cls, source: FeatureSource, shots: int, seed: int, unlabelled: int | None = None, allow_fewer: bool = False
    ) -> Task:
        """Draw a task, and get the features of its pictures.

        Args:
            source: The source of features.
            shots: Labelled pictures per class; min(shots, 4) more per class are drawn for validation.
            seed: Seed of the draw.
            unlabelled: If `shots` is 0, number of pictures to draw without their labels.
            allow_fewer: Take what there is of a class with too few pictures.

        Raises:
            InputError: There are too few pictures.
        """
        labels, indices = source.labels("train")
        if shots == 0 and unlabelled is not None:
            both = draw_unlabelled(len(labels), unlabelled, seed)
            labels, n = np.full(len(labels), UNLABELLED), len(both)
        else:
            drawn = draw(labels, shots, seed, class_names=source.class_names, allow_fewer=allow_fewer)
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
            source: Where the pictures come from.
            shots: Pictures per class that there are; 0 if they have no labels.
            seed: Of the search.
        """
        labels, indices = source.labels("train")
        both = Split(source.features("train", indices), labels, indices)
        return cls(source.name, source.class_names, shots, seed, both, both.part(np.arange(0)), _no_test)

    @property
    def labelled(self) -> bool:
        """Whether the pictures of the support set have labels."""
        return self.shots > 0

    def imbalance(self) -> str | None:
        """Return a sentence about classes with fewer pictures than shots, or None if there are none."""
        if not self.labelled:
            return None
        counts = np.bincount(self.support.labels, minlength=len(self.class_names))
        few = np.flatnonzero(counts < self.shots)
        if not few.size:
            return None
        fewest = sorted(few, key=lambda c: counts[c])[:NAMED]
        some = ", ".join(f"{self.class_names[c]} {counts[c]}" for c in fewest) + (" …" if len(few) > NAMED else "")
        return (
            f"{len(few)} of {len(counts)} classes have fewer than {self.shots} few-shot pictures ({some}), "
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
