"""Loads banks by name or from files; the built-in ones are functions, like those of plug-ins."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from promptsearch.banks.bank import Bank, PhraseBank
from promptsearch.banks.formats import ClassNames, decode, parse_bank, parse_class_names, parse_phrases
from promptsearch.banks.template import Template, shorten
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.plugins import Registry

#: Sizes of the banks from open_clip, listed here because importing it takes seconds.
OPEN_CLIP_SIZES = {"openai-imagenet": 80, "simple-imagenet": 7}


def templates() -> Bank:
    """Hand-written templates: media, quality, light, distance, framing, context, weather."""
    return _file("templates", "templates.txt")


def grammar() -> Bank:
    """A slot grammar of quality, medium, determiner and context."""
    return _file("grammar", "grammar.yaml")


def openai_cifar() -> Bank:
    """The 18 templates of CLIP's authors for CIFAR-10 and CIFAR-100."""
    return _file("openai-cifar", "openai-cifar.txt")


def openai_imagenet() -> Bank:
    """The 80 templates of CLIP's ImageNet ensemble, from open_clip."""
    return _open_clip("openai-imagenet", "OPENAI_IMAGENET_TEMPLATES")


def simple_imagenet() -> Bank:
    """The 7 templates of CLIP's small ImageNet ensemble, from open_clip."""
    return _open_clip("simple-imagenet", "SIMPLE_IMAGENET_TEMPLATES")


def _file(name: str, file: str) -> Bank:
    data = (resources.files(__package__) / file).read_bytes()
    return parse_bank(data, Path(file).suffix, f"promptsearch/banks/{file}", name)


def _open_clip(name: str, constant: str) -> Bank:
    try:
        import open_clip
    except ImportError as e:
        raise PromptSearchError(f"bank {name!r} needs open_clip, which does not import: {e}; reinstall it") from e
    texts = [Template(fill("{}")) for fill in getattr(open_clip, constant)]
    return Bank(name, tuple(dict.fromkeys(texts)), source=f"open_clip.{constant}")


#: The built-in banks by name.
SHIPPED = {
    "templates": templates,
    "grammar": grammar,
    "openai-cifar": openai_cifar,
    "openai-imagenet": openai_imagenet,
    "simple-imagenet": simple_imagenet,
}


#: Largest file of each format, in bytes; smaller for YAML, because it is parsed slowly.
MAX_BYTES = {".txt": 16_000_000, ".json": 16_000_000, ".yaml": 1_000_000, ".yml": 1_000_000}


BANKS = Registry("banks", SHIPPED)

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
    if spec in PHRASE_BANKS and not os.path.isfile(spec):  # a file of that name takes precedence
        return _built_in_phrases(str(spec))
    path, key, status = _find(str(spec), f"built-in phrase banks: {', '.join(PHRASE_BANKS)}")
    data, suffix = read_bounded(path, status)
    return parse_phrases(data, suffix, _shown(path), _shown(Path(path).stem), key)


@cache  # cached, because `compare` loads them for every cell
def _built_in_phrases(name: str) -> PhraseBank:
    file = f"{name}.phrases.yaml"
    data = (resources.files(__package__) / file).read_bytes()
    return parse_phrases(data, ".yaml", f"promptsearch/banks/{file}", name)


def load_class_names(spec: str | Path) -> ClassNames:
    """Read names for the classes of a data set from a file.

    Args:
        spec: Path of a file with one name per line in the order of the classes, or with lines `folder<TAB>name`.

    Raises:
        InputError: The file does not exist, a line is not a name, or there are lines of both kinds.
    """
    path, _, status = _find(str(spec), "name a file with one class name per line")
    data, _ = read_bounded(path, status, (".txt", ".tsv"))
    return parse_class_names(decode(data, _shown(path)), _shown(path))


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
