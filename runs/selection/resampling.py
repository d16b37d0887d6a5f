"""Draws stratified folds and bootstrap samples of a support set."""

from __future__ import annotations

import numpy as np

#: (pictures inside, pictures outside), as positions in the support set; choices are made inside and judged outside.
Part = tuple[np.ndarray, np.ndarray]


def folds(labels: np.ndarray, k: int, seed: int, repeats: int = 1) -> list[Part]:
    """Draw stratified folds.

    A class starts in the fold after the one in which the previous class ended, so that folds are equally large even if
    classes have fewer pictures than there are folds.

    Args:
        labels: (N,) class indices.
        k: Number of folds.
        seed: Seed of the draw.
        repeats: Number of times the folds are drawn.

    Returns:
        repeats * k parts; the pictures outside are one fold.
    """
    parts = []
    k = min(k, len(labels))
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        fold, begin = np.empty(len(labels), int), 0
        for c in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == c))
            fold[members] = (begin + np.arange(len(members))) % k
            begin += len(members)
        parts += [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(k)]
    return parts


def bootstraps(labels: np.ndarray, n: int, seed: int) -> list[Part]:
    """Draw stratified bootstrap samples; if a class has a single picture, the samples are not stratified.

    Args:
        labels: (N,) class indices.
        n: Number of samples.
        seed: Seed of the draw.

    Returns:
        n parts; the pictures outside are those that were not drawn.
    """
    classes, counts = np.unique(labels, return_counts=True)
    groups = [np.flatnonzero(labels == c) for c in classes] if counts.min() > 1 else [np.arange(len(labels))]
    parts = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        parts.append((np.sort(drawn), np.setdiff1d(np.arange(len(labels)), drawn)))
    return parts


def refilled(part: Part, labels: np.ndarray, seed: int) -> Part:
    """Fill up the inside of a part with pictures drawn from it, so that it is as large as the support set.

    For each picture outside, a picture of the same class is drawn from inside, if there is one. Without this, classes
    outside would be underrepresented inside, and the choice would use fewer pictures than the one whose accuracy is
    estimated; both would make the estimate too low.

    Args:
        part: The part.
        labels: (N,) class indices.
        seed: Seed of the draw.
    """
    inside, outside = part
    rng = np.random.default_rng([seed, int(outside[0])])
    same = [inside[labels[inside] == labels[x]] for x in outside]
    again = [int(rng.choice(members)) for members in same if len(members)]
    return np.sort(np.concatenate([inside, again]).astype(np.intp)), outside
