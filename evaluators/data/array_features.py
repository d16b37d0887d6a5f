"""Features given as arrays, as `PromptSearch.fit` takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import digest_of

if TYPE_CHECKING:
    from promptsearch.evaluators.data.encoded_picture import StoredPicture


class ArrayFeatures:
    """Training pictures as unit vectors with their labels, and no test split.

        source = ArrayFeatures(features, labels, ["cat", "dog"])
        task = Problem(encoder, source, cache).task(shots=16, seed=0)

    Args:
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices, or -1 for pictures without a label.
        class_names: Names of the classes, in the order of their indices.
        whole: Whether a task takes all pictures instead of drawing some.
    """

    name = "arrays"
    origin = "features given in memory"
    has_pictures = False
    has_test = False

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, class_names: Sequence[str], whole: bool = False
    ) -> None:
        self.class_names = tuple(class_names)
        self.whole = whole
        self._features, self._labels = features, labels
        contents = hashlib.sha256(np.ascontiguousarray(features).view(np.uint8).data).hexdigest()
        self.fingerprint = digest_of([contents, labels.tolist(), list(class_names)])
        self.pictures_fingerprint = self.identity = self.fingerprint

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels (N,) and indices (N,) of all pictures."""
        self._only_train(split)
        return self._labels, np.arange(len(self._labels))

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors (n, D) of the pictures at these positions."""
        self._only_train(split)
        return self._features[positions]

    def stored(self, split: str, indices: Iterable[int]) -> Iterator[StoredPicture]:
        """Raise InputError: there are features only."""
        raise InputError("--dataset: only features were given, and this method needs the pictures themselves")

    def _only_train(self, split: str) -> None:
        if split != "train":
            raise PromptSearchError("arrays have no test split; score the fitted estimator on other pictures")
