"""Labelled pictures from the hub, a folder of parquet files or a folder of pictures, decoded one at a time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.dataset_names import SHORT_NAMES
from promptsearch.evaluators.data.encoded_picture import StoredPicture, printable_path
from promptsearch.evaluators.data.file_kinds import mistaken_for
from promptsearch.evaluators.data.folder_walk import CANNOT_BE_READ, SUFFIXES, Walk, is_parquet, is_picture
from promptsearch.evaluators.data.hub import first_line, load_from_hub, prepared
from promptsearch.evaluators.data.overlap import ends_of_cells, ends_of_file
from promptsearch.evaluators.data.parquet_size import refuse_bombs
from promptsearch.evaluators.data.picture_list import READ, StoredPictures
from promptsearch.plugins import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

DATASETS = Registry("datasets", SHORT_NAMES)
#: The column of a folder's pictures; they are not in the table, whose texts cannot hold every file name.
FOLDER_COLUMN = "image"

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<config>[\w.-]+))?")
_SPLITS = ("train", "test", "validation", "val")
_SPLIT_FILE = re.compile(rf"({'|'.join(_SPLITS)})(?![a-z])")
_FORMS = (
    "parquet files (train-*.parquet and test-*.parquet) or pictures in class folders (train/cat/1.png, test/cat/2.png)"
)


@dataclass(frozen=True)
class _Part:
    """One split: its own name, its `datasets.Dataset`, and a fingerprint of its content.

    Attributes:
        files: The picture files, if the data set is a folder of pictures; the table then has their labels only.
        note: A sentence about the files that were ignored.
    """

    name: str
    table: Any
    content: Callable[[], str]
    files: tuple[str, ...] | None = None
    note: str | None = None


class PictureData:
    """The pictures and labels of a data set, by split ("train" and "test").

    data = open_dataset("../shared/cifar10")
    labels = data.labels("train")
    for picture in data.pictures("train", range(8)):
        print(picture.size)
    """

    def __init__(self, spec: str, parts: dict[str, _Part], picture_column: str | None, label_column: str | None):
        self.spec = spec
        self.splits: tuple[str, ...] = tuple(parts)
        self.train_split: str | None = parts["train"].name if "train" in parts else None
        self.test_split: str | None = parts["test"].name if "test" in parts else None
        self.notes = [f"{spec}, {part.name} split: {part.note}" for part in parts.values() if part.note]
        self._parts = parts
        self._digests: dict[str, str] = {}
        features = next(iter(parts.values())).table.features
        self._picture_column = _find_pictures(spec, features, picture_column)
        self._label_column = _find_labels(spec, features, label_column)
        self._classes = self._find_classes(features[self._label_column])
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
        values: np.ndarray
        if column.null_count:
            values = np.where(np.asarray(column.is_null()), -1, 0)
        elif hasattr(part.table.features[self._label_column], "names"):
            values = np.asarray(column, dtype=np.int64)
        else:
            number = {name: i for i, name in enumerate(self._classes)}
            texts = column.to_pylist()
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
        return StoredPictures(table, where, indices, condition, part.files)

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
            for i, found in enumerate(ends_of_cells(part.table.data.column(self._picture_column), end)):
                yield found or (str(i).encode(), split.encode())  # a path alone: like no other picture
            return
        for path in part.files:
            try:
                yield ends_of_file(path, end)
            except OSError as e:
                raise PromptSearchError(f"{printable_path(path)} cannot be read ({e.strerror or e})") from e

    def _part(self, split: str) -> _Part:
        if split not in self._parts:
            raise PromptSearchError(
                f"data set {self.spec!r} has no {split!r} split (it has {', '.join(self.splits)}); "
                "use a data set with training and test pictures"
            )
        return self._parts[split]

    def _find_classes(self, feature: Any) -> tuple[str, ...]:
        if hasattr(feature, "names"):
            return tuple(feature.names)
        dtype = getattr(feature, "dtype", "")
        if dtype in ("string", "large_string"):
            values = set(self._part("train").table.data.column(self._label_column).to_pylist()) - {None}
            return tuple(sorted(values))
        raise InputError(
            f"data set {self.spec!r}: label column {self._label_column!r} ({dtype or feature}) has no class names; "
            f"save it as a class label: dataset.cast_column({self._label_column!r}, datasets.ClassLabel(names=[...]))"
        )


def open_dataset(spec: str, *, picture_column: str | None = None, label_column: str | None = None) -> PictureData:
    """Open `cifar10`, `cifar100`, a hub id `owner/name[:config]`, or a local folder of parquet files or pictures.

    If there is no test split, "validation" or "val" is used instead.

    Args:
        spec: The name, hub id or folder.
        picture_column: Column of the pictures; None finds it by its type.
        label_column: Column of the labels; None finds it by its type and name.

    Raises:
        InputError: The folder or data set does not exist, its columns are ambiguous, or it has no class names.
        PromptSearchError: The hub is unreachable and nothing is cached, a download or a file is damaged, pictures have
            no labels, or a class has no training pictures.
    """
    folder = _local(spec)
    import datasets

    datasets.disable_progress_bars()  # a line per split of what is ready in a second
    parts = _open_hub(spec) if folder is None else _open_parquet(spec, folder) or _open_pictures(spec, folder)
    return PictureData(spec, parts, picture_column, label_column)


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
    """Return the folder that `spec` names, or None if it is a data set on the hub."""
    path = os.path.expanduser(_named_data(spec))
    if spec and os.path.isdir(path):
        return Path(path)
    if spec and os.path.exists(path):
        raise InputError(f"--dataset {spec}: this is a file; give the folder that holds {_FORMS}")
    _hub_id(spec)
    return None


def _roles(names: Iterable[str]) -> dict[str, str]:
    """Map "train" and "test" to the data set's own names of these splits."""
    there = set(names)
    test = next((name for name in ("test", "validation", "val") if name in there), None)
    return {role: name for role, name in (("train", "train" if "train" in there else None), ("test", test)) if name}


