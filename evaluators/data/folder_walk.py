"""Find the files of a data set in a folder, and record which files were ignored and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.encoded_picture import looks_like_picture, needed_package, printable_path

#: Suffixes of the formats in `FORMATS`.
SUFFIXES = frozenset(
    {".apng", ".bmp", ".dib", ".gif", ".png", ".tif", ".tiff", ".webp", ".avif", ".avifs"}
    | {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2c", ".j2k", ".jpc", ".jpf", ".jpx"}
    | {".pbm", ".pgm", ".pnm", ".ppm", ".heic", ".heics", ".heif", ".heifs", ".hif"}
)

#: Ignored files of file managers, network drives and editors, in lower case; names that start with "." are ignored too.
TOOLS = frozenset(
    {"__macosx", "__pycache__", "_vti_cnf", "lost+found", "found.000", "recycler", "$recycle.bin", "icon\r"}
    | {"@eadir", "@synoeastream", "@synoresource", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}
    | {"desktop.ini", "thumbs.db", "ehthumbs.db"}
    | {"system volume information", "network trash folder", "temporary items"}
)

#: The reason that a lenient walk records for files for which other walks raise an error.
CANNOT_BE_READ = "files or folders that cannot be read"

#: Number of examples that a note names for each reason.
_NAMED = 3


@dataclass
class LeftOut:
    """The paths that a walk ignored, by reason."""

    paths: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Record an ignored file."""
        self.paths.setdefault(reason, []).append(path)

    def sentence(self) -> str | None:
        """Return one sentence with counts, reasons and examples, or None if nothing was ignored."""
        if not self.paths:
            return None
        parts = [f"{len(paths)} {reason} ({_some(paths)})" for reason, paths in self.paths.items()]
        return "Left out: " + "; ".join(parts) + "."


