"""Labelled pictures from the hub, a folder of parquet files or a folder of pictures, decoded one at a time."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.class_folders import FORMS, open_class_folders, picture_splits
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.dataset_names import SHORT_NAMES
from promptsearch.evaluators.data.encoded_picture import StoredPicture, printable_path
from promptsearch.evaluators.data.folder_walk import Walk
from promptsearch.evaluators.data.holdout import check_share, hold_out
from promptsearch.evaluators.data.hub import prepared
from promptsearch.evaluators.data.hub_data import RemotePicture, open_hub
from promptsearch.evaluators.data.listing import READERS, listing_in, open_listing
from promptsearch.evaluators.data.overlap import ends_of_bytes, ends_of_cells, ends_of_file
from promptsearch.evaluators.data.parquet_files import open_parquet
from promptsearch.evaluators.data.parts import (
    LABELS,
    PATHS,
    Asked,
    Layout,
    Part,
    existing,
    hash_files,
    in_order,
)
from promptsearch.evaluators.data.picture_list import READ, StoredPictures, TarMember
from promptsearch.evaluators.data.tar_shards import open_tars
from promptsearch.plugins import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.evaluators.cache import Cache

DATASETS = Registry("datasets", SHORT_NAMES)

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<config>[\w.-]+))?")

#: Called with (pictures done, pictures in all, what is being done).
Told = Callable[[int, int, str], None]


class PictureData:
    """The pictures and labels of a data set, by split ("train" and "test").

    data = open_dataset("../shared/cifar10")
    labels = data.labels("train")
    for picture in data.pictures("train", range(8)):
        print(picture.size)
    """

    def __init__(self, asked: Asked, layout: Layout) -> None:
        parts, spec = layout.parts, asked.spec
        self.spec = spec
        self.layout = layout
        self.notes = [f"{spec}, {part.name} split: {part.note}" for part in parts.values() if part.note]
        features = next(iter(parts.values())).table.features
        named = (asked.picture_column, asked.label_column) if layout.named else (None, None)
        self._picture_column = _find_pictures(spec, features, named[0])
        self._label_column = _find_labels(spec, features, named[1])
        parts = {
            role: part if part.lazy is None else replace(part, files=part.lazy(self._picture_column))
            for role, part in parts.items()
        }
        if _is_text(features[self._picture_column]):
            parts = {role: self._with_files(part, asked) for role, part in parts.items()}
        self._take(parts)
        self._classes = self._find_classes(features[self._label_column], asked)
        if len(self._classes) < 2:
            raise InputError(
                f"data set {spec!r}: one class ({', '.join(self._classes)}) in column {self._label_column!r}; "
                "classification needs two or more"
            )
        self.class_names: tuple[str, ...] = spoken_names(f"data set {spec!r}", self._classes)
        for part in parts.values():
            for column in (self._picture_column, self._label_column):
                if part.table.features.get(column) != features[column]:
                    raise InputError(
                        f"data set {spec!r}: column {column!r} is missing or has other classes in split {part.name!r} "
                        f"than in {self.splits[0]!r}; save both splits with the same features"
                    )
        if "train" in parts:
            self.labels("train")

    def _take(self, parts: dict[str, Part]) -> None:
        self.splits: tuple[str, ...] = tuple(parts)
        self.train_split: str | None = parts["train"].name if "train" in parts else None
        self.test_split: str | None = parts["test"].name if "test" in parts else None
        self._parts = parts
        self._digests: dict[str, str] = {}

    def divided(self, share: float, seed: int, cache: Cache | None = None, told: Told | None = None) -> PictureData:
        """Return the data set with a share of each class's training pictures as its test split.

        Pictures that are nearly the same are in the same split (see `holdout`).

        Args:
            share: Share of the pictures, above 0 and below 1.
            seed: Seed of the choice.
            cache: Where the pictures' hashes are cached; None to cache nothing.
            told: Called with the progress.

        Raises:
            InputError: The data set has a test split already.
        """
        if (test := self._parts.get("test")) is not None:
            raise InputError(
                f"--test-share {share:g}: data set {self.spec!r} has a test split ({test.name}); leave the option out"
            )
        whole = self._part("train")
        held = hold_out(self, share, seed, cache, told)
        if not held.test.any():
            raise InputError(
                f"--test-share {share:g}: no picture of {self.spec!r} can be held out, because each class has one "
                "picture only, or pictures that are nearly the same; add pictures"
            )
        parts: dict[str, Part] = {}
        for role, mask in (("train", ~held.test), ("test", held.test)):
            rows = np.flatnonzero(mask)

            def content(rows: np.ndarray = rows) -> str:
                return f"{whole.content()}@{hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()}"

            parts[role] = replace(whole, name=role, rows=rows, content=content)
        other = copy.copy(self)
        other._take(parts)
        other.notes = [*self.notes, f"{self.spec}: {held.sentence}"]
        return other

    def labels(self, split: str) -> np.ndarray:
        """Return the class indices of a split, in the data set's own order.

        Args:
            split: "train" or "test".

        Returns:
            (N,) int64 class indices.

        Raises:
            PromptSearchError: The split does not exist, some pictures have no label, or a class has no training
                picture.
        """
        part = self._part(split)
        column = part.table.data.column(self._label_column)
        column = column if part.rows is None else column.take(part.rows)
        values: np.ndarray
        if column.null_count:
            values = np.where(np.asarray(column.is_null()), -1, 0)
        elif hasattr(part.table.features[self._label_column], "names"):
            values = np.asarray(column, dtype=np.int64)
        else:
            number = {name: i for i, name in enumerate(self._classes)}
            texts = list(map(str, self._values(column, self._label_column, split)))
            unknown = sorted(set(texts) - set(number))
            if unknown:
                raise PromptSearchError(
                    f"data set {self.spec!r}, split {part.name!r}: class {unknown[0]!r} is not among the "
                    f"{len(number)} classes of the training split; use the same names in both"
                )
            values = np.array([number[text] for text in texts], dtype=np.int64)
        wrong = np.flatnonzero((values < 0) | (values >= len(self._classes)))
        if len(wrong):
            raise PromptSearchError(
                f"data set {self.spec!r}, split {part.name!r}: {len(wrong)} of {len(values)} pictures have no label "
                f"(the first is {wrong[0]}); use a data set whose {split} labels are public"
            )
        missing = sorted(set(range(len(self._classes))) - set(np.unique(values).tolist())) if split == "train" else []
        if missing:
            raise PromptSearchError(
                f"data set {self.spec!r}, split {part.name!r}: class {self._classes[missing[0]]!r} has no picture; "
                "add some, or remove the class"
            )
        return values

    def fingerprint(self, split: str) -> str:
        """Return a fingerprint of a split: its pictures' bytes, its labels, and the columns that both are read from."""
        if split not in self._digests:
            self._digests[split] = self._part(split).content()
        return f"{self._digests[split]}#{self._picture_column},{self._label_column}"

    def pictures(self, split: str, indices: Iterable[int]) -> Iterator[Image]:
        """Yield RGB pictures in the order of `indices`, decoded one at a time.

        Args:
            split: "train" or "test".
            indices: Indices of pictures in the split.

        Raises:
            InputError: An index is not in the split.
            PromptSearchError: A picture cannot be decoded.
        """
        for picture in self.stored(split, indices):
            yield picture.open()

    def stored(self, split: str, indices: Iterable[int], condition: str | None = None) -> Iterator[StoredPicture]:
        """Yield the encoded pictures in the order of `indices`.

        Args:
            split: "train" or "test".
            indices: Indices of pictures in the split.
            condition: The condition that is applied when a picture is opened; None leaves it as it is.

        Raises:
            InputError: An index is not in the split.
        """
        known, waiting = self.stored_list(split, (), condition), iter(indices)
        while some := list(itertools.islice(waiting, READ)):
            yield from known.at(some)

    def stored_list(self, split: str, indices: Sequence[int], condition: str | None = None) -> StoredPictures:
        """Return the pictures of `stored` as a sequence that reads each on access, also from several processes."""
        from datasets import Image as ImageFeature

        part = self._part(split)
        column = self._picture_column
        table = part.table.select_columns([column])
        if isinstance(table.features[column], ImageFeature):
            table = table.cast_column(column, ImageFeature(decode=False))
        where = f"data set {self.spec!r}, split {part.name!r}"
        return StoredPictures(table, where, indices, condition, part.files, part.rows)

    def contents(self, split: str, end: int) -> Iterator[tuple[bytes, ...]]:
        """Yield the size and the first and last `end` bytes of every picture of a split.

        Args:
            split: "train" or "test".
            end: Number of bytes.

        Raises:
            PromptSearchError: A file cannot be read.
        """
        part = self._part(split)
        if part.files is None:
            column = part.table.data.column(self._picture_column)
            column = column if part.rows is None else column.take(part.rows)
            for i, found in enumerate(ends_of_cells(column, end)):
                # without the bytes, a picture counts as different from all others
                yield found or (str(i).encode(), split.encode())
            return
        for row in range(len(part.files)) if part.rows is None else part.rows.tolist():
            file = part.files[row]
            if isinstance(file, RemotePicture):
                # pictures are not fetched for this, so each counts as different from all others
                yield str(row).encode(), split.encode()
                continue
            if isinstance(file, TarMember):
                yield ends_of_bytes(file.read(), end)
                continue
            try:
                yield ends_of_file(str(file), end)
            except OSError as e:
                raise PromptSearchError(f"{printable_path(str(file))} cannot be read ({e.strerror or e})") from e

    def is_remote(self, split: str) -> bool:
        """Return whether the pictures of a split are fetched from the hub when they are read."""
        return self._part(split).lazy is not None

    def _part(self, split: str) -> Part:
        if split not in self._parts and split == "test":
            raise InputError(
                f"data set {self.spec!r} has no 'test' split (it has {self.train_split}); hold out a share of its "
                "pictures with --test-share 0.3"
            )
        if split not in self._parts:
            raise PromptSearchError(
                f"data set {self.spec!r} has no {split!r} split (it has {', '.join(self.splits)}); "
                "use a data set with training and test pictures"
            )
        return self._parts[split]

    def _with_files(self, part: Part, asked: Asked) -> Part:
        """Return a split whose column of pictures has their paths, with the files themselves."""
        paths = self._values(part.table.data.column(self._picture_column), self._picture_column, part.name)
        where = f"data set {self.spec!r}, split {part.name!r}"
        if None in paths:
            raise InputError(f"{where}, row {paths.index(None)}: column {self._picture_column!r} has no path")
        files = existing(paths, asked.home, lambda i: f"{where}, row {i}")

        def content() -> str:
            return f"{part.content()}{hash_files(files)}"

        return replace(part, files=files, content=content)

    def _values(self, column: Any, name: str, split: str) -> list[Any]:
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError as e:  # pyarrow does not check the texts of a file that it reads
            raise InputError(
                f"data set {self.spec!r}, split {split!r}: column {name!r} holds text that is not UTF-8; "
                "the file is damaged, or was written in another encoding: write it again"
            ) from e

    def _find_classes(self, feature: Any, asked: Asked) -> tuple[str, ...]:
        if hasattr(feature, "names"):
            return tuple(feature.names)
        dtype = str(getattr(feature, "dtype", ""))
        if _is_text(feature) or (asked.renamed and "int" in dtype):
            part = self._part("train")
            values = set(self._values(part.table.data.column(self._label_column), self._label_column, part.name)) - {
                None
            }
            classes = in_order(map(str, values))
            asked.check_numbers(f"data set {self.spec!r}, column {self._label_column!r}", classes)
            return tuple(classes)
        remedy = "name the classes with --class-names FILE, one a line by their numbers, or " if "int" in dtype else ""
        raise InputError(
            f"data set {self.spec!r}: label column {self._label_column!r} ({dtype or feature}) has no class names; "
            f"{remedy}save it as a class label: dataset.cast_column({self._label_column!r}, "
            "datasets.ClassLabel(names=[...]))"
        )


