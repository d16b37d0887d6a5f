"""The splits of a data set, as the module of each layout returns them and `PictureData` reads them."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.evaluators.data.picture_list import StoredFile

#: Names of splits in folders and files.
SPLITS = ("train", "test", "validation", "valid", "val")
#: Names of splits that can serve as the test split; the first one that exists is used.
TESTS = ("test", "validation", "valid", "val")

#: Usual names, in lower case, of the columns of paths and of labels.
PATHS = ("path", "file", "file_name", "filename", "filepath", "image", "img", "picture", "image_path", "impath")
LABELS = ("label", "class", "class_name", "classname", "category", "target")

#: Name of the column for pictures in files, which are not in the table because its texts cannot hold every file name.
FOLDER_COLUMN = "image"


@dataclass(frozen=True)
class Part:
    """One split: its own name, its `datasets.Dataset`, and a fingerprint of its content.

    Attributes:
        files: The picture files, if they are not in the table.
        note: A sentence about the files that were ignored.
        rows: Rows of the table, and of `files`, that belong to the split; None for all.
        lazy: Returns `files`, if they depend on which column has the pictures.
    """

    name: str
    table: Any
    content: Callable[[], str]
    files: Sequence[str | StoredFile] | None = None
    note: str | None = None
    rows: np.ndarray | None = None
    lazy: Callable[[str], Sequence[StoredFile]] | None = None


@dataclass(frozen=True)
class Layout:
    """The splits of a data set and how it stores them.

    Attributes:
        kind: The layout, in a few words.
        parts: The splits by role, "train" and "test".
        unused: Names of further splits.
        named: Whether the columns that the user named are columns of the tables; if not, the layout's module read them.
    """

    kind: str
    parts: dict[str, Part]
    unused: tuple[str, ...] = ()
    named: bool = True


@dataclass(frozen=True)
class Asked:
    """The data set that a user named, for the module of its layout.

    Attributes:
        spec: Its name, for messages.
        place: Its folder or file.
        picture_column: The column of pictures or paths that the user named.
        label_column: The column of labels that the user named.
        renamed: Whether the classes get other names later, so that labels may be numbers.
    """

    spec: str
    place: Path
    picture_column: str | None = None
    label_column: str | None = None
    renamed: bool = False

    @property
    def home(self) -> Path:
        """The folder that paths are relative to."""
        return self.place if self.place.is_dir() else self.place.parent

    def check_numbers(self, place: str, labels: Iterable[str]) -> None:
        """Refuse labels that are all numbers, if the classes get no names.

        Raises:
            InputError: All labels are numbers.
        """
        some = list(labels)
        if some and not self.renamed and all(map(is_number, some)):
            raise InputError(
                f"{place}: the labels are numbers ({', '.join(some[:3])} …), which say nothing in a prompt; name the "
                "classes with --class-names FILE, in lines of the number, a tab and the name"
            )


def roles(names: Iterable[str]) -> dict[str, str]:
    """Map "train" and "test" to the data set's own names of these splits."""
    there = set(names)
    test = next((name for name in TESTS if name in there), None)
    return {role: name for role, name in (("train", "train" if "train" in there else None), ("test", test)) if name}


def spelled(name: str) -> str | None:
    """Return the split that a folder's name means, in any case and also as "training" or "testing", or None."""
    lower = {"training": "train", "testing": "test"}.get(name.lower(), name.lower())
    return lower if lower in SPLITS else None


def split_of(relative: Path) -> str | None:
    """Return the split that a file belongs to by its folders or the start of its name, or None."""
    in_name = re.match(rf"({'|'.join(SPLITS)})(?![a-z])", relative.name.lower())
    return next((found for part in relative.parts[:-1] if (found := spelled(part))), in_name and in_name[1])


