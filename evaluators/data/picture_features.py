"""Picture features of a data set: read from a feature pack, or computed by a model and cached in blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks.template import printable, shorten
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import Block, Cache, digest_of, read_block, write_block
from promptsearch.evaluators.data.array_features import ArrayFeatures
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.data.encoded_picture import DECODING
from promptsearch.evaluators.data.folder_walk import Walk
from promptsearch.evaluators.data.overlap import count_shared
from promptsearch.evaluators.encoding.encoder import Encoder
from promptsearch.evaluators.encoding.model_spec import ModelSpec

if TYPE_CHECKING:
    from promptsearch.evaluators.data.datasets import PictureData
    from promptsearch.evaluators.data.encoded_picture import StoredPicture

#: Pictures encoded between two writes to the cache. A killed process loses at most these; a GPU waits for each write.
BLOCK = {"cpu": 1024, "cuda": 8192}

log = logging.getLogger(__name__)


def pack_key(model: ModelSpec, dataset: str, split: str) -> dict[str, str]:
    """Return the cache key of a feature pack: the model's fingerprint, the data set's name and the split."""
    return {"model": model.fingerprint, "dataset": dataset, "split": split}


class PackFeatures:
    """Features without pictures, from a shipped pack or one that `promptsearch features import` imported."""

    has_test = True

    def __init__(self, model: ModelSpec, dataset: str, cache: Cache) -> None:
        self.name = dataset
        self._model, self._cache = model, cache
        self._loaded: dict[str, Block] = {}
        meta = self._block("train").meta
        self.class_names: tuple[str, ...] = tuple(meta["class_names"])
        self.origin = f"feature pack made with {printable(meta['made_with'])}"
        self.fingerprint = str(meta["data"])
        self.notes = [f"Pictures: {self.origin}."]
        self._data: PictureData | None = None

    @property
    def has_pictures(self) -> bool:
        """True if `take_pictures` was called."""
        return self._data is not None

    @property
    def identity(self) -> str:
        """What tells the pictures from others, however a data set is named: a shipped pack's name, or `fingerprint`."""
        path = self._block("train").path
        return self.name if any(path.is_relative_to(pack) for pack in self._cache.packs) else self.fingerprint

    def take_pictures(self, data: PictureData) -> None:
        """Attach the pictures that the features were computed from, for methods that need more than features.

        Args:
            data: The pictures.

        Raises:
            InputError: The pictures' classes or labels differ from the pack's.
        """
        for split in ("train", "test"):
            labels, indices = self.labels(split)
            theirs = data.labels(split)
            fits = data.class_names == self.class_names and indices.max() < len(theirs)
            if not fits or (theirs[indices] != labels).any():
                raise InputError(
                    f"--pictures {data.spec}: the feature pack of {self.name} was not made from these pictures: its "
                    f"{split} split has other classes or labels; name the data set that it was made from"
                )
        self._data = data

    @property
    def pictures_fingerprint(self) -> str:
        """Fingerprint of the pictures' bytes; without pictures, the fingerprint of the pack."""
        if self._data is None:
            return self.fingerprint
        contents = [self._data.fingerprint(split) for split in ("train", "test")]
        return digest_of([*contents, split_condition(self.name)[1], DECODING])

    def stored(self, split: str, indices: Iterable[int]) -> Iterator[StoredPicture]:
        """Yield the encoded pictures at these indices of the data set's split.

        Raises:
            InputError: No pictures were attached to the pack.
        """
        if self._data is None:
            raise InputError(
                f"--dataset {self.name}: there is a feature pack only, but this needs the pictures; "
                "give them with --pictures FOLDER"
            )
        return self._data.stored(split, indices, split_condition(self.name)[1])

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of all pictures of a split, and their indices in the data set's split."""
        arrays = self._block(split).arrays
        return arrays["labels"].astype(np.int64), arrays["indices"].astype(np.int64)

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors (n, D) of pictures by their positions in the result of `labels`."""
        arrays = self._block(split).arrays
        found = arrays["features"][positions].astype(np.float32)
        if (bad := _not_finite(found)) is not None:
            raise PromptSearchError(
                f"the feature pack of {self.name} has a feature that is not finite, of picture "
                f"{arrays['indices'][positions][bad]} of the {split} split; make the pack again"
            )
        return found

    def _block(self, split: str) -> Block:
        if split not in self._loaded:
            block = self._cache.get("packs", pack_key(self._model, self.name, split))
            if block is None:
                raise PromptSearchError(
                    f"the feature pack of {self.name} for --model {self._model.name} has no sound {split} split; "
                    "import it again, or give the pictures with --dataset PATH"
                )
            if wrong := _why_no_pack(block):
                raise PromptSearchError(f"the feature pack of {self.name} cannot be used: {wrong}; import it again")
            self._loaded[split] = block
        return self._loaded[split]


def has_pack(model: ModelSpec, dataset: str, cache: Cache) -> bool:
    """Return whether the cache has a feature pack of this data set for this model."""
    return cache.holds("packs", pack_key(model, dataset, "train"))


def packs_of(dataset: str, cache: Cache) -> list[tuple[str, str]]:
    """Return the model's fingerprint and the maker of every feature pack of a data set, whatever its model."""
    found = cache.headers("packs")
    return [(key["model"], meta.get("made_with", "")) for key, meta in found if key.get("dataset") == dataset]