class Walk:
    """A walk through the folder of a data set that reads every folder once.

        walk = Walk(Path("pets"))
        for file in walk.files(Path("pets/train/cat"), is_picture):
            print(file)
        print(walk.left_out.sentence())

    Hidden folders and those of tools are ignored, as are pipes, sockets, devices, and links to folders that are in the
    data set or contain it.  Links to other folders are followed and reported.

    Args:
        root: The data set's folder; paths in messages are relative to it.
        lenient: Ignore files and folders that cannot be read, instead of raising an error.
    """

    def __init__(self, root: Path, lenient: bool = False) -> None:
        self.root = root
        self.lenient = lenient
        self.left_out = LeftOut()
        self.led_out: list[str] = []
        self._real = os.path.realpath(root)

    def folders(self, folder: Path) -> list[Path]:
        """Return the sorted folders in `folder`, and links to folders, without hidden ones and those of tools.

        Raises:
            PromptSearchError: The folder cannot be read.
        """
        found = []
        for entry in self._entries(folder):
            if self._is_folder(entry) and not self._is_tool(entry, "hidden or tool folders"):
                if self._leads_back(entry, os.path.realpath(folder)):
                    self.left_out.add("links back into the data set", self.shown(entry.path))
                else:
                    if entry.is_symlink() and not _within(target := os.path.realpath(entry.path), self._real):
                        self.led_out.append(f"{self.shown(entry.path)} → {target}")
                    found.append(Path(entry.path))
        return found

    def files(self, folder: Path, wanted: Callable[[Path, Walk], bool]) -> list[Path]:
        """Return the regular files at any depth below `folder` for which `wanted` is true, sorted by path.

        Raises:
            PromptSearchError: A folder or a wanted file cannot be read.
        """
        return sorted(self._files(folder, wanted))

    def led_out_sentence(self) -> str | None:
        """Return one sentence about links to folders outside the data set, or None if there are none."""
        if not self.led_out:
            return None
        return f"{len(self.led_out)} links lead out of the folder and were followed ({_some(self.led_out)})."

    def shown(self, path: str | Path) -> str:
        """Return a path relative to the data set's folder."""
        return os.path.relpath(path, self.root)

    def _files(self, home: Path, wanted: Callable[[Path, Walk], bool]) -> Iterator[Path]:
        seen: set[tuple[int, int]] = set()
        waiting = [os.fspath(home)]
        while waiting:
            folder = waiting.pop()
            if self._was_seen(folder, seen):
                continue
            for entry in self._entries(Path(folder)):
                if self._is_folder(entry):
                    if not self._is_tool(entry, "hidden or tool folders") and self._follows(entry):
                        waiting.append(entry.path)
                elif not self._is_tool(entry, "hidden or tool files") and self._is_file(entry):
                    path = Path(entry.path)
                    if wanted(path, self):
                        yield path

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda e: e.name)
        except OSError as e:
            self.refuse(folder, e)
            return []

    def _was_seen(self, folder: str, seen: set[tuple[int, int]]) -> bool:
        """Return whether a folder was walked before, under any name, and remember that it was."""
        try:
            status = os.stat(folder)
        except OSError as e:
            self.refuse(folder, e)
            return True
        if (status.st_dev, status.st_ino) in seen:
            self.left_out.add("links to a folder that was read before", self.shown(folder))
            return True
        seen.add((status.st_dev, status.st_ino))
        return False

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # the link leads in a circle, or into a folder without permission, and cannot be walked
            return False

    def _is_tool(self, entry: os.DirEntry[str], reason: str) -> bool:
        if not (entry.name.startswith(".") or entry.name.lower() in TOOLS):
            return False
        self.left_out.add(reason, self.shown(entry.path))
        return True

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a regular file or a link to one.

        Raises:
            PromptSearchError: The entry is a broken link with the suffix of a picture or a table.
        """
        try:
            status = os.stat(entry.path)
        except OSError as e:
            if Path(entry.name).suffix.lower() in {*SUFFIXES, ".parquet"}:
                self.refuse(entry.path, e)
            self.left_out.add("links that lead nowhere", self.shown(entry.path))
            return False
        if stat.S_ISREG(status.st_mode):
            return True
        self.left_out.add("pipes, sockets and devices", self.shown(entry.path))
        return False

    def _follows(self, entry: os.DirEntry[str]) -> bool:
        """Return whether to walk into a folder; links to folders that are walked anyway are not followed."""
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if _within(target, self._real) or _within(self._real, target):
            self.left_out.add("links back into the data set", self.shown(entry.path))
            return False
        self.led_out.append(f"{self.shown(entry.path)} → {target}")
        return True

    def _leads_back(self, entry: os.DirEntry[str], inside: str) -> bool:
        """Return whether a class folder is a link to the folder that contains it, or to one above."""
        return entry.is_symlink() and _within(inside, os.path.realpath(entry.path))

    def refuse(self, path: str | Path, error: OSError) -> None:
        """Raise an error about a file or folder that cannot be read; a lenient walk records it instead.

        Raises:
            PromptSearchError: This walk is not lenient.
        """
        if self.lenient:
            self.left_out.add(CANNOT_BE_READ, self.shown(path))
            return
        what = "a link that leads nowhere" if os.path.islink(path) else error.strerror or str(error)
        raise PromptSearchError(
            f"data set {printable_path(self.root)}: {printable_path(self.shown(path))} cannot be read ({what}); "
            "make it readable, or remove it"
        ) from error


def is_picture(path: Path, walk: Walk) -> bool:
    """Return whether a file is a picture: by its suffix, or by its first bytes if it has no suffix.

    Raises:
        PromptSearchError: A file without a suffix cannot be read, or its format needs a package.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        walk.left_out.add("files without the suffix of a picture", walk.shown(path))
        return False
    if suffix not in ("", ".heic", ".heics", ".heif", ".heifs", ".hif", ".avif", ".avifs"):
        return True
    try:
        with path.open("rb") as f:
            head = f.read(32)
    except OSError as e:
        walk.refuse(path, e)
        return False
    if not suffix and not looks_like_picture(head):
        walk.left_out.add("files without a suffix that begin like no picture", walk.shown(path))
        return False
    if need := needed_package(head):
        raise PromptSearchError(
            f"data set {printable_path(walk.root)}: {printable_path(walk.shown(path))} is {need[0]}; {need[1]}"
        )
    return True


def is_parquet(path: Path, walk: Walk) -> bool:
    """Return whether a file has the suffix of a parquet table; other files are ignored without a record."""
    return path.suffix.lower() == ".parquet"


def _some(paths: list[str]) -> str:
    """Return the first few paths, as text."""
    return ", ".join(printable_path(p) for p in paths[:_NAMED]) + (" …" if len(paths) > _NAMED else "")


def _within(path: str, folder: str) -> bool:
    """Return whether a resolved path is the folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
