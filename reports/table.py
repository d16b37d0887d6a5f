"""A result document as a table for people."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

#: Templates of one set that are shown before "and n more".
SHOWN = 8


def print_result(result: dict[str, Any], console: Console) -> None:
    """The winner, its runners-up and the baselines, the paired difference, and where the run is kept."""
    for note in result.get("notes", []):
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
    shots = result["shots"]
    console.print(
        f"{result['model']} on {result['dataset']}, {shots} shot{'s' if shots != 1 else ''} per class, "
        f"seed {result['seed']}: {result['evaluations']} prompt sets scored in {result['seconds']:.1f} s",
        highlight=False,
    )
    console.print(_table(result))
    paired = result["paired"]
    console.print(
        f"Test split ({result['test_pictures']} pictures, opened once). Winner against {paired['baseline']}, "
        f"same pictures: {100 * paired['difference']:+.2f} points, 95 % interval "
        f"{100 * paired['low']:+.2f} to {100 * paired['high']:+.2f}.",
        highlight=False,
        soft_wrap=True,
    )
    if front := result.get("front"):
        console.print("\nBeaten by none in the objective, fluency and brevity together:", highlight=False)
        console.print(_front(front))
    if proposals := result.get("proposals"):
        console.print(_proposals(proposals), highlight=False, markup=False, soft_wrap=True)
    run = result["run"]
    console.print(f"Run {run['study']} kept in {run['storage']}", highlight=False, markup=False, soft_wrap=True)


def _table(result: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("prompts", ratio=1)
    table.add_column("few-shot\naccuracy", justify="right")
    table.add_column("cross-\nentropy", justify="right")
    table.add_column("test accuracy\n(95 % interval)", justify="right")
    table.add_row("winner", _prompts(result["winner"]), *_figures(result["winner"]), style="bold")
    for i, row in enumerate(result["runners_up"]):
        table.add_row("runner-up" if i == 0 else "", _prompts(row), *_figures(row), end_section=False)
    table.add_section()
    for row in result["baselines"]:
        table.add_row(row["name"], _prompts(row), *_figures(row))
    return table


def _front(rows: list[dict[str, Any]]) -> Table:
    """The front of a run with several aims, best by the objective first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("prompts", ratio=1)
    for heading in ("few-shot\naccuracy", "cross-\nentropy", "fluency\n(nats/token)", "words"):
        table.add_column(heading, justify="right")
    for row in rows:
        support = row["support"]
        figures = f"{100 * support['accuracy']:.1f}", f"{support['xent']:.4f}", f"{support['fluency']:.2f}"
        table.add_row(_prompts(row), *figures, str(row["words"]))
    return table


def _proposals(proposals: dict[str, Any]) -> str:
    """How many were written, what was no use and why, and what that cost."""
    rejected = ", ".join(f"{n} {reason}" for reason, n in proposals["rejected"].items()) or "none"
    text = f"{proposals['proposed']} prompts proposed, rejected: {rejected}"
    usage = proposals.get("usage") or {}
    if usage.get("calls"):
        tokens = f"{usage.get('tokens read', 0)} tokens read, {usage.get('tokens written', 0)} written"
        text += f"; {usage['calls']} calls of the language model, {tokens}"
    return text


def _prompts(row: dict[str, Any]) -> Group | str:
    templates = row["templates"]
    lines = [escape(t) for t in templates[:SHOWN]]
    if len(templates) > SHOWN:
        lines = lines[:2] + [f"… and {len(templates) - 2} more"]
    return "\n".join(lines)


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    support = row["support"]
    test = row.get("test")
    shown = f"{100 * test['accuracy']:.2f} ({100 * test['low']:.1f}–{100 * test['high']:.1f})" if test else ""
    return f"{100 * support['accuracy']:.1f}", f"{support['xent']:.4f}", shown
