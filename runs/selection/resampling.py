"""Parts of a support set: stratified folds and bootstrap samples, drawn by seed."""

from __future__ import annotations

import numpy as np

#: (pictures inside, pictures outside), as positions in the support set.
Part = tuple[np.ndarray, np.ndarray]


def folds(labels: np.ndarray, k: int, seed: int, repeats: int = 1) -> list[Part]:
    """`repeats` times k folds, each class spread evenly over them; what is outside is one fold.

    Classes of fewer pictures than folds begin where the last class ended, so that folds are equally large: with one
    picture per class every fold leaves some classes out entirely.
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
    """n samples with replacement, each class as often as it is; of one picture per class, over all pictures alike.

    What is outside are the pictures that were not drawn.
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
    """The same part with the places of the pictures outside taken by others of their classes, drawn again.

    Without that, the classes that are judged by are those that were missing in the choice, and the choice is by fewer
    pictures than the one that is to be judged: both make an estimate too low.  A class that has no picture inside
    stays without.
    """
    inside, outside = part
    rng = np.random.default_rng([seed, int(outside[0])])
    same = [inside[labels[inside] == labels[x]] for x in outside]
    again = [int(rng.choice(members)) for members in same if len(members)]
    return np.sort(np.concatenate([inside, again]).astype(np.intp)), outside
