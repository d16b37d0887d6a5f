"""A result of docs/gallery.md, as Markdown, from what a search prints with --json.

promptsearch beam --shots 1 --json | python benchmarks/gallery.py

benchmarks/check_docs.py runs the commands that stand in the page, and writes or checks what this prints.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

SHOWN = 3  # classes whose phrases are shown


def percent(score: dict[str, Any]) -> str:
    """An accuracy with its interval, in percent."""
    return f"{100 * score['accuracy']:.2f} ({100 * score['low']:.1f}–{100 * score['high']:.1f})"


def row(name: str, score: dict[str, Any], on: str) -> str:
    """One line of the table, with a bar of one block for 2.5 points."""
    return f"| {on} | {name} | {percent(score)} | {'█' * round(40 * score['accuracy'])} |"


def entry(result: dict[str, Any]) -> str:
    """The winner's sentences, its phrases for the first classes, and a table of accuracies."""
    winner = result["winner"]
    templates = winner["templates"]
    weights = winner.get("weights") or [1 / len(templates)] * len(templates)  # none: a plain average
    lines = [f"- {weight:.2f} × “{t}”" for t, weight in zip(templates, weights, strict=True)]
    if phrases := winner.get("phrases"):
        said = [
            f"{name}: " + ", ".join(f"{weight:.2f} × {phrase}" for phrase, weight in chosen.items())
            for name, chosen in zip(result["classes"], phrases, strict=True)
        ]
        lines += ["", "Of the classes it says, among others: " + "; ".join(said[:SHOWN]) + "."]
    lines += ["", "| test pictures of | prompt | accuracy, % (95 % interval) | |", "|---|---|---|---|"]
    for judged in [result, *result.get("transfers", [])]:
        hand = next(b for b in judged["baselines"] if b["name"] == "hand-written")
        lines += [
            row("“" + hand["templates"][0] + "”", hand["test"], judged["dataset"]),
            row("the winner", judged["winner"]["test"], judged["dataset"]),
        ]
    for judged in [result, *result.get("transfers", [])]:
        paired = judged["paired"]
        gain, low, high = (100 * paired[k] for k in ("difference", "low", "high"))
        lines += [
            "",
            f"On the {paired['pictures']:,} test pictures of {judged['dataset']}: {gain:+.2f} points ({low:+.2f} to "
            f"{high:+.2f}), {paired['verdict']}.",
        ]
    return "\n".join([*lines, "", f"{result['evaluations']:,} prompt sets scored."])


@click.command()
def main() -> None:
    """Print the entry of the result on stdin."""
    click.echo(entry(json.load(sys.stdin)))


if __name__ == "__main__":
    main()
