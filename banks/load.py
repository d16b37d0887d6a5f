"""Banks by name or by path."""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path

from promptsearch.banks.bank import Bank
from promptsearch.banks.formats import from_tree, from_txt
from promptsearch.banks.parse import parse_json, parse_yaml
from promptsearch.banks.template import Template, shorten
from promptsearch.errors import InputError, PromptSearchError

#: Longest line of a text or YAML file, in characters; JSON may be one long line.
MAX_LINE = 10_000
#: Largest file of each format, in bytes.  YAML is parsed slowly.
MAX_BYTES = {".txt": 16_000_000, ".json": 16_000_000, ".yaml": 1_000_000, ".yml": 1_000_000}

_FILES = {"templates": "templates.txt", "grammar": "grammar.yaml", "openai-cifar": "openai-cifar.txt"}
_OPEN_CLIP = {"openai-imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple-imagenet": "SIMPLE_IMAGENET_TEMPLATES"}
#: Sizes of the banks that open_clip has: importing it to count takes seconds.
OPEN_CLIP_SIZES = {"openai-imagenet": 80, "simple-imagenet": 7}
_BOM = b"\xef\xbb\xbf"


def builtin_banks() -> dict[str, str]:
    """Names and descriptions of the banks that need no file."""
    return {
        "templates": "hand-written sentences: media, quality, light, distance, framing, context, weather",
        "grammar": "a slot grammar of quality, medium, determiner and context",
        "openai-cifar": "the 18 templates that CLIP's authors wrote for CIFAR-10 and CIFAR-100",
        "openai-imagenet": "the 80 templates of CLIP's ImageNet ensemble, from open_clip",
        "simple-imagenet": "the 7 templates of CLIP's small ImageNet ensemble, from open_clip",
    }


def load_bank(spec: str | Path) -> Bank:
    """The bank of this name (see `builtin_banks`), or of the file at this path.

    Files: `.txt`, `.yaml`, `.yml` and `.json`; `file.json#cifar10` picks one data set of CLIP_benchmark's templates.

    Raises:
        InputError: no such bank or file, or something wrong in it: "path:line: what is wrong: value; remedy".
    """
    if isinstance(spec, str) and spec in _FILES:
        file = _FILES[spec]
        data = (resources.files(__package__) / file).read_bytes()
        return _parse(data, Path(file).suffix, f"promptsearch/banks/{file}", spec, None)
    if isinstance(spec, str) and spec in _OPEN_CLIP:
        return _from_open_clip(spec)
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
    return _parse(data, suffix, shown, _shown(Path(path).stem), key)


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


def _parse(data: bytes, suffix: str, place: str, name: str, key: str | None) -> Bank:
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


def _from_open_clip(name: str) -> Bank:
    try:
        import open_clip
    except ImportError as e:
        raise PromptSearchError(f"bank {name!r} needs open_clip, which does not import: {e}; reinstall it") from e
    texts = [Template(fill("{}")) for fill in getattr(open_clip, _OPEN_CLIP[name])]
    return Bank(name, tuple(dict.fromkeys(texts)), source=f"open_clip.{_OPEN_CLIP[name]}")
