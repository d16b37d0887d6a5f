"""Run the commands that made the figures of the pages again, and say where a page no longer says what they print.

    python benchmarks/check_docs.py                      # README.md and docs/*.md; exit code 1 if a figure differs
    python benchmarks/check_docs.py docs/gallery.md --write  # put what the commands print now into the page

A block of figures stands between two comments, the first of which names the command, as typed in the repository's root:

    <!-- made by: promptsearch beam --shots 1 -->
    …
    <!-- end -->

Every line with a number must be one that the command prints, in the same order; durations and names of runs are not
compared, and a page may leave lines out. `made by, slow:` marks a command that takes more than a minute or so: it is
run with --slow only. Commands run in bash, offline, with a new home and cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(^<!-- made by(, slow)?: (.+?) -->\n)(.*?)(^<!-- end -->$)", re.M | re.S)
TABLE = str.maketrans("|*`", "   ")  # a table of the page may be plain columns where it is printed
NUMBER = re.compile(r"(?<![\w.-])\d")
DURATION = re.compile(r"\d[\d.,]* (s|min|h|seconds|minutes)\b")
NAME = re.compile(r"-[0-9a-f]{8}\b")  # the end of a run's name: a hash of its options and of the bank


class Difference(NamedTuple):
    """A line of a page that its command does not print."""

    page: Path
    line: int
    command: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: `{self.command}` does not print: {self.text}"


def figures(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold a number, without durations, hashes and decoration, each with its place."""
    for place, line in enumerate(text.splitlines()):
        if NUMBER.search(line):
            yield place, " ".join(NAME.sub("", DURATION.sub("… s", line)).translate(TABLE).split())


def differences(page: Path, text: str, block: re.Match[str], printed: str) -> Iterator[Difference]:
    """The lines of a block that are not among what its command printed, in their order."""
    left = [line for _, line in figures(printed)]
    start = text.count("\n", 0, block.start(4)) + 1
    for place, line in figures(block[4]):
        if line in left:
            left = left[left.index(line) + 1 :]
        else:
            yield Difference(page, start + place, block[3], line)


def run(command: str, home: Path) -> str:
    """What a command prints on stdout, run in the root of the repository by this Python's environment."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PROMPTSEARCH_HOME": str(home / "home"),
        "PROMPTSEARCH_CACHE": str(home / "cache"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise click.ClickException(f"`{command}` ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def check(page: Path, home: Path, slow: bool, write: bool) -> list[Difference]:
    """Run the commands of a page; its differences, which `write` puts right."""
    text = new = page.read_text("utf-8")
    found: list[Difference] = []
    for block in BLOCK.finditer(text):
        if block[2] and not slow:
            continue
        click.echo(f"{page.name}: {block[3]}", err=True)
        printed = run(block[3], home)
        found += differences(page, text, block, printed)
        fence = re.match(r"```\w*\n", block[4])
        inside = f"{fence[0]}{printed.rstrip()}\n```" if fence else f"\n{printed.strip()}\n"
        new = new.replace(block[0], f"{block[1]}{inside}\n{block[5]}")
        if write:
            page.write_text(new, "utf-8")
    return [] if write else found


@click.command()
@click.argument("pages", nargs=-1, type=click.Path(path_type=Path))
@click.option("--slow", is_flag=True, help="Run the slow commands, too.")
@click.option("--write", is_flag=True, help="Put what the commands print into the pages.")
def main(pages: Sequence[Path], slow: bool, write: bool) -> None:
    """Check the figures of PAGES, by default README.md and docs/*.md."""
    for page in pages:
        if not page.is_file():
            raise click.BadParameter(f"there is no page {page}")
    with tempfile.TemporaryDirectory() as home:
        every = pages or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        found = [d for page in every for d in check(page, Path(home), slow, write)]
    for difference in found:
        click.echo(difference)
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
