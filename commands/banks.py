"""`promptsearch banks`: what templates there are, and whether a file of them is right."""

from __future__ import annotations

import json
from typing import Any

import click

from promptsearch.banks import Bank, builtin_banks, load_bank
from promptsearch.banks.shipped import OPEN_CLIP_SIZES
from promptsearch.commands import complete
from promptsearch.errors import PromptSearchError


@click.group()
def banks() -> None:
    """List, show and check banks of templates."""


@banks.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_banks(as_json: bool) -> None:
    """List the built-in banks; any file of templates is a bank too."""
    rows: list[dict[str, Any]] = []
    for name, description in builtin_banks().items():
        try:
            size = OPEN_CLIP_SIZES.get(name) or len(load_bank(name))
        except PromptSearchError as e:  # a plug-in's: the others are listed all the same
            click.echo(f"Warning: {e}", err=True)
            continue
        rows.append({"name": name, "size": size, "description": description})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(str(r["name"])) for r in rows)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['size']:>5}  {row['description']}")


@banks.command()
@click.argument("bank", shell_complete=complete.banks)
@click.option("--limit", type=click.IntRange(min=0), help="Show no more templates than this.")
@click.option("--json", "as_json", is_flag=True, help="For machines, with line numbers.")
def show(bank: str, limit: int | None, as_json: bool) -> None:
    """Show the templates of BANK, a built-in name or a file.  The output is itself a bank, unless --json is given."""
    loaded = load_bank(bank)
    if as_json:
        click.echo(json.dumps(_document(loaded, limit), indent=2))
        return
    click.echo(f"# {_summary(loaded)}")
    if loaded.grammar is not None:
        for pattern in loaded.grammar.patterns:
            click.echo(f"# pattern: {pattern}")
        for name, words in loaded.grammar.slots.items():
            click.echo(f"# [{name}]: {' | '.join(words)}")
    for class_name, others in loaded.class_names.items():
        click.echo(f"# class {class_name}: {', '.join(others)}")
    lines = loaded.to_txt().splitlines()[:limit]
    for line in lines:
        click.echo(line)
    if len(lines) < len(loaded):
        click.echo(f"# and {len(loaded) - len(lines)} more")


@banks.command()
@click.argument("file")
def check(file: str) -> None:
    """Check FILE.  A bank's counts and hash are shown; otherwise what is wrong, where, and what to do."""
    click.echo(f"ok: {_summary(load_bank(file))}")


def _summary(bank: Bank) -> str:
    parts = [f"bank {bank.name}", _count(len(bank), "template")]
    if bank.grammar is not None:
        drawn = ", a sample listed" if bank.sampled else ""
        parts.append(f"{_count(len(bank.grammar.patterns), 'pattern')} with {bank.grammar.size} choices{drawn}")
    if bank.class_names:
        parts.append(f"other names for {len(bank.class_names)} classes")
    return ", ".join([*parts, f"hash {bank.hash[:16]}"])


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def _document(bank: Bank, limit: int | None) -> dict[str, Any]:
    entries = list(zip(bank.templates, bank.lines, strict=True))[:limit]
    grammar = None if bank.grammar is None else {**bank.grammar.to_dict(), "size": bank.grammar.size}
    return {
        "name": bank.name,
        "source": bank.source,
        "hash": bank.hash,
        "size": len(bank),
        "sampled": bank.sampled,
        "templates": [{"template": str(t), "line": line} for t, line in entries],
        "grammar": grammar,
        "class_names": {name: list(others) for name, others in bank.class_names.items()},
    }
