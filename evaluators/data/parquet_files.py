"""Parquet files, whose pictures are images, plain bytes or paths."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from promptsearch.banks.formats import mistaken_for
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.class_folders import picture_splits
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.evaluators.data.folder_walk import CANNOT_BE_READ, Walk, is_parquet
from promptsearch.evaluators.data.hub import first_line
from promptsearch.evaluators.data.parquet_size import refuse_bombs
from promptsearch.evaluators.data.parts import Asked, Layout, Part, files_by_split, hash_files, unused_splits


def open_parquet(asked: Asked) -> Layout | None:
    """Return the splits of a parquet file or a folder of them; None if there are no such files.

    If no file name says a split, all files are training pictures.

    Raises:
        InputError: Files of a split lie in several folders.
        PromptSearchError: A file cannot be read.
    """
    folder, spec = asked.home, asked.spec
    walk = Walk(folder, lenient=True)
    files = [asked.place] if asked.place != folder else walk.files(folder, is_parquet)
    if not files:
        unreadable = walk.left_out.paths.get(CANNOT_BE_READ)
        if unreadable and not picture_splits(folder):
            raise PromptSearchError(
                f"data set {spec!r}: {printable_path(unreadable[0])} cannot be read; make it readable, or remove it"
            )
        return None
    by_split, used = files_by_split(asked, files)
    extra = by_split.get("all", []) if used.get("train") != "all" else []
    note = f"Left out: {len(extra)} parquet files of no split ({printable_path(extra[0].name)})." if extra else None

    def part(role: str, name: str) -> Part:
        import pyarrow.parquet as pq
        from datasets import Dataset, NamedSplit

        ours = by_split[name]
        places = sorted({str(file.parent.relative_to(folder)) for file in ours})
        if len(places) > 1:
            raise InputError(
                f"--dataset {spec}: {name} files in several folders ({', '.join(places)}); give one of these folders"
            )
        try:
            refuse_bombs(ours)
            if not sum(pq.ParquetFile(file).metadata.num_rows for file in ours):
                raise InputError(f"{printable_path(ours[0].name)} has no row; it holds 0 pictures")
            # Load split by split, because otherwise the class names of the first are used for the second; and not by
            # load_dataset("parquet"), which tells a counter on the network about it and waits for the answer.
            table = Dataset.from_parquet(
                [_literal(file) for file in ours], split=NamedSplit("train" if name == "all" else name)
            )
        except PromptSearchError as error:
            raise type(error)(f"data set {spec!r}: {error}") from error
        except Exception as error:  # pyarrow's and datasets' errors share no base class
            cause = error.__cause__ or error
            raise PromptSearchError(
                f"data set {spec!r}: {printable_path(ours[0].name)} cannot be read ({_why_broken(ours, cause)})"
            ) from error
        return Part(name, table, lambda: hash_files(ours), note=note if role == "train" else None)

    kind = "parquet files" if len(files) > 1 else "a parquet file"
    parts = {role: part(role, name) for role, name in used.items()}
    return Layout(kind, parts, tuple(n for n in unused_splits(by_split, used) if n != "all"))


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