def open_dataset(
    spec: str,
    *,
    picture_column: str | None = None,
    label_column: str | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
    renamed: bool = False,
    cache: Cache | None = None,
    told: Told | None = None,
) -> PictureData:
    """Open `cifar10`, `cifar100`, a hub id `owner/name[:config]`, or a local data set.

    A local data set is a folder of pictures in class folders, with or without splits; parquet files; webdataset
    archives; or a file that lists pictures with their labels (CSV, JSON lines, CoOp's split_zhou_*.json).  If there is
    no test split, "validation", "valid" or "val" is used instead.

    Args:
        spec: The name, hub id, folder or file.
        picture_column: Column of the pictures or their paths; None finds it by its type and name.
        label_column: Column of the labels; None finds it by its type and name.
        test_share: Share of each class's pictures to hold out as the test split, if there is none.
        split_seed: Seed by which they are chosen.
        renamed: Whether the classes get other names later, so that labels may be numbers.
        cache: Where hashes of the pictures are cached; None to cache nothing.
        told: Called with the progress.

    Raises:
        InputError: The folder or data set does not exist, its columns are ambiguous, it has no class names, or a list
            of pictures is wrong.
        PromptSearchError: The hub is unreachable and nothing is cached, a download or a file is damaged, pictures have
            no labels, or a class has no training pictures.
    """
    if test_share is not None:
        check_share(test_share, split_seed)
    place = _local(spec)
    import datasets

    datasets.disable_progress_bars()  # otherwise each split gets a progress bar for a second of work
    asked = Asked(spec, place or Path(), picture_column, label_column, renamed)
    data = PictureData(asked, open_hub(asked, *_hub_id(spec)) if place is None else _open_local(asked))
    return data if test_share is None else data.divided(test_share, split_seed, cache, told)


