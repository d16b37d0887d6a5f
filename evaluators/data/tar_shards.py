"""Webdataset archives: tar files in which the files of a sample share their name up to the first dot."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from promptsearch.banks.formats import mistaken_for
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.evaluators.data.folder_walk import SUFFIXES, LeftOut, Walk
from promptsearch.evaluators.data.hub import first_line
from promptsearch.evaluators.data.parts import (
    LABELS,
    Asked,
    Layout,
    Part,
    files_by_split,
    hash_files,
    in_order,
    listed,
    unused_splits,
)
from promptsearch.evaluators.data.picture_list import TarMember

#: File beside the archives with the class names of numbered labels, one per line, as CLIP_benchmark publishes them.
NAMES = "classnames.txt"

#: Largest size of a label file in bytes; a larger file is refused.
_MOST = 1 << 20

_Sample = dict[str, TarMember]


def open_tars(asked: Asked) -> Layout | None:
    """Return the splits of a webdataset archive or a folder of them; None if there are no such files.

    Raises:
        InputError: An archive is damaged or compressed, a member's name leads out of it, or a sample has no label or
            several pictures.
    """
    folder = asked.home
    walk = Walk(folder, lenient=True)
    files = [asked.place] if asked.place != folder else walk.files(folder, lambda p, w: p.suffix.lower() == ".tar")
    if not files:
        return None
    by_split, used = files_by_split(asked, files)
    left_out = {role: LeftOut() for role in used}
    found = {role: list(_labelled(by_split[name], asked, left_out[role])) for role, name in used.items()}
    for role, pairs in found.items():
        if not pairs:
            raise InputError(f"--dataset {asked.spec}: {printable_path(by_split[used[role]][0].name)} has no picture")
    labels = {role: [label for _, label in pairs] for role, pairs in found.items()}
    texts = in_order(text for role in found for text in labels[role])
    names = _names_beside([folder, *(file.parent for file in files)], texts)
    if names is not None:
        labels = {role: [names[int(text)] for text in of_role] for role, of_role in labels.items()}
    classes = texts if names is None else names
    asked.check_numbers(f"data set {asked.spec!r}", classes)
    spoken_names(f"data set {asked.spec!r}", classes)

    def part(role: str, name: str) -> Part:
        ours = by_split[name]
        note = left_out[role].sentence()
        return listed(
            name, [member for member, _ in found[role]], labels[role], classes, lambda: hash_files(ours), note
        )

    parts = {role: part(role, name) for role, name in used.items()}
    unused = tuple(n for n in unused_splits(by_split, used) if n != "all")
    return Layout("webdataset archives", parts, unused, named=False)


def _labelled(files: list[Path], asked: Asked, left_out: LeftOut) -> Iterator[tuple[TarMember, str]]:
    """Yield the picture and the label of each sample."""
    for file in files:
        for key, sample in _samples(file, left_out).items():
            where = f"{printable_path(file.name)}: sample {printable_path(key)}"
            pictures = [extension for extension in sample if f".{extension.rsplit('.', 1)[-1]}" in SUFFIXES]
            if asked.picture_column is not None:
                pictures = [extension for extension in sample if extension == asked.picture_column]
            if not pictures:
                left_out.add("samples without a picture", f"{file.name}/{key}")
                continue
            if len(pictures) > 1:
                raise InputError(
                    f"{where} has several pictures ({', '.join(pictures)}); name one with --picture-column"
                )
            yield sample[pictures[0]], _label(where, sample, asked.label_column)


def _samples(file: Path, left_out: LeftOut) -> dict[str, _Sample]:
    """Return the members of an archive by the key of their sample and their extension.

    Raises:
        InputError: The archive cannot be read, or a member's name leads out of it or occurs twice.
    """
    samples: dict[str, _Sample] = {}
    shown = printable_path(file.name)
    try:
        size = file.stat().st_size
        if size % tarfile.BLOCKSIZE:  # tarfile takes a truncated header for the end of the archive
            raise tarfile.ReadError("it is not a tar archive, or is truncated")
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(
                        f"{shown}: member {printable_path(member.name)!r} leads out of the archive; "
                        "fetch the data set from a place you trust"
                    )
                if member.offset_data + (member.size if member.isreg() else 0) > size:
                    raise tarfile.ReadError("it ends within a file")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    left_out.add("members that are not regular files", f"{shown}/{member.name}")
                    continue
                if path.name.startswith((".", "__MACOSX")):
                    left_out.add("hidden or tool files", f"{shown}/{member.name}")
                    continue
                stem, _, extension = path.name.partition(".")
                sample = samples.setdefault((path.parent / stem).as_posix(), {})
                if extension.lower() in sample:
                    raise InputError(f"{shown}: member {printable_path(member.name)!r} occurs twice; pack it once")
                sample[extension.lower()] = TarMember(str(file), member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, UnicodeError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        with file.open("rb") as f:
            head = f.read(512)
        wrong = mistaken_for(head) or (
            ("compressed", "decompress it first") if head[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5") else None
        )
        why = f"is {wrong[0]}; {wrong[1]}" if wrong else f"cannot be read ({first_line(e)}); download it again"
        raise InputError(f"{shown} {why}") from e
    return samples


def _label(where: str, sample: _Sample, named: str | None) -> str:
    """Return the label of a sample, from its .cls or .json file.

    Raises:
        InputError: The sample has no label.
    """
    wanted = (named,) if named is not None else ("cls", "label", "class", "cls.txt")
    extension = next((e for e in wanted if e in sample), None)
    if extension is not None:
        text = _read(where, sample[extension]).strip()
    elif "json" in sample:
        try:
            value = json.loads(_read(where, sample["json"]))
        except (ValueError, RecursionError) as e:
            raise InputError(f"{where}: its .json file is not valid JSON; pack the archive again") from e
        fields = value if isinstance(value, dict) else {}
        key = next((k for k in ((named,) if named else LABELS) if k in fields), None)
        text = "" if key is None or isinstance(fields[key], (bool, list, dict)) else str(fields[key]).strip()
    else:
        text = ""
    if not text:
        there = ", ".join(f".{e}" for e in sample)
        raise InputError(
            f"{where} has no label (it has {there}); add a .cls file, or a .json file with a label, or name another "
            "with --label-column"
        )
    return text


def _read(where: str, member: TarMember) -> str:
    if member.size > _MOST:
        raise InputError(f"{where}: {printable_path(member.name)} has {member.size / 1e6:.0f} MB and holds no label")
    try:
        return member.read().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{where}: {printable_path(member.name)} is not UTF-8 text; pack the archive again") from e
    except PromptSearchError as e:
        raise InputError(f"{e}; download it again") from e


def _names_beside(folders: list[Path], labels: list[str]) -> list[str] | None:
    """Return the class names in a classnames.txt in one of the folders, if the labels are numbers and there is one.

    Raises:
        InputError: The file has no name for a label.
    """
    file = next((folder / NAMES for folder in folders if (folder / NAMES).is_file()), None)
    if file is None or not all(text.isdecimal() for text in labels):
        return None
    try:
        names = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{NAMES} cannot be read ({first_line(e)}); save it as UTF-8") from e
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if int(labels[-1]) >= len(names):
        raise InputError(f"{NAMES} has {len(names)} names and there is a label {labels[-1]}; add the missing names")
    return names
