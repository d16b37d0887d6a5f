"""The documentation is true: its command lines run, or at least parse; its files and links exist."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from promptsearch.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(p.relative_to(ROOT)) for p in PAGES]
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


def command_lines(page: Path) -> Iterator[str]:
    """Every line of a page that is a command line of promptsearch, run or not."""
    text = page.read_text("utf-8")
    for block in re.findall(r"^```(?:sh|bash|text)\n(.*?)^```|((?:^ {4}\S.*\n)+)", text, re.M | re.S):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            if (line := line.strip().removeprefix("$ ")).startswith("promptsearch ") and "[OPTIONS]" not in line:
                yield line


def parse(args: list[str]) -> None:
    """Parse a command line as far as the command itself, without running it."""
    context = click.Context(main, info_name="promptsearch", show_default=True)
    group: click.Command = main
    while isinstance(group, click.Group):
        _, command, args = group.resolve_command(context, args)
        assert command is not None
        group, context = command, click.Context(command, info_name=command.name, parent=context)
    with context:
        group.make_context(group.name, list(args), parent=context.parent)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_command_lines_parse(page: Path) -> None:
    for line in command_lines(page):
        line = re.sub(r"\s+(?:[|>&]|2>).*", "", line)
        try:
            words = shlex.split(line, comments=True)[1:]
            parse([w for i, w in enumerate(words) if i or w != "-v"])
        except click.ClickException as e:
            pytest.fail(f"{line}: {e.format_message()}")
        except click.exceptions.Exit as e:  # --help
            assert e.exit_code == 0


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_scripts_and_modules_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for script in re.findall(r"python3? ((?:benchmarks|docs)/\S+\.py)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"python3? -m (promptsearch[\w.]+)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module
    for script, options in re.findall(r"python3? (benchmarks/\S+\.py)((?: +--?[\w-]+(?: [\w.,/]+)?)+)", text):
        source = (ROOT / script).read_text("utf-8")
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}' in source or f"/{option}" in source, f"{script} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w…-]+)?\)", page.read_text("utf-8")):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_the_reference_is_what_the_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "120")
    place = ROOT / "docs" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "reference.md").read_text("utf-8") == module.reference(), "python docs/make_reference.py"
