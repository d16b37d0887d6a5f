"""Reads the options' defaults from `promptsearch.toml`, or from `[tool.promptsearch]` in `pyproject.toml`."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from promptsearch.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, in a package of PyPI
    import tomli as tomllib

NAME, SHARED = "promptsearch.toml", "pyproject.toml"
VARIABLE = "PROMPTSEARCH_CONFIG"
#: Largest size of a settings file in bytes.
MOST = 1 << 20

#: Options, with reasons, that a settings file may not set unless the user named it: it may be somebody else's.
NAMED_ONLY = {
    **dict.fromkeys(
        ("lm-url", "lm-key-env", "storage", "ray", "repo"), "it says where pictures, prompts or keys are sent"
    ),
    **dict.fromkeys(("out", "csv", "markdown", "figure", "png", "save", "into"), "it says which file is written"),
    **dict.fromkeys(("yes", "open", "force", "log-to"), "it answers or acts for you"),
    **dict.fromkeys(("weights", "set"), "it names a file to load, or is handed to another package"),
}


@dataclass(frozen=True)
class SettingsFile:
    """A settings file.

    Attributes:
        path: The file.
        found: Whether the file was found in a folder; False if `--config` or `PROMPTSEARCH_CONFIG` names it.
    """

    path: Path
    found: bool = False


def find_settings(named: Path | None = None, start: Path | None = None) -> SettingsFile | None:
    """Find the settings file: `named`, else `PROMPTSEARCH_CONFIG`, else the nearest one in `start` and its parents.

    Args:
        named: The file named with `--config`.
        start: Folder to start from; by default the current one.

    Returns:
        The file, or None if there is none.

    Raises:
        InputError: The named file does not exist.
    """
    given = named or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given is not None:
        if not _is_file(given):
            raise InputError(f"settings file {given}: no such file; name another with --config or {VARIABLE}")
        return SettingsFile(given)
    try:
        here = (start or Path.cwd()).resolve()
    except (OSError, RuntimeError):  # the current folder was removed
        return None
    for folder in (here, *here.parents):
        if _is_file(folder / NAME):
            return SettingsFile(folder / NAME, found=True)
        shared = folder / SHARED
        if _is_file(shared) and b"[tool.promptsearch" in _bytes(shared):
            return SettingsFile(shared, found=True)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the folder must not be read
        return False


def _bytes(shared: Path) -> bytes:
    """Return the beginning of a file, or nothing if it cannot be read."""
    try:
        with shared.open("rb") as f:
            return f.read(MOST)
    except OSError:
        return b""


def read_settings(file: SettingsFile, group: click.Group) -> dict[str, Any]:
    """Read a settings file as click's `default_map`.

    A key outside of tables sets the option for every command that has it; a table named after a command (`[beam]`,
    `[runs.list]`) is for this command only. Keys are the options' long names without the dashes.

    Args:
        file: The settings file.
        group: The root command.

    Returns:
        The options' defaults, in the form of click's `default_map`.

    Raises:
        InputError: The file is not TOML, has a key, command or value that the command line would refuse, or sets an
            option of `NAMED_ONLY` although the user did not name the file.
    """
    path = file.path
    data = _parsed(path)
    if path.name == SHARED:
        for key in ("tool", "promptsearch"):
            data = data.get(key, {})
            if not isinstance(data, dict):
                raise InputError(f"{path}: {key} is a value, not a table; write [tool.promptsearch]")
    shared = {k: v for k, v in data.items() if not isinstance(v, dict)}
    everywhere = set().union(*(_options(c) for c in _commands(group)))
    for key, value in shared.items():
        if key in group.commands:
            raise InputError(f"{path}: {key} = {_shown(value)}: {key} is a command; write a table [{key}]")
        if key not in everywhere:
            raise InputError(f"{path}: no command has an option {_shown(key)}{_near(key, everywhere)}")
        _refuse_stranger(file, key)
    return _values(file, group, shared, {k: v for k, v in data.items() if isinstance(v, dict)}, "")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f:
            raw = f.read(MOST + 1)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); name another with --config") from e
    if len(raw) > MOST:
        raise InputError(
            f"{path}: more than {MOST >> 20} MB, too large for a settings file; name another with --config"
        )
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: not TOML (it is UTF-16); save it as UTF-8")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except ValueError as e:  # tomllib's errors, bytes that are not UTF-8, or a number of thousands of digits
        raise InputError(f"{path}: not TOML ({e}); write lines such as shots = 4") from e
    except RecursionError as e:
        raise InputError(f"{path}: nested too deeply; write lines such as shots = 4") from e


def _values(
    file: SettingsFile, group: click.Group, shared: Mapping[str, Any], own: Mapping[str, Any], at: str
) -> dict[str, Any]:
    path = file.path
    values: dict[str, Any] = {}
    for key, table in own.items():
        if key not in group.commands:
            raise InputError(f"{path}: there is no command {_shown(at + key)}{_near(key, group.commands)}")
        if not isinstance(table, dict):
            raise InputError(f"{path}: {at}{key} = {_shown(table)}: {key} is a command; write a table [{at}{key}]")
    for name, command in group.commands.items():
        table = own.get(name, {})
        if isinstance(command, click.Group):
            values[name] = _values(file, command, shared, table, f"{at}{name}.")
            continue
        options = _options(command)
        for key in table:
            if key not in options:
                raise InputError(f"{path}: [{at}{name}] has no option {_shown(key)}{_near(key, options)}")
            _refuse_stranger(file, key)
        both = {**{k: v for k, v in shared.items() if k in options}, **table}
        values[name] = {str(options[k].name): _checked(path, k, v, options[k]) for k, v in both.items()}
    return values


def _refuse_stranger(file: SettingsFile, key: str) -> None:
    if file.found and key in NAMED_ONLY:
        raise InputError(
            f"{file.path}: {key} cannot be set by a settings file that you did not name, because {NAMED_ONLY[key]}; "
            f"give --{key} on the command line, or name the file with --config {file.path.name}"
        )


def _checked(path: Path, key: str, value: Any, option: click.Option) -> Any:
    """Check that the command line would accept a value, and return it for `default_map`."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{path}: {key} = {_shown(value)}: write true or false")
        return value
    many = option.multiple and isinstance(value, list)
    for each in value if many else [value]:
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            raise InputError(f"{path}: {key} = {_shown(value)}: not a single value; write a number or quoted text")
        if isinstance(each, str) and not each.isprintable():
            raise InputError(f"{path}: {key} = {_shown(value)}: has characters that cannot be printed")
        try:
            option.type.convert(str(each), option, None)  # converted from text, as on the command line
        except click.BadParameter as e:
            raise InputError(f"{path}: {key} = {_shown(value)}: {_middle_out(e.message)}") from e
        except (ValueError, TypeError, OverflowError) as e:
            raise InputError(f"{path}: {key} = {_shown(value)}: not a value of this option") from e
    return value if many or not option.multiple else [value]


def _shown(value: Any) -> str:
    """Return a value for an error message, shortened if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return "…"
    return text if len(text) <= 80 else f"{text[:80]}…"


def _middle_out(text: str) -> str:
    return text if len(text) <= 240 else f"{text[:120]} … {text[-120:]}"


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _commands(command)
        else:
            yield command


def _options(command: click.Command) -> dict[str, click.Option]:
    found = (p for p in command.params if isinstance(p, click.Option) and p.name)
    return {next(o for o in p.opts if o.startswith("--"))[2:]: p for p in found}


def _near(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key[:40], list(known), 2)
    return f"; did you mean {' or '.join(near)}?" if near else "; see promptsearch --help"
