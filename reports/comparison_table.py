"""Formats a comparison as tables, for the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from promptsearch.banks import printable
from promptsearch.evaluators.scoring.metrics import BINS

#: Metrics other than accuracy, with the titles of their tables.
METRICS = {
    "mean_per_class": "mean per class",
    "worst_class": "accuracy on the worst class",
    "top5": "top 5",
    "ece": f"expected calibration error ({BINS} bins, logit scale fitted to the few shots)",
}


def print_comparison(document: Mapping[str, Any], console: Console, verbose: bool = False) -> None:
    """Print two tables for each data set: the accuracies, and the differences from the reference method.

    Args:
        document: What `build_comparison` returned.
        console: Where to print.
        verbose: Whether to print tables of the other metrics too.
    """
    for note in document.get("notes", []):
        console.print(printable(note), style="dim", markup=False, highlight=False, soft_wrap=True)
    for title, header, rows in [*tables(document), *(metric_tables(document) if verbose else [])]:
        console.print(printable(title), style="bold", markup=False, highlight=False)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(Text(printable(name)), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row), style="dim" if row[-1] == "no" else None)
        console.print(table)
    run = document["run"]
    console.print(
        printable(f"Each test split was opened once, after all training. Run {run['study']} saved in {run['storage']}"),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def to_markdown(document: Mapping[str, Any]) -> str:
    """Return the tables of a comparison as Markdown.

    Args:
        document: What `build_comparison` returned.
    """
    parts = []
    for title, header, rows in tables(document):
        lines = [f"**{printable(title)}**", "", _markdown(header), "|" + " --- |" * len(header)]
        lines += [_markdown(row) for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _markdown(row: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |"


def tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the tables of a comparison as text.

    Args:
        document: What `build_comparison` returned.

    Returns:
        (title, column headings, rows) of each table.
    """
    shots = [str(s) for s in document["shots"]]
    reference = document["against"]["method"]
    found = _overall_tables(document)
    for dataset in document["datasets"]:
        over = _draws(document)
        found.append(
            (
                f"{document['model']} on {dataset}: test accuracy by shots per class, mean ± sd over {over}",
                ["method", *shots, "evaluations", "steps", "seconds", "readable"],
                _rows(document, dataset, document["table"], _accuracy, costs=True),
            )
        )
        if any(r["dataset"] == dataset for r in document["against"]["rows"]):
            found.append(
                (
                    f"{dataset}: points above {reference} on the same draws and pictures, with 95 % intervals",
                    ["method", *shots, "readable"],
                    _rows(document, dataset, document["against"]["rows"], _difference),
                )
            )
    return [*found, *_training_tables(document)]


def _overall_tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the table of means over data sets, if there are several."""
    rows = document.get("overall") or []
    if not rows:
        return []
    reference, shots = document["against"]["method"], document["shots"]
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["shots"]] = row
    lines = []
    for method, cells in by_method.items():
        some = next(iter(cells.values()))
        means = [f"{100 * cells[s]['mean']:.2f}" if s in cells else "" for s in shots]
        gaps = [_difference(cells[s]["against"]) if "against" in cells.get(s, {}) else "" for s in shots]
        lines.append([method, *means, *gaps, "yes" if some["readable"] else "no"])
    title = (
        f"{document['model']}, mean over {rows[0]['datasets']} data sets and {_draws(document)}: test accuracy by "
        f"shots, and points above {reference} with 95 % intervals over draws and test pictures"
    )
    header = ["method", *map(str, shots), *(f"{s}: above {reference}" for s in shots), "readable"]
    return [(title, header, lines)]


def _training_tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the table of the trainings' medians and numbers of collapses, if the hand-written prompt was compared."""
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for row in document["table"]:
        if row.get("collapsed") is not None:
            told = f"{100 * row['median']:.2f}, {row['collapsed']} of {row['draws']}"
            lines.setdefault((row["dataset"], row["method"]), {})[row["shots"]] = told
    if not lines:
        return []
    shots = document["shots"]
    title = (
        "Trainings by shots per class: median test accuracy over draws, and draws that collapsed "
        "(few-shot accuracy below the hand-written prompt's)"
    )
    rows = [[dataset, method, *(cells.get(s, "") for s in shots)] for (dataset, method), cells in lines.items()]
    return [(title, ["data set", "method", *map(str, shots)], rows)]


def metric_tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the tables of the other metrics, in percent, in the form of `tables`."""
    found = []
    for dataset in document["datasets"]:
        for name, title in METRICS.items():
            rows = [r for r in document["table"] if r["dataset"] == dataset and r.get(name) is not None]
            if rows:
                header = ["method", *map(str, document["shots"]), "readable"]
                shown = _rows(document, dataset, rows, lambda r, name=name: f"{100 * r[name]:.2f}")
                found.append((f"{dataset}: {title}, mean over {_draws(document)}", header, shown))
    return found


def _draws(document: Mapping[str, Any]) -> str:
    return f"{document['seeds']} draw{'s' if document['seeds'] != 1 else ''}"


def _rows(
    document: Mapping[str, Any], dataset: str, figures: list[dict[str, Any]], show: Any, costs: bool = False
) -> list[list[str]]:
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for row in figures:
        if row["dataset"] == dataset:
            by_method.setdefault(row["method"], {})[row["shots"]] = row
    made = []
    for method, cells in by_method.items():
        any_cell = next(iter(cells.values()))
        fewer = "" if any_cell["draws"] == document["seeds"] else f" ({any_cell['draws']} of {_draws(document)})"
        line = [method + fewer, *(show(cells[s]) if s in cells else "" for s in document["shots"])]
        if costs:
            most = cells[max(cells)]  # the costs shown are those with the largest number of shots
            line += [_number(most["evaluations"]), _number(most["steps"]), _seconds(most["seconds"])]
        made.append([*line, "yes" if any_cell["readable"] else "no"])
    return made


def _accuracy(row: dict[str, Any]) -> str:
    return f"{100 * row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {100 * row['sd']:.2f}")


def _difference(row: dict[str, Any]) -> str:
    return f"{100 * row['difference']:+.2f} ({100 * row['low']:+.2f} to {100 * row['high']:+.2f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