def _open_hub(spec: str) -> dict[str, _Part]:
    repo, config = _hub_id(spec)
    tables, address = load_from_hub(repo, config, spec)
    roles = _roles(tables)
    if not roles:
        raise InputError(f"--dataset {spec}: no train or test split, only {', '.join(tables)}")

    def part(name: str) -> _Part:
        return _Part(name, tables[name], lambda: f"{address}:{name}")

    return {role: part(name) for role, name in roles.items()}


def _open_parquet(spec: str, folder: Path) -> dict[str, _Part]:
    """Return the splits of a folder of parquet files; empty if there are no such files."""
    by_split: dict[str, list[Path]] = {}
    walk = Walk(folder, lenient=True)
    files = walk.files(folder, is_parquet)
    for file in files:
        relative = file.relative_to(folder)
        in_name = _SPLIT_FILE.match(relative.name)
        split = next((part for part in relative.parts[:-1] if part in _SPLITS), in_name and in_name[1])
        if split is not None:
            by_split.setdefault(split, []).append(file)
    roles = _roles(by_split)
    if not files and (unreadable := walk.left_out.paths.get(CANNOT_BE_READ)) and not _picture_splits(folder):
        raise PromptSearchError(
            f"data set {spec!r}: {printable_path(unreadable[0])} cannot be read; make it readable, or remove it"
        )
    if files and not roles:
        raise InputError(
            f"--dataset {spec}: {files[0].name} belongs to no split; name the files train-*.parquet and test-*.parquet"
        )

    def part(name: str) -> _Part:
        from datasets import Dataset, NamedSplit

        ours = by_split[name]
        places = sorted({str(file.parent.relative_to(folder)) for file in ours})
        if len(places) > 1:
            raise InputError(
                f"--dataset {spec}: {name} files in several folders ({', '.join(places)}); give one of these folders"
            )
        try:
            refuse_bombs(ours)
            # Split by split, or the class names of the second would be taken to be those of the first; and not by
            # load_dataset("parquet"), which tells a counter on the network about it and waits for the answer.
            table = Dataset.from_parquet([_literal(file) for file in ours], split=NamedSplit(name))
        except PromptSearchError as error:
            raise PromptSearchError(f"data set {spec!r}: {error}") from error
        except Exception as error:  # pyarrow's and datasets' errors share no base class
            cause = error.__cause__ or error
            raise PromptSearchError(
                f"data set {spec!r}: {printable_path(ours[0].name)} cannot be read ({_why_broken(ours, cause)})"
            ) from error
        return _Part(name, table, lambda: _hash(ours))

    return {role: part(name) for role, name in roles.items()}