def files_by_split(asked: Asked, files: Sequence[Path]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Return the files of each split and the names of the splits by role.

    Files that belong to no split are under "all". A file that the user named is for training.
    """
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file.relative_to(asked.home)) or "all", []).append(file)
    if asked.place != asked.home:
        return by_split, {"train": next(iter(by_split))}
    return by_split, roles(by_split) or {"train": "all"}


def in_order(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels: numbers by their value, other texts by the alphabet."""
    texts = sorted(set(labels))
    return sorted(texts, key=float) if all(map(is_number, texts)) else texts


def is_number(label: str) -> bool:
    """Return whether a label is a number, such as "7", "-1", or "7.0" as spreadsheets and pandas write it."""
    return re.fullmatch(r"[-+]?\d+(\.\d*)?", label) is not None


def listed(
    name: str,
    files: Sequence[str | StoredFile],
    labels: Sequence[str],
    classes: Sequence[str],
    content: Callable[[], str],
    note: str | None = None,
) -> Part:
    """Return a split of picture files with their labels, each of which is one of the classes."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({FOLDER_COLUMN: ImageFeature(), "label": ClassLabel(names=list(classes))})
    number = {text: i for i, text in enumerate(classes)}
    columns = {FOLDER_COLUMN: [None] * len(files), "label": [number[text] for text in labels]}
    return Part(name, Dataset.from_dict(columns, features=features), content, tuple(files), note)


def existing(paths: Sequence[str], home: Path, where: Callable[[int], str]) -> list[str]:
    """Return the files at the paths in a table.

    Paths are relative to `home`, or else to one folder in it, as in the lists of public data sets.

    Args:
        paths: The paths as the table has them.
        home: The folder of the table.
        where: Returns the place of a path, such as "labels.csv:7".

    Raises:
        InputError: A file does not exist; the message names the first one and how many are missing.
    """
    broken = next((i for i, path in enumerate(paths) if "\0" in path), None)
    if broken is not None:
        raise InputError(f"{where(broken)}: {printable_path(paths[broken])} is not a path")
    base = _base(paths, home, where)
    files = [os.path.normpath(base / path) for path in paths]
    missing = [i for i, file in enumerate(files) if not os.path.isfile(file)]
    if missing:
        others = f" ({len(missing)} of {len(files)} pictures are missing)" if len(missing) > 1 else ""
        raise InputError(
            f"{where(missing[0])}: {printable_path(paths[missing[0]])} does not exist{others}; paths are relative to "
            f"{printable_path(home)} or to one folder in it"
        )
    return files


def _base(paths: Sequence[str], home: Path, where: Callable[[int], str]) -> Path:
    """Return the folder that paths are relative to, which the first paths tell.

    Raises:
        InputError: Two folders hold different files of such a path.
    """
    first = list(enumerate(paths[:20]))
    if any(os.path.isfile(home / path) for _, path in first):
        return home
    folders = sorted(p for p in home.iterdir() if p.is_dir() and not p.name.startswith("."))
    holding = [folder for folder in folders if any(os.path.isfile(folder / path) for _, path in first)]
    for i, path in first:
        one, *others = [folder for folder in holding if os.path.isfile(folder / path)] or [home]
        for other in others:
            if not filecmp.cmp(one / path, other / path, shallow=False):
                raise InputError(
                    f"{where(i)}: {printable_path(path)} may be in the folder {printable_path(one.name)} or in "
                    f"{printable_path(other.name)}; write the folder into the paths"
                )
    return holding[0] if holding else home


def hash_files(files: Sequence[str | os.PathLike[str]], names: Sequence[str] | None = None) -> str:
    """Return the SHA-256 of the files' bytes; with `names`, also of the names and the files' sizes.

    Raises:
        PromptSearchError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for i, file in enumerate(files):
        try:
            if names is not None:
                digest.update(os.fsencode(f"{names[i]}\0{os.stat(file).st_size}\0"))
            with open(file, "rb") as f:
                while block := f.read(1 << 20):
                    digest.update(block)
        except OSError as e:
            raise PromptSearchError(
                f"{printable_path(file)} cannot be read ({e.strerror or e}); make it readable, or remove it"
            ) from e
    return f"sha256:{digest.hexdigest()}"


def unused_splits(names: Iterable[str], used: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of splits that serve neither as the training nor as the test split."""
    return tuple(name for name in names if name not in used.values())
