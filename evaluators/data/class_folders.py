"""Pictures in class folders, with a folder for each split or without splits."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from promptsearch.errors import InputError
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.encoded_picture import looks_like_picture, printable_path
from promptsearch.evaluators.data.folder_walk import SUFFIXES, Walk, is_picture
from promptsearch.evaluators.data.parts import (
    Asked,
    Layout,
    Part,
    hash_files,
    listed,
    roles,
    spelled,
    unused_splits,
)

#: What a folder may hold, for messages.
FORMS = (
    "parquet files (train-*.parquet and test-*.parquet), pictures in class folders (train/cat/1.png, test/cat/2.png, "
    "or cat/1.png), webdataset archives (*.tar) or a labels.csv"
)


def picture_splits(folder: Path) -> dict[str, str]:
    """Return the subfolders that are named after a split, as {subfolder: split}, e.g. {"Train": "train"}."""
    try:
        there = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # the error is raised when the folder is read
        return {}
    return {name: split for name in there if (split := spelled(name)) is not None}


def open_class_folders(asked: Asked) -> Layout:
    """Return the splits of a folder SPLIT/CLASS/.../PICTURE, or the pictures of a folder CLASS/.../PICTURE.

    The first is the layout of `datasets`' imagefolder, whose indexing takes half a minute and is not used.

    Raises:
        InputError: The folder holds no pictures in class folders, or a picture lies beside them.
    """
    folder, spec = asked.place, asked.spec
    there = picture_splits(folder)
    named = {split: name for name, split in there.items()}  # if two folders name the same split, the last is used
    used = {role: named[split] for role, split in roles(named).items()}
    homes = {role: folder / name for role, name in used.items()} or {"train": folder}
    walks = {role: Walk(folder) for role in homes}
    if not used and not _has_pictures(folder):
        raise InputError(f"--dataset {spec}: this folder holds no {FORMS}")
    children = {role: walks[role].folders(home) for role, home in homes.items()}
    if not used and len(children["train"]) == 1 and Walk(folder, lenient=True).folders(only := children["train"][0]):
        inside = printable_path(only)
        raise InputError(
            f"--dataset {spec}: it holds a single folder, which holds others; if those are the classes, name {inside}"
        )
    classes = sorted({child.name for found in children.values() for child in found})
    # check before pyarrow gets the names: it fails for names that are not UTF-8
    spoken_names(f"data set {spec!r}", classes)
    asked.check_numbers(f"--dataset {spec}", classes)

    def part(role: str, home: Path) -> Part:
        walk, inside = walks[role], f"{used[role]}/" if role in used else ""
        stray = next((f for f in sorted(home.iterdir()) if _is_stray(f)), None)
        if stray is not None:
            name = printable_path(stray.name)
            other = next((c.name for c in Walk(folder, lenient=True).folders(folder) if c.name not in there), None)
            hint = (
                f", or rename {inside} if that is a class as {printable_path(other)} is, because its name is a split's"
                if inside and other
                else ""
            )
            raise InputError(
                f"--dataset {spec}: {inside}{name} lies in no class folder; move it to {inside}CLASS/{name}{hint}"
            )
        found = [(file, c.name) for c in children[role] for file in walk.files(c, is_picture)]
        note = " ".join(filter(None, (walk.left_out.sentence(), walk.led_out_sentence())))
        if not found:
            raise InputError(
                f"--dataset {spec}: {used.get(role) or printable_path(folder)} holds no pictures in class folders "
                f"({inside}cat/1.png){note and '. ' + note}"
            )
        files = [str(file) for file, _ in found]

        def content() -> str:
            return hash_files(files, [Path(file).relative_to(home).as_posix() for file in files])

        return listed(used.get(role, "all"), files, [name for _, name in found], classes, content, note or None)

    kind = "a folder of class folders for each split" if used else "a folder of class folders without splits"
    parts = {role: part(role, home) for role, home in homes.items()}
    return Layout(kind, parts, unused_splits(there, used))


def _has_pictures(folder: Path) -> bool:
    """Return whether one of a folder's subfolders holds a picture."""
    walk = Walk(folder, lenient=True)
    return any(walk.files(child, is_picture) for child in walk.folders(folder))


def _is_stray(file: Path) -> bool:
    """Return whether a file is a picture that lies beside the class folders instead of in one."""
    if file.name.startswith(".") or file.suffix.lower() not in (*SUFFIXES, "") or not os.path.isfile(file):
        return False
    if file.suffix:
        return True
    with contextlib.suppress(OSError), file.open("rb") as f:
        return looks_like_picture(f.read(32))
    return False
