"""The README is true: its commands exist, its example runs, its printed result is what is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from promptsearch.cli import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


ALL = list(commands(main))


@pytest.mark.parametrize("path", [p for p, _ in ALL], ids=" ".join)
def test_every_command_is_in_the_table(path: tuple[str, ...]) -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `promptsearch ")]
    group = [r for r in rows if re.search(rf"`(promptsearch )?{path[0]}\b", r)]
    assert group, f"promptsearch {path[0]} has no row"
    if len(path) > 1:
        assert any(re.search(rf"[` ]{path[1]}\b", r) for r in group), f"{' '.join(path)} is not named"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(p) for p, _ in ALL])
def test_every_command_and_option_explains_itself(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{' '.join(path)} {option.opts[0]} has no help"
    assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0


def test_options_named_in_the_readme_exist() -> None:
    known = {o for c in (main, *dict(ALL).values()) for p in c.params for o in p.opts} | {"--help", "--version"}
    text = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_the_python_example_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it writes files
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert 0.5 < float(capsys.readouterr().out.splitlines()[-1]) < 1


def test_the_printed_result_is_what_is_printed() -> None:
    """The winner and its figures; times and places differ from machine to machine."""
    printed = re.findall(r"^```text\n(.*?)^```", README, re.M | re.S)[0]
    args = ["beam", "--bank", "templates", "--shots", "16", "--model", "zeroshot"]
    output = CliRunner().invoke(main, args).stdout
    for figure in re.findall(r"\d\d\.\d\d \(\d\d\.\d–\d\d\.\d\)", printed):
        assert figure in output
    winner = re.search(r"^ *winner +(.*?)  ", printed, re.M)
    assert winner is not None and winner[1] in output
