"""The documentation is true: its pages run, what it names exists, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from promptsearch.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(p.relative_to(ROOT)) for p in PAGES]
SCRIPTS: dict[str, Any] = {}
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all pages: texts are encoded once."""
    return tmp_path_factory.mktemp("docs-home")


def run_lines(block: str) -> None:
    """Run a `sh` block: files by here-document, and promptsearch's own command lines in this process."""
    lines = iter(block.splitlines())
    for line in lines:
        if here := re.fullmatch(r"cat > (\S+) <<'(\w+)'", line):
            body = []
            for text in lines:
                if text == here[2]:
                    break
                body.append(text)
            Path(here[1]).write_text("\n".join(body) + "\n")
        elif line.strip():
            words = shlex.split(line, comments=True)
            assert words[0] == "promptsearch", f"the tests cannot run {line!r}"
            target = words[words.index(">") + 1] if ">" in words else None
            args = words[1 : words.index(">")] if target else words[1:]
            result = CliRunner().invoke(main, args)
            assert result.exit_code == 0, (line, result.output, result.stderr, result.exception)
            if target:
                Path(target).write_text(result.stdout)


@pytest.mark.parametrize("page", ["tutorial.md", "how-to.md"])
def test_the_page_runs(page: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(home / "cache"))
    for kind, block in BLOCK.findall((ROOT / "docs" / page).read_text("utf-8")):
        if kind == "sh":
            run_lines(block)
        elif kind == "python":
            exec(compile(block, page, "exec"), {"__name__": page})
    if page == "tutorial.md":
        assert (folder / "winner.txt").read_text().strip()
        ast.parse((folder / "classify.py").read_text())


def command_of(words: list[str]) -> click.Command:
    """The command that the words of a command line name."""
    found: click.Command = main
    for word in words:
        if not isinstance(found, click.Group):
            break
        if not word.startswith("-"):
            found = found.commands[word]
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_within_sentences_exist(page: Path) -> None:
    """Command lines of their own are run by test_docs_lines.py; these have placeholders, or no values."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`promptsearch ([^`]+)`", text):
        words = [w for w in span.split() if w != "COMMAND"]
        known = {o for p in command_of(words).params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, span


def script_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every line of a page that runs a script or a module of this repository: its name, its arguments."""
    text = page.read_text("utf-8").replace(" -->", "")
    for kind, name, rest in re.findall(
        r"python3? (?:(-m) )?((?:benchmarks|docs)/\S+\.py|promptsearch[\w.]+)([^`\n|&(>]*)", text
    ):
        yield (name if kind else str(ROOT / name)), shlex.split(rest, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_lines_of_scripts_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take minutes to hours: they are parsed by the script itself, and not run."""
    for folder in ("here", "shared/cifar10"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here" / "scale.json").touch()  # what the line before it writes
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name, args in script_lines(page):
        if name.endswith("docs/make_reference.py"):
            continue
        command = script(name).main
        try:
            command.make_context(name, args)
        except click.ClickException as e:
            pytest.fail(f"{name} {shlex.join(args)}: {e.format_message()}")


def script(name: str) -> Any:
    """A script's or module's content."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    if name not in SCRIPTS:
        spec = importlib.util.spec_from_file_location(f"script_{Path(name).stem}", name)
        assert spec is not None and spec.loader is not None, name
        SCRIPTS[name] = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = SCRIPTS[name]
        spec.loader.exec_module(SCRIPTS[name])
    return SCRIPTS[name]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w…-]+)?\)", page.read_text("utf-8")):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_the_reference_is_what_the_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "120")
    module = script(str(ROOT / "docs" / "make_reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text("utf-8") == module.reference(), "python docs/make_reference.py"
