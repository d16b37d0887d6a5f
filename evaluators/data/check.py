"""Checks a data set before a search: what it is, what was left out, what would go wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.banks import load_class_names, printable
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.datasets import PictureData, open_dataset
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.data.holdout import choose, hash_image, near_duplicates, no_hash
from promptsearch.evaluators.data.parts import is_number
from promptsearch.evaluators.task import MOST_VALIDATION

#: Shots and test share in the suggested command.
SHOTS, SHARE = 16, 0.3

#: Pictures read between two reports of progress.
_CHUNK = 256

#: Largest number of examples that a sentence names.
_NAMED = 3


@dataclass(frozen=True)
class DataCheck:
    """The findings of `check_data` about a data set.

    Attributes:
        spec: Name of the data set.
        kind: Its layout, in a few words.
        classes: The class names.
        counts: Pictures of each class, by the name of the split.
        unused: Names of splits that are not used.
        left_out: Sentences about files that were ignored.
        problems: Sentences about what would go wrong, each with its remedy.
        command: Arguments of the command to run next.
    """

    spec: str
    kind: str
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    unused: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]
    command: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "dataset": self.spec,
            "kind": self.kind,
            "classes": list(self.classes),
            "pictures": {split: list(counts) for split, counts in self.counts.items()},
            "unused_splits": list(self.unused),
            "left_out": list(self.left_out),
            "problems": list(self.problems),
            "command": list(self.command),
        }


@dataclass(frozen=True)
class _Read:
    """A picture that was read: its hash, a digest of its bytes, and the reason if it cannot be decoded."""

    hash: np.ndarray
    digest: bytes
    error: str | None


def check_data(
    spec: str,
    told: Callable[[int, int, str], None] | None = None,
    class_names: str | None = None,
    **reading: Any,
) -> DataCheck:
    """Open a data set, decode all its pictures that are here, and say what a search would meet.

    Args:
        spec: The data set, as for `open_dataset`.
        told: Called with the progress.
        class_names: File of names for the classes.
        reading: Keyword arguments of `open_dataset`.

    Raises:
        InputError: The data set cannot be opened, or the class names do not fit; the message says why.
        PromptSearchError: A file cannot be read.
    """
    data = open_dataset(spec, **reading, renamed=True, told=told)
    names = data.class_names
    if class_names is not None:
        load_class_names(class_names).of(names)
    labels = {split: data.labels(split) for split in data.splits}
    read = {split: _read(data, split, told) for split in data.splits if not data.is_remote(split)}
    counts = {split: np.bincount(of_split, minlength=len(names)) for split, of_split in labels.items()}
    unnamed = _names(names) if class_names is None else None
    options = {**reading, "class_names": class_names or ("names.txt" if unnamed else None)}
    problems = [*([unnamed] if unnamed else []), *_broken(read), *_repeated(data, labels, read)]
    left = counts.get("train")  # (C,) pictures to train on
    if "train" not in counts:
        problems.append("There is no training split: nothing can be searched on, only judged with --transfer.")
    elif "test" not in counts:
        sentence, left = _holding_out(names, labels["train"], read.get("train"))
        problems.append(sentence)
        options["test_share"] = SHARE if left.sum() < counts["train"].sum() else None
    if "test" in counts and (without := np.flatnonzero(counts["test"] == 0)).size:
        problems.append(
            f"{len(without)} of {len(names)} classes have no test picture ({_some([names[int(c)] for c in without])}): "
            "test accuracy says nothing about them."
        )
    command = ["promptsearch", "beam", "--dataset", spec]
    for option, value in options.items():
        if value not in (None, 0):
            command += [f"--{option.replace('_', '-')}", str(value)]
    if left is not None:
        command += _shots(names, left, problems)
    return DataCheck(
        spec,
        data.layout.kind,
        names,
        {_split_name(data, split): tuple(of_split.tolist()) for split, of_split in counts.items()},
        data.layout.unused,
        tuple(data.notes),
        tuple(problems),
        tuple(command),
    )


def _split_name(data: PictureData, split: str) -> str:
    return str(data.train_split if split == "train" else data.test_split)


def _read(data: PictureData, split: str, told: Callable[[int, int, str], None] | None) -> list[_Read]:
    n = len(data.labels(split))
    found: list[_Read] = []
    with ThreadPoolExecutor() as pool:
        for at in range(0, n, _CHUNK):
            if told is not None:
                told(at, n, f"decoding {split} pictures")
            found += pool.map(_decode, data.stored(split, range(at, min(n, at + _CHUNK))))
    return found


def _decode(picture: StoredPicture) -> _Read:
    try:
        packed = picture.packed()
        digest = hashlib.blake2b(packed.content or b"", digest_size=16).digest()
        return _Read(hash_image(packed.open()), digest, None)
    except PromptSearchError as e:
        return _Read(no_hash(), b"", str(e))


def _names(names: Sequence[str]) -> str | None:
    """Return what is wrong with the class names, or None."""
    if all(map(is_number, names)):
        what = "numbers"
    elif all(re.fullmatch(r"n\d{8}", name) for name in names):
        what = "WordNet's numbers"
    else:
        return None
    return (
        f"The class names are {what} ({_some(names)}), which say nothing in a prompt: write what the classes are "
        "called into a file, in lines of the class, a tab and its name, and give it with --class-names."
    )


def _broken(read: dict[str, list[_Read]]) -> list[str]:
    errors = [r.error for of_split in read.values() for r in of_split if r.error is not None]
    if not errors:
        return []
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return [f"{len(errors)} pictures cannot be decoded: {errors[0]}{more}."]


def _repeated(data: PictureData, labels: dict[str, np.ndarray], read: dict[str, list[_Read]]) -> list[str]:
    """Return sentences about pictures that occur twice: with two labels, or in training and test split."""
    problems = []
    of_bytes: dict[bytes, set[int]] = {}
    for split, of_split in read.items():
        for label, found in zip(labels[split].tolist(), of_split, strict=True):
            if found.error is None:
                of_bytes.setdefault(found.digest, set()).add(label)
    torn = [classes for classes in of_bytes.values() if len(classes) > 1]
    if torn:
        first = " and ".join(data.class_names[c] for c in sorted(torn[0]))
        problems.append(
            f"{len(torn)} pictures are there with two labels, byte for byte (the first as {first}): remove one of each."
        )
    sides = [(side, r.hash) for side, of_split in read.items() for r in of_split]
    if not sides:
        return problems
    groups = near_duplicates(np.stack([h for _, h in sides]))
    in_test = np.array([side == "test" for side, _ in sides])
    both = np.intersect1d(groups[in_test], groups[~in_test])
    if both.size:
        shared = int(np.isin(groups[in_test], both).sum())
        problems.append(
            f"{shared} of {in_test.sum()} test pictures are also training pictures, or nearly the same: test accuracy "
            "is not that of unseen pictures."
        )
    repeats = len(groups) - len(np.unique(groups))
    if repeats and not both.size:
        problems.append(f"{repeats} pictures are nearly the same as another of their split; --shots may draw both.")
    return problems


def _holding_out(names: Sequence[str], labels: np.ndarray, read: list[_Read] | None) -> tuple[str, np.ndarray]:
    """Return a sentence about what --test-share would hold out, and the number (C,) of pictures left of each class.

    Args:
        names: The class names.
        labels: (N,) class of each picture.
        read: The pictures; None if they are not on this machine, so that near-duplicates cannot be found.
    """
    groups = np.arange(len(labels)) if read is None else near_duplicates(np.stack([r.hash for r in read]))
    counts = np.bincount(labels, minlength=len(names))
    held = np.bincount(labels[choose(labels, groups, SHARE, 0)], minlength=len(names))
    without = np.flatnonzero(held == 0)
    why = "they have one picture, or pictures that are nearly the same, which stay on one side"
    if not held.any():
        return (
            f"There is no test split, and --test-share cannot hold one out: {why}. Add pictures that differ, or a "
            "folder test.",
            counts,
        )
    sentence = f"There is no test split: hold out a share of each class with --test-share {SHARE:g}"
    some = _some([names[int(c)] for c in without])
    if not without.size:
        return f"{sentence} (pictures that are nearly the same stay on one side).", counts - held
    return (
        f"{sentence}; of {len(without)} of {len(names)} classes it holds out none ({some}): {why}. "
        "Add pictures of them that differ, or test accuracy says nothing about them.",
        counts - held,
    )


def _shots(names: Sequence[str], left: np.ndarray, problems: list[str]) -> list[str]:
    """Return options for `--shots` if some classes have few pictures, and add a sentence about them to `problems`."""
    few = np.flatnonzero(left < SHOTS + MOST_VALIDATION)
    if not few.size:
        return []
    fewest = int(left.argmin())
    problems.append(
        f"{len(few)} of {len(names)} classes have fewer than the {SHOTS} + {MOST_VALIDATION} training pictures of "
        f"--shots {SHOTS} (the fewest {max(0, int(left[fewest]))}, of {names[fewest]}): --allow-fewer uses all "
        "that there are."
    )
    return ["--shots", str(SHOTS), "--allow-fewer"]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_NAMED])) + (" …" if len(names) > _NAMED else "")
