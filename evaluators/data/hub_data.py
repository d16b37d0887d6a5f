"""Opens data sets of the Hugging Face hub; of large ones, only what is needed is downloaded."""

from __future__ import annotations

import functools
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, overload

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.hub import TRUE, first_line, go_offline, hub_reachable, prepared
from promptsearch.evaluators.data.parts import Asked, Layout, Part, roles, unused_splits

#: From this size in bytes on, a data set counts as large: its training pictures are fetched one row group at a time
#: when they are needed, and splits that serve neither for training nor as test split are not downloaded.
LARGE = 2_000_000_000

#: Number of row groups, and of files' metadata, kept in memory for pictures that are read in sequence.
_GROUPS, _FOOTERS = 2, 4096


@dataclass(frozen=True)
class RemotePicture:
    """A picture in a parquet file of the hub, which is fetched with its row group when it is read.

    Attributes:
        file: Path of the file for `HfFileSystem`.
        group: Number of its row group.
        row: Number of its row in the row group.
        column: Name of the column of pictures.
    """

    file: str
    group: int
    row: int
    column: str

    @property
    def shown(self) -> str:
        """Return where the picture is, for messages."""
        return f"{self.file}, row group {self.group}, row {self.row}"

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            PromptSearchError: It cannot be fetched.
        """
        try:
            cell = _group(self.file, self.group, self.column)[self.row].as_py()
        except Exception as e:  # the hub's client, httpx and pyarrow each have their own hierarchy
            raise PromptSearchError(f"{self.shown} could not be fetched ({first_line(e)}); try again") from e
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        return content or b""


class RemotePictures(Sequence[RemotePicture]):
    """The pictures of a split in parquet files of the hub.

    Args:
        files: Paths of the files for `HfFileSystem`, with the number of rows of each row group.
        column: Name of the column of pictures.
    """

    def __init__(self, files: Sequence[tuple[str, Sequence[int]]], column: str) -> None:
        self._column, self._groups, self._begins, at = column, [], [], 0
        for file, sizes in files:
            for group, size in enumerate(sizes):
                self._groups.append((file, group))
                self._begins.append(at)
                at += size
        self._rows = at

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, at: int) -> RemotePicture: ...

    @overload
    def __getitem__(self, at: slice) -> list[RemotePicture]: ...

    def __getitem__(self, at: int | slice) -> RemotePicture | list[RemotePicture]:
        """Return where a picture is; nothing is fetched."""
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._rows))]
        if not 0 <= at < self._rows:
            raise IndexError(at)
        which = bisect_right(self._begins, at) - 1
        return RemotePicture(*self._groups[which], at - self._begins[which], self._column)


def open_hub(asked: Asked, repo: str, config: str | None) -> Layout:
    """Open a data set of the hub, from the cache if the hub is unreachable.

    Args:
        asked: The data set as the user named it.
        repo: The hub id, owner/name.
        config: Name of the configuration, or None.

    Raises:
        InputError: The data set or configuration does not exist, or it has neither a training nor a test split.
        PromptSearchError: The hub is unreachable and nothing is cached, or the download is damaged.
    """
    spec = asked.spec
    offline = os.environ.get("HF_DATASETS_OFFLINE", "").upper() in TRUE
    reachable, reason = (False, "HF_DATASETS_OFFLINE is set") if offline else hub_reachable()
    if not reachable:
        if not prepared(repo, config):
            raise PromptSearchError(
                f"data set {spec!r}: the hub cannot be reached ({reason}) and the cache has no copy; give a local "
                "folder (--dataset PATH), a mirror (HF_ENDPOINT=https://...) or use the embedded --model zeroshot"
            )
        go_offline()

    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    try:
        builder = load_dataset_builder(repo, name=config)
        address = f"hub:{repo}@{builder.hash}:{builder.config.name}"
        large = None if prepared(repo, config) else _large_files(builder)
        if large is not None and (used := roles(large)):
            return _open_remote(builder, address, large, used)
        builder.download_and_prepare()
        tables = builder.as_dataset()
    except DatasetNotFoundError as error:
        raise InputError(
            f"--dataset {spec}: no such folder, and the hub has no such data set or denies you access to it "
            f"({first_line(error)})"
        ) from error
    except Exception as error:  # datasets, the hub's client, httpx and pyarrow each have their own hierarchy
        if isinstance(error, ValueError) and "config" in str(error).lower():
            raise InputError(f"--dataset {spec}: {error}; write it as {repo}:CONFIG") from error
        raise PromptSearchError(
            f"data set {spec!r} could not be loaded from the hub ({type(error).__name__}: {first_line(error)}); "
            "try again, or give a local folder (--dataset PATH)"
        ) from error
    used = roles(tables)
    if not used:
        raise InputError(f"--dataset {spec}: no train or test split, only {', '.join(tables)}")

    def part(name: str) -> Part:
        return Part(name, tables[name], lambda: f"{address}:{name}")

    parts = {role: part(name) for role, name in used.items()}
    return Layout("a data set of the hub", parts, unused_splits(tables, used))


def _large_files(builder: Any) -> dict[str, list[str]] | None:
    """Return the files of each split, if they are large parquet files of the hub; None for others."""
    from huggingface_hub import HfFileSystem

    found = {str(split): [str(f) for f in files] for split, files in (builder.config.data_files or {}).items()}
    every = [file for files in found.values() for file in files]
    if not every or not all(f.startswith("hf://") and f.endswith(".parquet") for f in every):
        return None
    system = HfFileSystem()
    return found if sum(system.info(file)["size"] for file in every) >= LARGE else None


def _open_remote(builder: Any, address: str, files: Mapping[str, list[str]], used: Mapping[str, str]) -> Layout:
    """Open a large data set: download its test split, and read only the labels of its training split."""
    parts = {}
    for role, name in used.items():
        if role == "train":
            parts[role] = _remote_part(builder.info.features, name, files[name], f"{address}:{name}")
        else:
            parts[role] = _downloaded_part(builder.info.features, name, files[name], f"{address}:{name}")
    return Layout("a large data set of the hub, read as it is needed", parts, unused_splits(files, used))


def _downloaded_part(features: Any, name: str, files: list[str], address: str) -> Part:
    """Return a split whose files are downloaded, or in the hub's cache already."""
    from datasets import Dataset, NamedSplit
    from huggingface_hub import HfFileSystem, hf_hub_download

    here = []
    for file in files:
        at: Any = HfFileSystem().resolve_path(file)
        here.append(hf_hub_download(at.repo_id, at.path_in_repo, repo_type=at.repo_type, revision=at.revision))
    table = Dataset.from_parquet(here, split=NamedSplit(name), features=features)
    return Part(name, table, lambda: address)