def dataset_cached(spec: str) -> bool:
    """Return whether `open_dataset(spec)` works offline: it is a local folder, or is in the cache of `datasets`."""
    return _local(spec) is not None or prepared(*_hub_id(spec))


def _hub_id(spec: str) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(_named_data(spec))
    if match is None:
        raise InputError(
            f"--dataset {spec}: no such folder, and neither {', '.join(DATASETS)} nor a hub id owner/name[:config]"
        )
    return match["repo"], match["config"]


def _named_data(spec: str) -> str:
    """Return the hub id or folder of a short name (CIFAR, or a plug-in's); any other text is returned unchanged."""
    if spec in SHORT_NAMES:
        return SHORT_NAMES[spec]
    if not re.fullmatch(r"\w[\w-]*", spec) or os.path.exists(spec) or spec not in DATASETS:
        return spec
    named = DATASETS[spec]
    return str(named() if callable(named) else named)


def _local(spec: str) -> Path | None:
    """Return the folder or file that `spec` names, or None if it is a data set on the hub."""
    path = os.path.expanduser(_named_data(spec))
    if spec and (os.path.isdir(path) or Path(path).suffix.lower() in FILE_LAYOUTS and os.path.isfile(path)):
        return Path(path)
    if spec and os.path.exists(path):
        if Path(path).suffix.lower() == ".zip":
            raise InputError(f"--dataset {spec}: a zip archive; unpack it, and give the folder")
        raise InputError(
            f"--dataset {spec}: not a file of a known kind; give a list of pictures (CSV, JSON lines, CoOp's JSON), a "
            f"parquet file or a tar archive, or a folder that holds {FORMS}"
        )
    _hub_id(spec)
    return None


