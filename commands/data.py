"""The command `promptsearch data`, which checks a data set before a search."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import reading_options
from promptsearch.commands.terminal import progress_bar

if TYPE_CHECKING:
    from promptsearch.evaluators.data.check import DataCheck

#: Largest number of classes listed: those with the fewest pictures.
LISTED = 20


@click.group(epilog=example("promptsearch data check my-pictures"))
def data() -> None:
    """Check a data set before a search."""


@data.command(epilog=example("promptsearch data check my-pictures", "promptsearch data check labels.csv"))
@click.argument("path", shell_complete=complete.datasets)
@reading_options
@click.option("--class-names", type=click.Path(dir_okay=False), help="File of names for the classes, as for a search.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def check(path: str, as_json: bool, quiet: bool, class_names: str | None, **reading: Any) -> None:
    """Show what a data set holds, what is wrong, and what to run next.

    PATH is a folder or file, or a name as for --dataset. Every picture is decoded once.
    """
    from promptsearch.banks import printable
    from promptsearch.evaluators.data.check import check_data

    with progress_bar(quiet or as_json) as progress:
        found = check_data(path, progress, class_names, **reading)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    for line in _lines(found):
        click.echo(printable(line))


def _lines(found: DataCheck) -> list[str]:
    """Return the report as lines of text."""
    rows = [(name, [of[c] for of in found.counts.values()]) for c, name in enumerate(found.classes)]
    listed = rows if len(rows) <= LISTED else sorted(rows, key=lambda r: min(r[1]))[:LISTED]
    width = max(len(name) for name, _ in [*listed, ("all classes", [])])
    lines = [f"{found.spec}: {found.kind}, {len(rows)} classes", ""]
    lines.append(" " * width + "".join(f"{split:>12}" for split in found.counts))
    lines += [f"{name:{width}}" + "".join(f"{n:12,}" for n in counts) for name, counts in listed]
    if len(listed) < len(rows):
        lines.append(f"and {len(rows) - len(listed)} classes with more pictures")
    lines.append(f"{'all classes':{width}}" + "".join(f"{sum(counts):12,}" for counts in found.counts.values()))
    lines.append("")
    if found.unused:
        lines.append(f"Not used: split {', '.join(found.unused)}.")
    lines += found.left_out
    lines += [f"To mind: {text}" for text in found.problems] or ["Nothing that would go wrong was found."]
    return [*lines, "", "Next:", f"  {shlex.join(found.command)}"]
