"""Banks by name or by path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from promptsearch.banks.bank import Bank
from promptsearch.banks.formats import from_tree, from_txt
from promptsearch.banks.parse import parse_json, parse_yaml
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.plugins import Registry

#: Longest line of a text or YAML file, in characters; JSON may be one long line.
MAX_LINE = 10_000
#: Largest file of each format, in bytes.  YAML is parsed slowly.
MAX_BYTES = {".txt": 16_000_000, ".json": 16_000_000, ".yaml": 1_000_000, ".yml": 1_000_000}

_BOM = b"\xef\xbb\xbf"


BANKS = Registry("banks")


def builtin_banks() -> dict[str, str]:
    """Names and descriptions of the banks that need no file: ours (banks/shipped.py) and those of other packages."""
    return {name: _first_line(make) for name, make in BANKS.loaded().items()}


def load_bank(spec: str | Path) -> Bank:
    """The bank of this name (see `builtin_banks`), or of the file at this path.

    Files: `.txt`, `.yaml`, `.yml` and `.json`; `file.json#cifar10` picks one data set of CLIP_benchmark's templates.

    Raises:
        InputError: no such bank or file, or something wrong in it: "path:line: what is wrong: value; remedy".
    """
    if isinstance(spec, str) and _is_name(spec) and spec in BANKS:
        return _checked(spec)
    path, key, status = _find(str(spec))
    shown = _shown(path)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown}: is a directory; name a file in it")
    suffix = Path(path).suffix.lower()
    if suffix not in MAX_BYTES:
        raise InputError(f"{shown}: unknown suffix {shorten(suffix)}; a bank is a file of {', '.join(MAX_BYTES)}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown}: is not a regular file; copy it to one")
    limit = MAX_BYTES[suffix]
    try:
        with open(path, "rb") as f:
            data = f.read(limit + 1)
    except OSError as e:
        raise _unreadable(path, e) from e
    if len(data) > limit:
        raise InputError(f"{shown}: larger than {limit / 1e6:.0f} MB; a {suffix} bank must be smaller, split it")
    return parse_bank(data, suffix, shown, _shown(Path(path).stem), key)


def _is_name(spec: str) -> bool:
    """Whether a spec may be a bank's name: a file that is there, or has a suffix, is looked for as a file."""
    return spec in BANKS.built_in or (Path(spec).suffix.lower() not in MAX_BYTES and not os.path.exists(spec))


def _checked(name: str) -> Bank:
    make = BANKS[name]
    if name in BANKS.built_in:
        bank: Bank = make()
        return bank
    try:
        made = make()
    except PromptSearchError:
        raise
    except Exception as e:  # another's function may raise anything
        raise PromptSearchError(f"plug-in {name!r} (banks) failed ({type(e).__name__}: {e}); update its package") from e
    if not isinstance(made, Bank):
        raise PromptSearchError(f"plug-in {name!r} (banks) returned {shorten(made)}; it must return a Bank")
    return made


def _first_line(thing: object) -> str:
    return ((getattr(thing, "__doc__", None) or "").strip().splitlines() or [""])[0]


def _find(spec: str) -> tuple[str, str | None, os.stat_result]:
    """Path, key after `#`, and status; a file with `#` in its name comes first."""
    path, mark, key = spec.rpartition("#")
    for candidate, picked in ((spec, None), (path, key)) if mark else ((spec, None),):
        try:
            return candidate, picked, os.stat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as e:
            raise _unreadable(candidate, e) from e
    raise InputError(f"{_shown(spec)}: no such file or bank; built-in banks: {', '.join(builtin_banks())}")


def _unreadable(path: str, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{_shown(path)}: cannot be read: {reason}; name a file that you may read")


def _shown(path: str) -> str:
    return path if path.isprintable() and 0 < len(path) <= 200 else shorten(path, 200)


def parse_bank(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> Bank:
    """A bank from a file's bytes; `place` is what messages call it.  Raises InputError."""
    data = data.removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        at = e.start - data.rfind(b"\n", 0, e.start)
        raise InputError(
            f"{place}:{line}: not UTF-8: byte 0x{data[e.start]:02x}, number {at} of the line; save the file as UTF-8"
        ) from e
    if suffix == ".json":
        return from_tree(parse_json(text, place), place, name, place, key)
    for number, line_text in enumerate(text.split("\n"), start=1):
        if len(line_text) > MAX_LINE:
            raise InputError(
                f"{place}:{number}: line of {len(line_text)} characters: {shorten(line_text)}; keep it to {MAX_LINE}"
            )
    if suffix == ".txt":
        if key is not None:
            raise InputError(f"{place}: a .txt bank has no parts to pick {shorten(key)} from; leave #{key} out")
        return from_txt(text, place, name, place)
    return from_tree(parse_yaml(text, place), place, name, place, key)
