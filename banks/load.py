"""Loads banks by name or from files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from promptsearch.banks.bank import Bank
from promptsearch.banks.formats import from_tree, from_txt
from promptsearch.banks.parse import parse_json, parse_yaml
from promptsearch.banks.phrase_formats import ClassNames, parse_class_names, phrases_from_tree, phrases_from_txt
from promptsearch.banks.phrases import PhraseBank
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.plugins import Registry

#: Longest line of a text or YAML file, in characters. JSON may be a single long line.
MAX_LINE = 10_000
#: Largest file of each format, in bytes; smaller for YAML, because it is parsed slowly.
MAX_BYTES = {".txt": 16_000_000, ".json": 16_000_000, ".yaml": 1_000_000, ".yml": 1_000_000}

_BOM = b"\xef\xbb\xbf"


BANKS = Registry("banks")

#: Built-in phrase banks, each named after the data set that it is for.
PHRASE_BANKS = ("cifar10", "cifar100", "pacs")


def builtin_banks() -> dict[str, str]:
    """Return the descriptions of the built-in banks and of plug-ins' banks, by name."""
    return {name: _first_line(make) for name, make in BANKS.loaded().items()}


def load_bank(spec: str | Path) -> Bank:
    """Load a bank.

    Args:
        spec: A name (see `builtin_banks`), or the path of a `.txt`, `.yaml`, `.yml` or `.json` file. With
            `file.json#cifar10` one data set of CLIP_benchmark's templates is chosen.

    Raises:
        InputError: The bank does not exist or is invalid: "path:line: what is wrong: value; remedy".
    """
    if isinstance(spec, str) and _is_name(spec) and spec in BANKS:
        return _checked(spec)
    path, key, status = _find(str(spec), f"built-in banks: {', '.join(builtin_banks())}")
    data, suffix = read_bounded(path, status)
    return parse_bank(data, suffix, _shown(path), _shown(Path(path).stem), key)


def load_phrases(spec: str | Path) -> PhraseBank:
    """Load a phrase bank.

    Files may be a `.yaml`, `.yml` or `.json` mapping with the key `phrases` (phrases by class), the JSON of CuPL
    (sentences by class), DCLIP (descriptors by class) or CLIP_benchmark (prompts by class), or a `.txt` file with a
    class, a tab and a phrase in each line.

    Args:
        spec: One of `PHRASE_BANKS`, or the path of a file.

    Raises:
        InputError: The bank does not exist or is invalid: "path:line: what is wrong: value; remedy".
    """
    if spec in PHRASE_BANKS and not os.path.exists(spec):
        file = f"{spec}.phrases.yaml"
        data = (resources.files(__package__) / file).read_bytes()
        return parse_phrases(data, ".yaml", f"promptsearch/banks/{file}", str(spec))
    path, key, status = _find(str(spec), f"built-in phrase banks: {', '.join(PHRASE_BANKS)}")
    data, suffix = read_bounded(path, status)
    return parse_phrases(data, suffix, _shown(path), _shown(Path(path).stem), key)


def load_class_names(spec: str | Path) -> ClassNames:
    """Read names for the classes of a data set from a file.

    Args:
        spec: Path of a file with one name per line in the order of the classes, or with lines `folder<TAB>name`.

    Raises:
        InputError: The file does not exist, a line is not a name, or there are lines of both kinds.
    """
    path, _, status = _find(str(spec), "name a file with one class name per line")
    data, _ = read_bounded(path, status, (".txt", ".tsv"))
    return parse_class_names(_decoded(data, _shown(path)), _shown(path))


def read_bounded(path: str, status: os.stat_result, suffixes: Sequence[str] = tuple(MAX_BYTES)) -> tuple[bytes, str]:
    """Read a file whose size is limited.

    Args:
        path: Path of the file.
        status: Its status.
        suffixes: Allowed suffixes.

    Returns:
        Content and suffix.

    Raises:
        InputError: It is not a regular file, has another suffix, or is larger than `MAX_BYTES`.
    """
    shown = _shown(path)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown}: is a directory; name a file in it")
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise InputError(f"{shown}: unknown suffix {shorten(suffix)}; a bank is a file of {', '.join(suffixes)}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown}: is not a regular file; copy it to one")
    limit = MAX_BYTES.get(suffix, MAX_BYTES[".txt"])
    try:
        with open(path, "rb") as f:
            data = f.read(limit + 1)
    except OSError as e:
        raise _unreadable(path, e) from e
    if len(data) > limit:
        raise InputError(f"{shown}: larger than {limit / 1e6:.0f} MB; a {suffix} bank must be smaller, split it")
    return data, suffix


def _is_name(spec: str) -> bool:
    """Return whether a spec may be the name of a bank; if it has a suffix or exists as a file, it is a file."""
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
    except Exception as e:  # a plug-in may raise anything
        raise PromptSearchError(f"plug-in {name!r} (banks) failed ({type(e).__name__}: {e}); update its package") from e
    if not isinstance(made, Bank):
        raise PromptSearchError(f"plug-in {name!r} (banks) returned {shorten(made)}; it must return a Bank")
    return made


def _first_line(thing: object) -> str:
    return ((getattr(thing, "__doc__", None) or "").strip().splitlines() or [""])[0]


def _find(spec: str, there: str) -> tuple[str, str | None, os.stat_result]:
    """Return the path, the key after `#` and the file's status; a file whose name contains `#` has priority."""
    path, mark, key = spec.rpartition("#")
    for candidate, picked in ((spec, None), (path, key)) if mark else ((spec, None),):
        try:
            return candidate, picked, os.stat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as e:
            raise _unreadable(candidate, e) from e
    raise InputError(f"{_shown(spec)}: no such file or bank; {there}")


def _unreadable(path: str, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{_shown(path)}: cannot be read: {reason}; name a file that you may read")


def _shown(path: str) -> str:
    return path if path.isprintable() and 0 < len(path) <= 200 else shorten(path, 200)


def parse_bank(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> Bank:
    """Read a bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose from CLIP_benchmark's lists.

    Raises:
        InputError: The bank is invalid.
    """
    text = _decoded(data, place)
    if suffix == ".json":
        return from_tree(parse_json(text, place), place, name, place, key)
    _short_lines(text, place)
    if suffix == ".txt":
        if key is not None:
            raise InputError(f"{place}: a .txt bank has no parts to pick {shorten(key)} from; leave #{key} out")
        return from_txt(text, place, name, place)
    return from_tree(parse_yaml(text, place), place, name, place, key)


def parse_phrases(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> PhraseBank:
    """Read a phrase bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose, if the file has several.

    Raises:
        InputError: The bank is invalid.
    """
    text = _decoded(data, place)
    if suffix == ".json":
        return phrases_from_tree(parse_json(text, place), place, name, key)
    _short_lines(text, place)
    if suffix == ".txt":
        return phrases_from_txt(text, place, name)
    return phrases_from_tree(parse_yaml(text, place), place, name, key)


def _decoded(data: bytes, place: str) -> str:
    data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        at = e.start - data.rfind(b"\n", 0, e.start)
        raise InputError(
            f"{place}:{line}: not UTF-8: byte 0x{data[e.start]:02x}, number {at} of the line; save the file as UTF-8"
        ) from e


def _short_lines(text: str, place: str) -> None:
    for number, line_text in enumerate(text.split("\n"), start=1):
        if len(line_text) > MAX_LINE:
            raise InputError(
                f"{place}:{number}: line of {len(line_text)} characters: {shorten(line_text)}; keep it to {MAX_LINE}"
            )
