"""What the winner and the hand-written prompt say of every test picture, kept when the test split is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from promptsearch.evaluators import Split

#: Pictures named in each direction; how many there are is always kept.
FLIPS = 200


def build_details(
    class_names: Sequence[str], test: Split, before: np.ndarray, after: np.ndarray, baseline: str = "hand-written"
) -> dict[str, Any]:
    """Confusion matrices and the pictures that flip, as plain data: what a report needs without opening the test again.

    Args:
        before, after: (N,) predicted class of every test picture, by the baseline and by the winner.

    Returns:
        `classes`; `pictures` (how many); `confusion`, for "before" and "after" the non-zero [true class, predicted
        class, pictures]; `flips`, for "gained" (wrong before, right after) and "lost" the `count` and up to `FLIPS`
        evenly chosen `pictures` [index in the data set's test split, true class, before, after].
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
    """(C, C) pictures by true class (row) and predicted class (column), of "before" or "after"."""
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