def _remote_part(features: Any, name: str, files: list[str], address: str) -> Part:
    """Return a split, reading all its columns except the pictures."""
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features
    from huggingface_hub import HfFileSystem

    system = HfFileSystem()

    def small(file: str) -> tuple[pa.Table, list[int], pa.Schema]:
        with _parquet(file) as parquet:
            fields = [f for f in parquet.schema_arrow if pa.types.is_integer(f.type) or pa.types.is_string(f.type)]
            meta = parquet.metadata
            sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            return parquet.read(columns=[f.name for f in fields]), sizes, parquet.schema_arrow

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(small, files))
    table, schema = pa.concat_tables([part for part, _, _ in read]), read[0][2]
    known = features or Features.from_arrow_schema(schema)
    pictures = [c for c in known if c in schema.names and _holds_pictures(schema.field(c).type)]
    kept = Features({c: known[c] for c in known if c in table.column_names or c in pictures})
    columns = [
        pa.nulls(len(table), kept.arrow_schema.field(c).type) if c in pictures else table.column(c) for c in kept
    ]
    made = pa.table(dict(zip(kept, columns, strict=True))).cast(kept.arrow_schema)
    total = sum(system.info(file)["size"] for file in files)
    note = f"Not downloaded: {total / 1e9:.1f} GB of training pictures, which are fetched as they are needed."
    groups = [(file, sizes) for file, (_, sizes, _) in zip(files, read, strict=True)]
    return Part(
        name,
        Dataset(made, info=DatasetInfo(features=kept)),
        lambda: address,
        note=note,
        lazy=lambda column: RemotePictures(groups, column),
    )


def _holds_pictures(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)


def _parquet(file: str) -> Any:
    """Open a parquet file of the hub without downloading it; only the parts that are read are fetched."""
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    return pq.ParquetFile(HfFileSystem().open(file, "rb", cache_type="none"), metadata=_footer(file))


@functools.lru_cache(maxsize=_FOOTERS)
def _footer(file: str) -> Any:
    """Return the metadata of a parquet file; it is fetched only once."""
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    with HfFileSystem().open(file, "rb", cache_type="none") as f:
        return pq.read_metadata(f)


@functools.lru_cache(maxsize=_GROUPS)
def _group(file: str, group: int, column: str) -> Any:
    """Return the pictures of a row group."""
    with _parquet(file) as parquet:
        return parquet.read_row_group(group, columns=[column]).column(0)