def pictures_fingerprint(data: PictureData, condition: str | None) -> str:
    """Return the fingerprint of a data set's pictures in a condition, with its own class names."""
    return digest_of([data.fingerprint("train"), data.fingerprint("test"), condition, DECODING])


def renamed_fingerprint(fingerprint: str, class_names: Sequence[str]) -> str:
    """Return the fingerprint of pictures whose classes are called by other names than the data set's."""
    return digest_of([fingerprint, list(class_names)])


class LiveFeatures:
    """Features computed from pictures on demand; the cache keeps them, so each picture is encoded only once."""

    def __init__(self, data: PictureData, condition: str | None, name: str, encoder: Encoder, cache: Cache) -> None:
        self.name = name
        self.class_names = data.class_names
        self.origin = "pictures" if condition is None else f"pictures, made {condition} on the fly"
        self.fingerprint = pictures_fingerprint(data, condition)
        self._data, self._condition, self._encoder, self._cache = data, condition, encoder, cache
        self._known: dict[str, dict[int, np.ndarray]] = {}
        self.pictures_fingerprint = self.identity = self.fingerprint
        self.notes = [*data.notes, *self._test_notes()]

    has_pictures = True
    has_test = True

    def _test_notes(self) -> list[str]:
        """Return notes about the test split: classes without pictures, and pictures that are also in training."""
        notes: list[str] = []
        try:
            labels = self._data.labels("test")
        except PromptSearchError:  # the error is raised when the test split is opened
            return notes
        tested = set(labels.tolist())
        without = [name for c, name in enumerate(self.class_names) if c not in tested]
        if without:
            some = ", ".join(map(printable, without[:5])) + (" …" if len(without) > 5 else "")
            notes.append(
                f"{len(without)} of {len(self.class_names)} classes have no test picture ({some}): "
                "test accuracy says nothing about them."
            )
        key = {split: self._data.fingerprint(split) for split in ("train", "test")}
        block = self._cache.get("overlaps", key)
        shared = count_shared(self._data) if block is None else int(block.meta["shared"])
        if block is None:
            self._cache.add("overlaps", key, {}, {"shared": shared})
        if shared:
            notes.append(
                f"{shared} of {len(labels)} test pictures are also training pictures, byte for byte: "
                "test accuracy is not that of unseen pictures."
            )
        return notes

    def count_trained(self, other: LiveFeatures) -> int:
        """Count the test pictures that are training pictures of another data set, byte for byte."""
        return count_shared(self._data, other._data)

    def stored(self, split: str, indices: Iterable[int]) -> Iterator[StoredPicture]:
        """Yield the encoded pictures at these indices of the data set's split."""
        return self._data.stored(split, indices, self._condition)

    def labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of all pictures of a split, and their indices in the data set's split."""
        labels = self._data.labels(split)
        return labels, np.arange(len(labels))

    def features(self, split: str, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors (n, D) of pictures by their positions, encoding those that are not cached."""
        known = self._load(split)
        missing = sorted({int(p) for p in positions} - known.keys())
        log.info("%s pictures: %d wanted, %d not in the cache", split, len(positions), len(missing))
        size = BLOCK["cpu" if self._encoder.spec.device == "cpu" else "cuda"]
        parts = [np.array(missing[at : at + size]) for at in range(0, len(missing), size)]
        blocks = [self._data.stored_list(split, part.tolist(), self._condition) for part in parts]

        def told(done: int) -> None:
            self._encoder.progress(done, len(missing), f"encoding {split} pictures")

        for n, vectors in self._encoder.encode_blocks(blocks, told):
            self._cache.add("pictures", self._key(split), {"positions": parts[n], "features": vectors})
            known.update(zip(parts[n].tolist(), vectors, strict=True))
        if missing:
            self._encoder.progress(len(missing), len(missing), f"encoding {split} pictures")
        return np.stack([known[int(p)] for p in positions])

    def _key(self, split: str) -> dict[str, Any]:
        about = {"data": self._data.fingerprint(split), "split": split, "condition": self._condition or ""}
        return {**self._encoder.spec.picture_key, **about, "decoding": DECODING}

    def _load(self, split: str) -> dict[int, np.ndarray]:
        if split not in self._known:
            known: dict[int, np.ndarray] = {}
            for block in self._cache.blocks("pictures", self._key(split)):
                known.update(zip(block.arrays["positions"].tolist(), block.arrays["features"], strict=True))
            self._known[split] = known
        return self._known[split]


def export_pack(
    source: PackFeatures | LiveFeatures | ArrayFeatures,
    model: ModelSpec,
    folder: Path,
    positions: dict[str, np.ndarray] | None = None,
    dtype: type[np.floating[Any]] = np.float32,
) -> list[Path]:
    """Write a data set's features as a pack of one block per split, which `import_pack` reads on another machine.

    Args:
        source: The data set's features.
        model: The model that computed them.
        folder: The folder to write to.
        positions: The pictures of each split to write; all, if a split is not given.
        dtype: Type of the features in the files.

    Raises:
        InputError: The folder cannot be written.
    """
    written = []
    for split in ("train", "test"):
        labels, indices = source.labels(split)
        at = (positions or {}).get(split, np.arange(len(labels)))
        arrays = {
            "features": source.features(split, at).astype(dtype),
            "labels": labels[at].astype(np.int16),
            "indices": indices[at].astype(np.int32),
        }
        meta = {
            "class_names": list(source.class_names),
            "made_with": f"{model.name} ({model.precision}, {model.device})",
            "data": source.fingerprint,
        }
        key = pack_key(model, source.name, split)
        try:
            written.append(write_block(folder / "packs" / digest_of(key), key, arrays, meta))
        except OSError as e:
            raise InputError(f"cannot write the pack to {folder}: {e.strerror or e}") from e
    return written


def import_pack(folder: Path, cache: Cache) -> list[dict[str, Any]]:
    """Check every block of a pack, and copy the blocks to the cache if all are valid.

    Args:
        folder: The folder of the pack.
        cache: The cache.

    Returns:
        The keys of the blocks.

    Raises:
        InputError: The folder has no pack, or a file is damaged or is not a block; then nothing is imported.
    """
    files = Walk(folder, lenient=True).files(folder, _is_block) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: no feature pack there (a folder written by `promptsearch features export`)")
    blocks: list[Block] = []
    for file in files:
        try:
            block = read_block(file)
        except (ValueError, OSError) as e:
            raise InputError(f"{file}: {e}; fetch the pack again") from e
        if wrong := _why_no_pack(block) or _why_bad_vectors(block):
            raise InputError(f"{file}: not a block of a feature pack: {wrong}; make the pack again")
        blocks.append(block)
    about: dict[tuple[str, str], Block] = {}
    for block in blocks:
        first = about.setdefault((block.key["model"], block.key["dataset"]), block)
        if _form(first) != _form(block):
            raise InputError(f"{block.path}: other classes or dimensions than {first.path.name}; make the pack again")
    for block in blocks:
        cache.add("packs", block.key, block.arrays, block.meta)
    return [b.key for b in blocks]


def _is_block(path: Path, walk: Walk) -> bool:
    return path.suffix == ".safetensors"


def _form(block: Block) -> tuple[Any, ...]:
    return tuple(block.meta["class_names"]), block.arrays["features"].shape[1]


def _why_no_pack(block: Block) -> str | None:
    """Return None if a block's key, metadata and shapes are those of a feature pack's split, else what is wrong."""
    key, meta, arrays = block.key, block.meta, block.arrays
    if not all(isinstance(key.get(k), str) for k in ("model", "dataset", "split")):
        return "its key names no model, data set and split"
    if key["split"] not in ("train", "test"):
        return f"split {shorten(key['split'])} is neither train nor test"
    if not all(isinstance(meta.get(k), str) for k in ("made_with", "data")):
        return "it does not say what it was made with"
    names = meta.get("class_names")
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(n, str) for n in names):
        return "it has no list of two or more class names"
    try:
        spoken_names("the pack", names)
    except InputError as e:
        return str(e)
    if not {"features", "labels", "indices"} <= arrays.keys():
        return "features, labels or indices are missing"
    features, labels, indices = (arrays[k] for k in ("features", "labels", "indices"))
    if features.ndim != 2 or not features.size or not np.issubdtype(features.dtype, np.floating):
        return f"features of shape {features.shape} and type {features.dtype}"
    for name, values in (("labels", labels), ("indices", indices)):
        if values.shape != features.shape[:1] or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
            return f"{name} of shape {values.shape} and type {values.dtype}, or below 0"
    if labels.max() >= len(names):
        return f"label {labels.max()}, and {len(names)} classes"
    return None


def _why_bad_vectors(block: Block) -> str | None:
    """Return None if the vectors of a block are finite and of unit length, else what is wrong."""
    features, indices = block.arrays["features"].astype(np.float32), block.arrays["indices"]
    if (bad := _not_finite(features)) is not None:
        return f"the feature of picture {indices[bad]} is not finite"
    far = np.abs(np.linalg.norm(features, axis=1) - 1) > 0.02
    return f"the feature of picture {indices[int(far.argmax())]} is not of unit length" if far.any() else None


def _not_finite(features: np.ndarray) -> int | None:
    """Return the index of the first row that is not finite, or None."""
    finite = np.isfinite(features).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))
