"""Every command's help says in one sentence what it is for, and shows example lines that are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from promptsearch.cli import main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every group and command with its path."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))
IDS = [" ".join(path) or "promptsearch" for path in COMMANDS]


def examples(path: tuple[str, ...]) -> list[list[str]]:
    """The words of each example line in a command's help, without "promptsearch"."""
    result = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    match = re.search(r"^  Examples?:\n((?:    promptsearch .*\n?)+)", result.output, re.M)
    assert match is not None, f"{' '.join(path)} --help shows no example"
    return [shlex.split(line)[1:] for line in match[1].splitlines()]


@pytest.mark.parametrize("path", COMMANDS, ids=IDS)
def test_help_shows_valid_example_lines(path: tuple[str, ...]) -> None:
    for words in examples(path):
        assert words[: len(path)] == list(path), f"the example is of another command: {shlex.join(words)}"
        found, at = COMMANDS[()], 0
        while isinstance(found, click.Group):
            found, at = found.commands[words[at]], at + 1
        found.make_context(found.name, words[at:])  # a usage error fails the test


@pytest.mark.parametrize("path", COMMANDS, ids=IDS)
def test_help_begins_with_a_sentence(path: tuple[str, ...]) -> None:
    text = COMMANDS[path].help or ""
    first = text.split("\n\n")[0].replace("\n", " ")
    assert re.fullmatch(r"[A-Z][a-z]+,? .+\.", first), first
    assert not re.search(r"\. [A-Z]", first), f"more than one sentence: {first}"


@pytest.mark.parametrize("path", COMMANDS, ids=IDS)
def test_every_option_has_a_help_text(path: tuple[str, ...]) -> None:
    for option in (p for p in COMMANDS[path].params if isinstance(p, click.Option)):
        assert option.help and option.help[0].isupper() or option.name in ("model", "dataset"), option.opts
        assert option.help is not None and option.help.rstrip("])").endswith(".") or "[default:" in option.help