def _open_pictures(spec: str, folder: Path) -> dict[str, _Part]:
    """Return the splits of a folder SPLIT/CLASS/.../PICTURE.

    This is the layout of `datasets`' imagefolder, whose indexing takes half a minute and is not used.
    """
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    roles = _roles(_picture_splits(folder))
    if not roles:
        walk = Walk(folder, lenient=True)
        if any(walk.files(child, is_picture) for child in walk.folders(folder)):
            raise InputError(
                f"--dataset {spec}: class folders without splits; move them into a train and a test folder "
                "(train/cat/1.png, test/cat/2.png)"
            )
        raise InputError(f"--dataset {spec}: this folder holds no {_FORMS}")
    walks = {role: Walk(folder) for role in roles}
    children = {role: walks[role].folders(folder / name) for role, name in roles.items()}
    classes = sorted({child.name for found in children.values() for child in found})
    spoken_names(f"data set {spec!r}", classes)  # before pyarrow meets them: it takes no name that is no UTF-8
    features = Features({FOLDER_COLUMN: ImageFeature(), "label": ClassLabel(names=classes)})

    def part(role: str, name: str) -> _Part:
        home, walk = folder / name, walks[role]
        stray = next((f for f in sorted(home.iterdir()) if _is_stray(f)), None)
        if stray is not None:
            shown = printable_path(stray.name)
            raise InputError(
                f"--dataset {spec}: {name}/{shown} lies in no class folder; move it to {name}/CLASS/{shown}"
            )
        found = [(file, classes.index(c.name)) for c in children[role] for file in walk.files(c, is_picture)]
        note = " ".join(filter(None, (walk.left_out.sentence(), walk.led_out_sentence())))
        if not found:
            raise InputError(
                f"--dataset {spec}: {name} holds no pictures in class folders ({name}/cat/1.png){note and '. ' + note}"
            )
        files = [file for file, _ in found]
        columns = {FOLDER_COLUMN: [None] * len(files), "label": [label for _, label in found]}
        table = Dataset.from_dict(columns, features=features)
        return _Part(name, table, lambda: _hash(files, home), tuple(map(str, files)), note or None)

    return {role: part(role, name) for role, name in roles.items()}


def _picture_splits(folder: Path) -> list[str]:
    """Return the names of a folder's subfolders that are splits."""
    return [name for name in _SPLITS if os.path.isdir(folder / name)]


def _is_stray(file: Path) -> bool:
    """Return whether a file is a picture that lies beside the class folders instead of in one."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and os.path.isfile(file)


def _literal(file: Path) -> str:
    """Return a path as a glob pattern that matches only this path."""
    return re.sub(r"([\[*?])", r"[\1]", str(file.resolve()))


def _why_broken(files: Sequence[Path], error: BaseException) -> str:
    """Return why parquet files cannot be read, and how to solve it."""
    for file in files:
        with contextlib.suppress(OSError), file.open("rb") as f:
            if found := mistaken_for(f.read(512)):
                return f"{printable_path(file.name)} is {found[0]}; {found[1]}"
    return f"{first_line(error)}; download it again"


def _hash(files: Sequence[Path], home: Path | None = None) -> str:
    """Return the sha256 of the files' bytes; with `home`, their paths relative to it and sizes are hashed too.

    Raises:
        PromptSearchError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            if home is not None:
                digest.update(os.fsencode(f"{file.relative_to(home).as_posix()}\0{file.stat().st_size}\0"))
            with file.open("rb") as f:
                while block := f.read(1 << 20):
                    digest.update(block)
        except OSError as e:
            raise PromptSearchError(
                f"{printable_path(file)} cannot be read ({e.strerror or e}); make it readable, or remove it"
            ) from e
    return f"sha256:{digest.hexdigest()}"


def _find_pictures(spec: str, features: Any, named: str | None) -> str:
    from datasets import Image as ImageFeature

    if named is not None:
        feature = _named(spec, features, named, "--picture-column")
        plain = isinstance(feature, dict) and "bytes" in feature
        if isinstance(feature, ImageFeature) or plain or "binary" in str(getattr(feature, "dtype", "")):
            return named
        raise InputError(f"--picture-column {named}: {spec!r} has no pictures there but {feature}")
    found = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
    return _one(spec, features, found, ("img", "image"), "picture column", "--picture-column")


def _find_labels(spec: str, features: Any, named: str | None) -> str:
    if named is not None:
        _named(spec, features, named, "--label-column")
        return named
    preferred = ("label", "fine_label")
    found = [name for name, feature in features.items() if hasattr(feature, "names")]
    if not found:  # plain numbers or texts under a usual name
        found = [name for name in preferred if name in features]
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
