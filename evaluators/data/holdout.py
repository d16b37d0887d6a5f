"""Holds out a share of a data set's pictures as its test split; near-duplicates are in the same split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.encoded_picture import DECODING, StoredPicture

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.evaluators.cache import Cache

#: Side of the grid of the difference hash, which has SIDE * SIDE bits.
SIDE = 16

#: Two pictures are nearly the same if at most this many bits of their hashes differ,
BITS = 32
#: and each channel of their mean colours by at most this (of 255), because plain areas have equal hashes.
COLOUR = 32

#: Name of the hash in the cache's keys; change it whenever `hash_picture` computes something else.
_HASH = "dhash16+mirrored+colour"

#: Pictures hashed between two reports of progress.
_CHUNK = 256


class Pictures(Protocol):
    """The training pictures that a share is held out of."""

    def labels(self, split: str) -> np.ndarray:
        """Return the class indices (N,) of a split."""

    def stored(self, split: str, indices: Any) -> Iterator[StoredPicture]:
        """Yield the pictures at these indices."""

    def fingerprint(self, split: str) -> str:
        """Return a fingerprint of a split."""


@dataclass(frozen=True)
class HeldOut:
    """The pictures that were held out.

    Attributes:
        test: (N,) whether each picture is held out.
        sentence: How many pictures were held out, and how they were chosen.
    """

    test: np.ndarray
    sentence: str


def check_share(share: float, seed: int) -> None:
    """Check the options of a held-out share.

    Raises:
        InputError: The share is not above 0 and below 1, or the seed is below 0.
    """
    if not 0 < share < 1:
        raise InputError(f"--test-share {share:g}: must be above 0 and below 1, for example 0.3")
    if seed < 0:
        raise InputError(f"--split-seed {seed}: must be 0 or larger")


def hold_out(
    data: Pictures,
    share: float,
    seed: int,
    cache: Cache | None = None,
    told: Callable[[int, int, str], None] | None = None,
) -> HeldOut:
    """Choose a share of each class's training pictures to be the test split.

    Args:
        data: The pictures.
        share: Share of each class, above 0 and below 1.
        seed: Seed of the choice.
        cache: Where the pictures' hashes are cached; None to cache nothing.
        told: Called with the progress.
    """
    labels = data.labels("train")
    hashes = picture_hashes(data, "train", cache, told)
    groups = near_duplicates(hashes)
    test = choose(labels, groups, share, seed)
    repeats = len(labels) - len(np.unique(groups))
    sentence = (
        f"{test.sum():,} of {len(labels):,} pictures are held out as the test split (--test-share {share:g}, "
        f"--split-seed {seed})"
    )
    if repeats:
        sentence += f"; {repeats:,} that are nearly the same as another are on the other's side"
    return HeldOut(test, sentence + ".")


def choose(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose whole groups of pictures until the share of each class is reached.

    Every class of two or more pictures gets a test picture, if its groups allow, and every class keeps one for
    training.

    Args:
        labels: (N,) class indices.
        groups: (N,) group of each picture, from 0.
        share: Share of each class to choose.
        seed: Seed of the choice.

    Returns:
        (N,) bool, whether each picture is chosen.
    """
    counts = np.bincount(labels)
    wanted = np.minimum(np.maximum(np.rint(share * counts), 1), counts - 1)  # (C,)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    chosen, taken = np.zeros(len(labels), bool), np.zeros(len(counts))
    for g in np.random.default_rng([seed]).permutation(len(members)):
        classes, sizes = np.unique(labels[members[g]], return_counts=True)
        if (taken[classes] + sizes <= wanted[classes]).all():
            chosen[members[g]] = True
            taken[classes] += sizes
    return chosen


def picture_hashes(
    data: Pictures, split: str, cache: Cache | None, told: Callable[[int, int, str], None] | None = None
) -> np.ndarray:
    """Return the hashes (N, SIDE * SIDE / 4 + 4) uint8 of pictures; the last byte is 0 if one cannot be decoded."""
    key = {"data": data.fingerprint(split), "hash": _HASH, "decoding": DECODING}
    block = cache.get("hashes", key) if cache is not None else None
    if block is not None:
        return np.asarray(block.arrays["hashes"])
    n = len(data.labels(split))
    found: list[np.ndarray] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes without Python's lock
        for at in range(0, n, _CHUNK):
            if told is not None:
                told(at, n, "comparing pictures")
            found += pool.map(hash_picture, data.stored(split, range(at, min(n, at + _CHUNK))))
    if told is not None:
        told(n, n, "comparing pictures")
    hashes = np.stack(found)
    if cache is not None:
        cache.add("hashes", key, {"hashes": hashes})
    return hashes


def hash_picture(picture: StoredPicture) -> np.ndarray:
    """Return the hash of a picture as `hash_image` does, or `no_hash()` if it cannot be decoded."""
    try:
        return hash_image(picture.open())
    except PromptSearchError:  # the error is raised when the picture is encoded
        return no_hash()


def hash_image(picture: Image) -> np.ndarray:
    """Return the difference hash of an RGB picture, that of the mirrored picture, its mean colour, and 1.

    A hash has a bit for each two horizontal neighbours of a grid of SIDE rows and SIDE + 1 columns, which says
    whether the right one is brighter (Krawetz 2013, "Kind of like that").

    Returns:
        (SIDE * SIDE / 4 + 4,) uint8.
    """
    from PIL.Image import Resampling

    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Resampling.LANCZOS))  # (SIDE, SIDE + 1)
    colour = np.asarray(picture.resize((1, 1), Resampling.BOX)).ravel()  # (3,)
    mirrored = grey[:, ::-1]
    bits = [np.packbits(g[:, 1:] > g[:, :-1]) for g in (grey, mirrored)]
    return np.concatenate([*bits, colour, np.ones(1, np.uint8)])


def no_hash() -> np.ndarray:
    """Return the hash of a picture that cannot be decoded: zeros."""
    return np.zeros(SIDE * SIDE // 4 + 4, np.uint8)


def near_duplicates(hashes: np.ndarray) -> np.ndarray:
    """Group pictures that are nearly the same, or nearly mirror images, directly or through others between them.

    Args:
        hashes: (N, H) hashes of `hash_picture`; pictures that could not be decoded are alone.

    Returns:
        (N,) group of each picture, from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, width = len(hashes), SIDE * SIDE // 8
    own, mirrored = (
        np.unpackbits(part, axis=1).astype(np.float32) * 2 - 1  # (N, bits)
        for part in (hashes[:, :width], hashes[:, width : 2 * width])
    )
    colours, read = hashes[:, -4:-1].astype(np.int16), hashes[:, -1] > 0
    # the product of two rows of signs is the number of bits minus twice the number of bits that differ
    near = SIDE * SIDE - 2 * BITS
    step = max(1, (1 << 24) // max(1, n))
    firsts, seconds = [], []
    for at in range(0, n, step):
        plain, turned = own[at : at + step] @ own[at:].T, own[at : at + step] @ mirrored[at:].T  # (step, N - at)
        rows, columns = np.nonzero(np.maximum(plain, turned, out=plain) >= near)
        rows, columns = rows + at, columns + at
        same = (np.abs(colours[rows] - colours[columns]).max(axis=1) <= COLOUR) & read[rows] & read[columns]
        firsts.append(rows[same])
        seconds.append(columns[same])
    pairs = np.concatenate(firsts), np.concatenate(seconds)
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])
