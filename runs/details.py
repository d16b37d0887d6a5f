"""Confusion matrices and changed predictions of a winner against a baseline, saved when the test split is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from promptsearch.evaluators import Split

#: Largest number of pictures listed in each direction (gained, lost); the counts are always complete.
FLIPS = 200


def build_details(
    class_names: Sequence[str], test: Split, before: np.ndarray, after: np.ndarray, baseline: str = "hand-written"
) -> dict[str, Any]:
    """Summarise the predictions on the test split, so that a report need not open it again.

    Args:
        class_names: The C class names.
        test: The test split, N pictures.
        before: (N,) class index predicted by the baseline for each picture.
        after: (N,) class index predicted by the winner for each picture.
        baseline: Name of the baseline.

    Returns:
        A JSON-serialisable dict with `classes`; `pictures`, the number N; `confusion`, which lists for "before" and
        "after" the non-zero entries [true class, predicted class, pictures]; and `flips`, which gives for "gained"
        (wrong before, right after) and "lost" the `count` and up to `FLIPS` evenly spaced `pictures` as [index in
        the test split, true class, before, after].
    """
    labels = test.labels
    right, was = after == labels, before == labels
    return {
        "classes": list(class_names),
        "pictures": len(labels),
        "baseline": baseline,
        "confusion": {"before": _counts(labels, before), "after": _counts(labels, after)},
        "flips": {
            "gained": _flips(test, before, after, np.flatnonzero(right & ~was)),
            "lost": _flips(test, before, after, np.flatnonzero(was & ~right)),
        },
    }


def confusion_matrix(details: dict[str, Any], which: str) -> np.ndarray:
    """Return a confusion matrix.

    Args:
        details: What `build_details` returned.
        which: "before" for the baseline or "after" for the winner.

    Returns:
        (C, C) number of pictures by true class (row) and predicted class (column).
    """
    matrix = np.zeros((len(details["classes"]),) * 2, np.int64)
    for true, predicted, n in details["confusion"][which]:
        matrix[true, predicted] = n
    return matrix


def _counts(labels: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    pairs, counts = np.unique(np.column_stack([labels, predicted]), axis=0, return_counts=True)
    return [[int(t), int(p), int(n)] for (t, p), n in zip(pairs, counts, strict=True)]


def _flips(test: Split, before: np.ndarray, after: np.ndarray, at: np.ndarray) -> dict[str, Any]:
    some = at if len(at) <= FLIPS else at[np.linspace(0, len(at) - 1, FLIPS).round().astype(int)]
    rows = [[int(test.indices[i]), int(test.labels[i]), int(before[i]), int(after[i])] for i in some]
    return {"count": len(at), "pictures": rows}
