"""The pictures and labels of one few-shot problem, with the test split kept shut until it is opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.draw import draw, draw_unlabelled

#: The label of a picture whose label nobody may read.
UNLABELLED = -1


@dataclass(frozen=True)
class Split:
    """Unit picture vectors (N, D), labels (N,) and indices (N,) into the data set's own split."""

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, at: np.ndarray) -> Split:
        """The pictures at these positions, some of them several times, perhaps."""
        return Split(self.features[at], self.labels[at], self.indices[at])


class FeatureSource(Protocol):
    """Where a task's pictures come from: a feature pack, or pictures and a model."""

    name: str
    class_names: tuple[str, ...]

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(labels, indices into the data set's split) of all pictures there are in "train" or "test"."""

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """(n, D) unit vectors of the pictures at these positions of what `labels` lists."""


@dataclass
class Task:
    """One few-shot problem.  `open_test()` is the only way to the test split, and it is remembered."""

    dataset: str
    class_names: tuple[str, ...]
    shots: int
    seed: int
    support: Split
    validation: Split
    _test: Callable[[], Split]
    test_opened: int = field(default=0)

    @classmethod
    def build(cls, source: FeatureSource, shots: int, seed: int, unlabelled: int | None = None) -> Task:
        """Draw `shots` pictures per class (and min(shots, 4) more for validation) and fetch their features.

        Args:
            unlabelled: with no shots, how many pictures to draw without a look at their labels.

        Raises:
            InputError: fewer pictures than asked for, a class without any.
        """
        labels, indices = source.labels("train")
        if shots == 0 and unlabelled is not None:
            both = draw_unlabelled(len(labels), unlabelled, seed)
            labels, n = np.full(len(labels), UNLABELLED), len(both)
        else:
            drawn = draw(labels, shots, seed, class_names=source.class_names)
            both, n = np.concatenate([drawn.support, drawn.validation]), len(drawn.support)
        features = source.features("train", both)

        def split(part: slice) -> Split:
            at = both[part]
            return Split(features[part], labels[at], indices[at])

        def test() -> Split:
            test_labels, test_indices = source.labels("test")
            return Split(source.features("test", np.arange(len(test_labels))), test_labels, test_indices)

        return cls(source.name, source.class_names, shots, seed, split(slice(0, n)), split(slice(n, None)), test)

    @property
    def labelled(self) -> bool:
        """Whether the pictures that are searched on have labels (with no shots they have none)."""
        return self.shots > 0

    def open_test(self) -> Split:
        """Open the test split.  Call it once, when the winner is chosen.

        Raises:
            PromptSearchError: it was opened before in this task.
        """
        if self.test_opened:
            raise PromptSearchError("the test split of this task was opened before; build a new task to open it again")
        self.test_opened += 1
        return self._test()
