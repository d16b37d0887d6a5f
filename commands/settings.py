"""Defaults from a file: `promptsearch.toml`, or `[tool.promptsearch]` of a `pyproject.toml`."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from promptsearch.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from PyPI
    import tomli as tomllib

NAME, SHARED = "promptsearch.toml", "pyproject.toml"
VARIABLE = "PROMPTSEARCH_CONFIG"


def find_settings(named: Path | None = None, start: Path | None = None) -> Path | None:
    """The file that settings come from: `named`, else `PROMPTSEARCH_CONFIG`, else the nearest upwards from `start`.

    Raises:
        InputError: the file that is named is not there.
    """
    given = named or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given is not None:
        if not given.is_file():
            raise InputError(f"settings file {given}: no such file; name another with --config or {VARIABLE}")
        return given
    try:
        here = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # the folder that the shell is in was removed
        return None
    for folder in (here, *here.parents):
        if (folder / NAME).is_file():
            return folder / NAME
        shared = folder / SHARED
        if shared.is_file() and "[tool.promptsearch" in _text(shared):
            return shared
    return None


def _text(shared: Path) -> str:
    """Another tool's file, or nothing where it may not be read."""
    try:
        return shared.read_text("utf-8", "replace")
    except OSError:
        return ""


def read_settings(path: Path, group: click.Group) -> dict[str, Any]:
    """A file's values as click's `default_map` for `group`.

    A key outside every table is the value of that option for each command that has it; a table named after a command
    (`[beam]`, `[runs.list]`) is for that command alone.  Keys are the options' long names without their dashes.

    Raises:
        InputError: not TOML, or a key, command or value that the command line would refuse; the place is named.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not TOML ({e}); write lines such as shots = 4") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); name another with --config") from e
    if path.name == SHARED:
        data = data.get("tool", {}).get("promptsearch", {})
    shared = {k: v for k, v in data.items() if not isinstance(v, dict)}
    everywhere = set().union(*(_options(c) for c in _commands(group)))
    for key in shared:
        if key not in everywhere:
            raise InputError(f"{path}: no command has an option {key!r}{_near(key, everywhere)}")
    return _values(path, group, shared, {k: v for k, v in data.items() if isinstance(v, dict)}, "")


def _values(path: Path, group: click.Group, shared: Mapping[str, Any], own: Mapping[str, Any], at: str) -> dict:
    values: dict[str, Any] = {}
    for key in own:
        if key not in group.commands:
            raise InputError(f"{path}: there is no command {at + key!r}{_near(key, group.commands)}")
    for name, command in group.commands.items():
        table = own.get(name, {})
        if isinstance(command, click.Group):
            values[name] = _values(path, command, shared, table, f"{at}{name}.")
            continue
        options = _options(command)
        for key in table:
            if key not in options:
                raise InputError(f"{path}: [{at}{name}] has no option {key!r}{_near(key, options)}")
        both = {**{k: v for k, v in shared.items() if k in options}, **table}
        values[name] = {str(options[k].name): _checked(path, k, v, options[k]) for k, v in both.items()}
    return values


def _checked(path: Path, key: str, value: Any, option: click.Option) -> Any:
    if option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{path}: {key} = {value!r}: write true or false")
        return value
    try:
        for each in value if option.multiple and isinstance(value, list) else [value]:
            if isinstance(each, (bool, list, dict)):
                raise click.BadParameter("not one value")
            option.type.convert(each, option, None)
    except click.BadParameter as e:
        raise InputError(f"{path}: {key} = {value!r}: {e.message}") from e
    return value


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
    near = difflib.get_close_matches(key, list(known), 2)
    return f"; did you mean {' or '.join(near)}?" if near else "; see promptsearch --help"
