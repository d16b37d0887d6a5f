"""Write docs/reference.md: every command with its options, as the command line itself explains them.

python docs/make_reference.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from promptsearch.cli import main

HEAD = """# Reference of every command

Made by `python docs/make_reference.py` from what `--help` says; a test fails when a command or an option is missing.
Exit codes: 0 done, 1 a failure, 2 wrong usage, 130 interrupted. Results go to stdout, progress and warnings to stderr.
"""


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by its path."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def section(path: tuple[str, ...], command: click.Command) -> str:
    """One command: what it does, how it is called, its options in a table."""
    parent = click.Context(main, info_name="promptsearch", show_default=True)
    context = click.Context(command, info_name=" ".join(path), parent=parent)
    usage = " ".join(["promptsearch", *path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "")
    if "\b\n" in text:  # click's mark of lines to be left as they are
        head, _, rows = text.partition("\b\n")
        block, _, tail = rows.partition("\n\n")
        text = f"{head.strip()}\n\n```text\n{block.rstrip()}\n```\n\n{tail.strip()}".strip()
    lines = [f"## promptsearch {' '.join(path)}", "", text, "", f"    {usage}", ""]
    shown = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  promptsearch ")]
    lines += [f"Example: `{line}`\n" for line in shown]
    rows_of = [p.get_help_record(context) for p in command.params if isinstance(p, click.Option)]
    if any(rows_of):
        lines += ["| option | what it is |", "|---|---|"]
    lines += [f"| `{cell(r[0])}` | {cell(r[1])} |" for r in rows_of if r is not None]
    return "\n".join(lines).rstrip()


def cell(text: str) -> str:
    """Text inside a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def reference() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), *(section(p, c) for p, c in commands(main))]) + "\n"


if __name__ == "__main__":
    (Path(__file__).resolve().parent / "reference.md").write_text(reference(), "utf-8")
