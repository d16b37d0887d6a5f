"""Puts labelled pictures into a folder for each class."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from promptsearch.errors import InputError
from promptsearch.evaluators import Progress, no_progress
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.runs.labelling import Labelled

#: Names that Windows does not allow for a folder.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def plan(labels: Sequence[Labelled], folder: Path, into: Path) -> list[tuple[Path, Path]]:
    """Return the path that each picture gets: `INTO/CLASS/NAME`, where NAME includes the folders below `folder`.

    Pictures that could not be read are left out.

    Args:
        labels: The labelled pictures.
        folder: The folder that they are in.
        into: The folder for the classes' folders.

    Returns:
        Pairs of a picture and its new path.
    """
    homes: dict[str, str] = {}
    taken: set[str] = set()  # in lower case, because some systems treat names that differ only by case as one
    pairs: list[tuple[Path, Path]] = []
    for labelled in labels:
        if labelled.error:
            continue
        home = homes.setdefault(labelled.label, _free(_folder_name(labelled.label), homes.values()))
        parts = Path(os.path.relpath(labelled.path, folder)).parts
        name = Path("__".join(parts))
        chosen, number = f"{home}/{name}", 1
        while chosen.casefold() in taken:
            number += 1
            chosen = f"{home}/{name.stem}-{number}{name.suffix}"
        taken.add(chosen.casefold())
        pairs.append((Path(labelled.path), into / chosen))
    return pairs


def put(pairs: Sequence[tuple[Path, Path]], link: bool, progress: Progress = no_progress) -> None:
    """Copy or link pictures to their new paths; equal files that exist already are kept.

    Args:
        pairs: Pictures and their new paths.
        link: Whether to make symbolic links.
        progress: Called with (pictures done, pictures in all, what is being done).

    Raises:
        InputError: A different file exists at a path, or a file cannot be written.
    """
    for source, target in pairs:
        if os.path.lexists(target) and not _is_there(source, target, link):
            raise InputError(
                f"{printable_path(target)}: exists already and differs from {printable_path(source)}; "
                "name another --into"
            )
    for n, (source, target) in enumerate(pairs):
        if not os.path.lexists(target):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(source, target, link)
            except OSError as e:
                raise InputError(
                    f"{printable_path(target)}: cannot be written ({e.strerror or e}); name another --into"
                ) from e
        progress(n + 1, len(pairs), "sorting pictures")


def _put(source: Path, target: Path, link: bool) -> None:
    if link:
        target.symlink_to(source.resolve())
        return
    half = target.with_name(f".{target.name}.partial")
    try:
        shutil.copy2(source, half)
        os.replace(half, target)
    except BaseException:
        with contextlib.suppress(OSError):
            half.unlink()
        raise


def _is_there(source: Path, target: Path, link: bool) -> bool:
    """Return whether a picture has been copied or linked already."""
    if target.is_symlink() != link or not target.is_file():
        return False
    if link:
        return target.resolve() == source.resolve()
    # uncompressed pictures of one size that were unpacked together differ in nothing but their content
    return filecmp.cmp(source, target, shallow=False)


def _folder_name(label: str) -> str:
    """Return a class name in a form that is a valid folder name on any system."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", label).strip().rstrip(". ").lstrip(".")[:100]
    return f"_{name}" if not name or _RESERVED.match(name) else name


def _free(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken by another class, with a number added if needed."""
    used = {t.casefold() for t in taken}
    number, chosen = 1, name
    while chosen.casefold() in used:
        number += 1
        chosen = f"{name}-{number}"
    return chosen
