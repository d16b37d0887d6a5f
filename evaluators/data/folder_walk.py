"""Which files below a folder are a data set's: one walk that opens regular files only and says what it left out."""

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

#: What file managers, network drives and editors put beside pictures, in lower case; so is all that begins with a dot.
TOOLS = frozenset(
    {"__macosx", "__pycache__", "_vti_cnf", "lost+found", "found.000", "recycler", "$recycle.bin", "icon\r"}
    | {"@eadir", "@synoeastream", "@synoresource", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}
    | {"desktop.ini", "thumbs.db", "ehthumbs.db"}
    | {"system volume information", "network trash folder", "temporary items"}
)

#: Why a lenient walk leaves out what another refuses.
CANNOT_BE_READ = "files or folders that cannot be read"

#: Examples of each reason that a note names.
_NAMED = 3


@dataclass
class LeftOut:
    """What a walk passed over: paths by reason."""

    paths: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Note a file that is left out."""
        self.paths.setdefault(reason, []).append(path)

    def sentence(self) -> str | None:
        """One sentence with numbers, reasons and examples, or None where nothing was passed over."""
        if not self.paths:
            return None
        parts = [f"{len(paths)} {reason} ({_some(paths)})" for reason, paths in self.paths.items()]
        return "Left out: " + "; ".join(parts) + "."


class Walk:
    """Walks below one data set's folder; every folder is read once.

        walk = Walk(Path("pets"))
        for file in walk.files(Path("pets/train/cat"), is_picture):
            print(file)
        print(walk.left_out.sentence())

    Hidden and tool folders are passed over, as are pipes, sockets, devices, and links to folders that are (or contain)
    the data set.  Links to other folders are followed, and named.

    Args:
        root: the data set's folder; paths in messages are relative to it.
        lenient: pass over what cannot be read, too, instead of raising.
    """

    def __init__(self, root: Path, lenient: bool = False) -> None:
        self.root = root
        self.lenient = lenient
        self.left_out = LeftOut()
        self.led_out: list[str] = []
        self._real = os.path.realpath(root)

    def folders(self, folder: Path) -> list[Path]:
        """The folders in `folder`, sorted, links to folders among them, without hidden and tool ones.

        Raises:
            PromptSearchError: it cannot be read.
        """
        found = []
        for entry in self._entries(folder):
            if self._is_folder(entry) and not self._is_tool(entry, "hidden or tool folders"):
                if self._leads_back(entry, os.path.realpath(folder)):
                    self.left_out.add("links back into the data set", self.shown(entry.path))
                else:
                    found.append(Path(entry.path))
        return found

    def files(self, folder: Path, wanted: Callable[[Path, Walk], bool]) -> list[Path]:
        """The regular files at any depth below `folder` that are `wanted`, sorted by path.

        Raises:
            PromptSearchError: a folder, or a file that is wanted, cannot be read.
        """
        return sorted(self._files(folder, wanted))

    def led_out_sentence(self) -> str | None:
        """One sentence about links to folders elsewhere, or None where there were none."""
        if not self.led_out:
            return None
        return f"{len(self.led_out)} links lead out of the folder and were followed ({_some(self.led_out)})."

    def shown(self, path: str | Path) -> str:
        """A path relative to the data set's folder."""
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
        """Whether a folder was walked before, under this name or another; it is remembered."""
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
        except OSError:  # a link that leads round in a circle, or into what may not be searched: no folder to walk
            return False

    def _is_tool(self, entry: os.DirEntry[str], reason: str) -> bool:
        if not (entry.name.startswith(".") or entry.name.lower() in TOOLS):
            return False
        self.left_out.add(reason, self.shown(entry.path))
        return True

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        """Whether it is a regular file, or a link to one.

        Raises:
            PromptSearchError: a link that leads nowhere, named like a picture or a table.
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
        """Whether to walk into a folder: not through a link to a place that is walked anyway."""
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if _within(target, self._real) or _within(self._real, target):
            self.left_out.add("links back into the data set", self.shown(entry.path))
            return False
        self.led_out.append(f"{self.shown(entry.path)} → {target}")
        return True

    def _leads_back(self, entry: os.DirEntry[str], inside: str) -> bool:
        """Whether a class folder is a link to the folder that it lies in, or to one above."""
        return entry.is_symlink() and _within(inside, os.path.realpath(entry.path))

    def refuse(self, path: str | Path, error: OSError) -> None:
        """Raise what says that a file or folder cannot be read; a lenient walk only notes it.

        Raises:
            PromptSearchError: unless this walk is lenient.
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
    """Whether a file is a picture: by its suffix, or, where it has none, by its first bytes.

    Raises:
        PromptSearchError: a file without a suffix that cannot be read, a format that needs a package.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        walk.left_out.add("files that are no pictures by their suffix", walk.shown(path))
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
    """Whether a file is a table by its suffix; others are not worth a note here."""
    return path.suffix.lower() == ".parquet"


def _some(paths: list[str]) -> str:
    """The first few paths."""
    return ", ".join(printable_path(p) for p in paths[:_NAMED]) + (" …" if len(paths) > _NAMED else "")


def _within(path: str, folder: str) -> bool:
    """Whether a real path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
