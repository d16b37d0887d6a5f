"""Files that list pictures with their labels: CSV, JSON lines, and CoOp's split files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.banks.formats import mistaken_for
from promptsearch.errors import InputError
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.evaluators.data.folder_walk import SUFFIXES
from promptsearch.evaluators.data.parts import (
    LABELS,
    PATHS,
    Asked,
    Layout,
    Part,
    existing,
    hash_files,
    in_order,
    listed,
    roles,
    unused_splits,
)

#: Delimiters that a CSV may have.
DELIMITERS = (",", ";", "\t", "|")

#: Names of lists that are found if their folder is given; other lists must be given as a file.
FOUND = ("labels.csv", "labels.tsv", "labels.jsonl")

#: Names of the splits in a column of splits.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}


@dataclass(frozen=True)
class _Row:
    """A picture of a list, and the place of its row, such as "labels.csv:7"."""

    where: str
    path: str
    label: str
    split: str | None = None


def listing_in(folder: Path) -> Path | None:
    """Return the list of pictures in a folder: a labels.csv, labels.tsv, labels.jsonl or split_zhou_*.json, or None.

    Raises:
        InputError: There are several.
    """
    found = [folder / name for name in FOUND if (folder / name).is_file()] + sorted(folder.glob("split_zhou_*.json"))
    if len(found) > 1:
        names = ", ".join(printable_path(f.name) for f in found)
        raise InputError(f"--dataset {folder}: several lists of pictures ({names}); name one of these files")
    return found[0] if found else None


def open_listing(asked: Asked) -> Layout:
    """Return the splits of a list of pictures.

    Raises:
        InputError: A line is broken or misses a value, a file does not exist, a picture has two labels or is in two
            splits, a test label has no training picture, or labels are numbers and the classes get no names.
    """
    name = printable_path(asked.place.name)
    suffix = asked.place.suffix.lower()
    rows = list(READERS[suffix](asked, name))
    if not rows:
        raise InputError(f"{name}: no picture is listed; give a line for each, with its path and its label")
    files = existing([row.path for row in rows], asked.home, lambda i: rows[i].where)
    kept, repeated = _distinct(rows, files)
    by_split: dict[str, list[tuple[_Row, str]]] = {}
    for row, file in kept:
        by_split.setdefault(row.split or "train", []).append((row, file))
    used = roles(by_split)
    if "train" not in used:
        raise InputError(f"{name}: no picture is in the split train; mark some, or leave the column of splits out")
    trained = {row.label for row, _ in by_split["train"]}
    for row, _ in by_split[used.get("test", "train")]:
        if row.label not in trained:
            raise InputError(
                f"{row.where}: class {row.label!r} is not among the {len(trained)} classes of the training pictures; "
                "add training pictures of it, or correct the label"
            )
    # CoOp's files number the classes; their order is kept.
    classes = list(dict.fromkeys(row.label for row in rows)) if suffix == ".json" else in_order(trained)
    classes = [c for c in classes if c in trained]
    asked.check_numbers(name, classes)
    spoken_names(f"data set {asked.spec!r}", classes)
    note = (
        f"Left out: {len(repeated)} rows that list a picture again ({', '.join(repeated[:3])})." if repeated else None
    )

    def part(role: str, split: str) -> Part:
        ours = by_split[split]
        paths, labels = [file for _, file in ours], [row.label for row, _ in ours]

        def content() -> str:
            return hash_files(paths, [f"{row.path}\0{row.label}" for row, _ in ours])

        marked = split if any(row.split for row in rows) else "all"
        return listed(marked, paths, labels, classes, content, note if role == "train" else None)

    parts = {role: part(role, split) for role, split in used.items()}
    return Layout(KINDS[suffix], parts, unused_splits(by_split, used), named=False)


def _distinct(rows: list[_Row], files: list[str]) -> tuple[list[tuple[_Row, str]], list[str]]:
    """Return the rows with their files, each file once, and the places of rows that list a file again.

    Raises:
        InputError: A picture has two labels, or is in two splits.
    """
    first: dict[str, _Row] = {}
    kept, repeated = [], []
    for row, file in zip(rows, files, strict=True):
        before = first.setdefault(file, row)
        if before is row:
            kept.append((row, file))
            continue
        for what, a, b in (("label", before.label, row.label), ("split", before.split, row.split)):
            if a != b:
                raise InputError(
                    f"{row.where}: {printable_path(row.path)} has the {what} {b!r} here and {a!r} in {before.where}; "
                    f"give each picture one {what}"
                )
        repeated.append(row.where)
    return kept, repeated


def _text(file: Path, name: str) -> str:
    """Return the text of a list, in UTF-8 or in UTF-16 with its mark.

    Raises:
        InputError: The file cannot be read, or is not a text file.
    """
    try:
        data = file.read_bytes()
    except OSError as e:
        raise InputError(f"{printable_path(file)} cannot be read ({e.strerror or e}); make it readable") from e
    if found := mistaken_for(data[:512]):
        raise InputError(f"{name} is {found[0]}; {found[1]}")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: not UTF-8 text; save the file as UTF-8") from e
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{name}:{line}: contains a zero byte, which no text does; save the file as UTF-8 text")
    return text


def _column(asked: Asked, columns: list[str], named: str | None, known: tuple[str, ...]) -> str | None:
    """Return the column that the user named, or else the one with a known name, or None."""
    if named is not None:
        return named if named in columns else None
    spelled = {column.strip().lower().replace(" ", "_").replace("-", "_"): column for column in reversed(columns)}
    return next((spelled[name] for name in known if name in spelled), None)


def _columns(asked: Asked, columns: list[str], place: str) -> tuple[str, str, str | None]:
    """Return the columns of paths, labels and splits.

    Raises:
        InputError: There is no column of paths, or none of labels.
    """
    path = _column(asked, columns, asked.picture_column, PATHS)
    label = _column(asked, columns, asked.label_column, LABELS)
    for found, what, named, option, known in (
        (path, "paths", asked.picture_column, "--picture-column", PATHS),
        (label, "labels", asked.label_column, "--label-column", LABELS),
    ):
        if found is None:
            there = ", ".join(map(repr, columns)) or "none"
            wanted = f"{option} {named}: no such column" if named else f"no column of {what}"
            raise InputError(f"{place}: {wanted} (there are {there}); call it {known[0]}, or name it with {option}")
    assert path is not None and label is not None
    return path, label, _column(asked, columns, None, ("split", "subset"))


def _row(where: str, path: Any, label: Any, split: Any) -> _Row:
    """Return a row of checked values.

    Raises:
        InputError: A value is missing or of the wrong type, or the split is unknown.
    """
    for what, value in (("path", path), ("label", label)):
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            shown = "no " + what if value is None or value == "" else f"{what} {value!r}, which is not text"
            raise InputError(f"{where}: {shown}; each line needs the path of a picture and its label")
    name = None if split is None else _SPLITS.get(str(split).strip().lower())
    if split is not None and name is None:
        raise InputError(f"{where}: split {split!r} is not known; write train, test or val")
    return _Row(where, str(path).strip(), str(label).strip(), name)


def _read_csv(asked: Asked, name: str) -> Iterator[_Row]:
    text = _text(asked.place, name)
    first = text.split("\n", 1)[0].strip("\r")
    try:
        headers = {d: next(csv.reader([first], delimiter=d), []) for d in DELIMITERS}
    except csv.Error as e:  # for example a carriage return within the line, or a field of more than 128 KiB
        raise InputError(f"{name}:1: {str(e).partition(' - ')[0]}; the first line must name the columns") from e
    delimiter = max(DELIMITERS, key=lambda d: len(headers[d]))
    for d, columns in headers.items():
        if _column(asked, columns, asked.picture_column, PATHS) and _column(asked, columns, asked.label_column, LABELS):
            delimiter = d
    header = headers[delimiter]
    if not any(_column(asked, header, None, known) for known in (PATHS, LABELS)) and _is_data(asked, header):
        raise InputError(f"{name}:1: no header; the first line must name the columns, such as path{delimiter}label")
    path, label, split = _columns(asked, header, f"{name}:1")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        next(reader)
        begin = reader.line_num + 1
        for fields in reader:
            where, begin = f"{name}:{begin}", reader.line_num + 1
            if not "".join(fields).strip():
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{where}: {len(fields)} fields, and the header has {len(header)}; put values that contain "
                    f"{delimiter!r} into double quotes"
                )
            value = dict(zip(header, fields, strict=True))
            yield _row(where, value[path], value[label], value[split] if split else None)
    except csv.Error as e:
        raise InputError(f"{name}:{reader.line_num}: {e}; put values into double quotes that are closed") from e


def _is_data(asked: Asked, fields: list[str]) -> bool:
    """Return whether the first line is data, not a header: whether it names a picture."""
    return any(
        Path(field.strip()).suffix.lower() in SUFFIXES or os.path.isfile(asked.home / field.strip())
        for field in fields
        if field.strip()
    )


def _read_jsonl(asked: Asked, name: str) -> Iterator[_Row]:
    columns: tuple[str, str, str | None] | None = None
    for number, line in enumerate(_text(asked.place, name).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as e:
            at = f" (column {e.colno})" if isinstance(e, json.JSONDecodeError) else ""
            raise InputError(
                f'{where}: not valid JSON{at}; write a line such as {{"path": "1.png", "label": "cat"}}'
            ) from e
        if not isinstance(value, dict):
            raise InputError(f'{where}: not a JSON object; write a line such as {{"path": "1.png", "label": "cat"}}')
        columns = columns or _columns(asked, list(value), where)
        path, label, split = columns
        yield _row(where, value.get(path), value.get(label), value.get(split) if split else None)


def _read_coop(asked: Asked, name: str) -> Iterator[_Row]:
    """Read {"train": [[path, label, class name], …], "val": …, "test": …}, as CoOp's code writes it."""
    text = _text(asked.place, name)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as e:
        line = f":{e.lineno}" if isinstance(e, json.JSONDecodeError) else ""
        raise InputError(f"{name}{line}: not valid JSON; download it again") from e
    lists = document if isinstance(document, dict) else {}
    if not {"train"} <= lists.keys() or not all(isinstance(lists[k], list) for k in lists):
        raise InputError(
            f"{name}: no lists train, val and test, as CoOp's split files have; for other lists give a CSV"
        )
    called: dict[Any, str] = {}
    rows = []
    for split, entries in lists.items():
        for i, entry in enumerate(entries):
            where = f"{name}: {split}[{i}]"
            if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[1], int):
                raise InputError(f"{where}: {str(entry)[:60]!r} is not [path, number of the class, name of the class]")
            path, number, label = entry
            row = _row(where, path, label, split)
            if called.setdefault(number, row.label) != row.label:
                raise InputError(f"{where}: class {number} is {row.label!r} here and {called[number]!r} before")
            rows.append((number, row))
    yield from (row for _, row in sorted(rows, key=lambda r: r[0]))


READERS: dict[str, Callable[[Asked, str], Iterator[_Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_coop,
}

KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "a CSV file of paths and labels"),
    **dict.fromkeys((".jsonl", ".ndjson"), "a file of JSON lines with paths and labels"),
    ".json": "CoOp's split file",
}