def _open_local(asked: Asked) -> Layout:
    """Open a file or a folder by its layout; if a folder fits several layouts, the first in this order is used."""
    place = asked.place
    if place.is_file():
        found = FILE_LAYOUTS[place.suffix.lower()](asked)
        assert found is not None  # a file without a known suffix was refused before
        return found
    if found := open_parquet(asked):
        return found
    if not any(Walk(place, lenient=True).folders(place / name) for name in picture_splits(place)):
        if found := open_tars(asked):
            return found
        if (file := listing_in(place)) is not None:
            return open_listing(replace(asked, place=file))
    return open_class_folders(asked)


#: What opens a file, by its suffix.
FILE_LAYOUTS: dict[str, Callable[[Asked], Layout | None]] = {
    ".parquet": open_parquet,
    ".tar": open_tars,
    **dict.fromkeys(READERS, open_listing),
}


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")) in ("string", "large_string") and not hasattr(feature, "names")


def _is_bytes(feature: Any) -> bool:
    return isinstance(feature, dict) and "bytes" in feature or "binary" in str(getattr(feature, "dtype", ""))


def _find_pictures(spec: str, features: Any, named: str | None) -> str:
    from datasets import Image as ImageFeature

    if named is not None:
        feature = _named(spec, features, named, "--picture-column")
        if isinstance(feature, ImageFeature) or _is_bytes(feature) or _is_text(feature):
            return named
        raise InputError(f"--picture-column {named}: {spec!r} has no pictures there but {feature}")
    found = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
    found = found or [name for name, feature in features.items() if _is_bytes(feature)]
    found = found or [name for name, feature in features.items() if name.lower() in PATHS and _is_text(feature)]
    return _one(spec, features, found, ("img", "image"), "picture column", "--picture-column")


def _find_labels(spec: str, features: Any, named: str | None) -> str:
    if named is not None:
        _named(spec, features, named, "--label-column")
        return named
    preferred = ("label", "fine_label")
    found = [name for name, feature in features.items() if hasattr(feature, "names")]
    if not found:  # then a column of numbers or texts with a usual name
        found = [name for name in features if name in preferred] or [n for n in features if n.lower() in LABELS]
    return _one(spec, features, found, preferred, "label column", "--label-column")


def _named(spec: str, features: Any, name: str, option: str) -> Any:
    if name not in features:
        raise InputError(f"{option} {name}: {spec!r} has no such column; there are {', '.join(features)}")
    return features[name]


def _one(spec: str, features: Any, found: list[str], preferred: Sequence[str], what: str, option: str) -> str:
    chosen = found if len(found) == 1 else [name for name in preferred if name in found]
    if chosen:
        return chosen[0]
    if found:
        raise InputError(f"data set {spec!r}: several {what}s ({', '.join(found)}); choose one with {option}")
    raise InputError(f"data set {spec!r}: no {what} among {', '.join(features)}; name one with {option}")
