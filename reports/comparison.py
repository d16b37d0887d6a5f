"""The JSON document of a comparison: every result, the means over draws, and the differences from one method."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.evaluators.stats.intervals import crossed_interval
from promptsearch.runs.compare.comparison import Tested
from promptsearch.runs.compare.methods import Method

#: Columns of the CSV file, in order.
COLUMNS = (
    "dataset",
    "shots",
    "seed",
    "method",
    "readable",
    "support_accuracy",
    "support_xent",
    "validation_accuracy",
    "validation_xent",
    "test_accuracy",
    "evaluations",
    "steps",
    "seconds",
    "draw",
    "version",
    "templates",
    "class_names",
)


def row_name(tested: Tested) -> str:
    """Return a result's name in tables, e.g. "coop" or "coop: nearest words (cosine), as text"."""
    return f"{tested.cell.method}: {tested.name}" if tested.name else tested.cell.method


def build_comparison(
    head: dict[str, Any], methods: Mapping[str, Method], tested: Sequence[Tested], against: str
) -> dict[str, Any]:
    """Build the document that `compare --json` prints.

    Args:
        head: Entries copied to the top of the document: model, bank, shots, seeds, run and so on.
        methods: The compared methods by name.
        tested: The test result of every method on every data set, number of shots and seed.
        against: Name of the method from which the others' differences are computed.

    Returns:
        A JSON-serialisable document with `table` (mean accuracy over draws), `against` (differences with 95 %
        intervals) and `cells` (every single result). Accuracies are fractions, times are in seconds.
    """
    groups: dict[tuple[str, int, str], list[Tested]] = {}
    for row in tested:
        groups.setdefault((row.cell.dataset, row.cell.shots, row_name(row)), []).append(row)
    table, distances = [], []
    for (dataset, shots, name), rows in groups.items():
        accuracy = np.array([r.hits.mean() for r in rows])
        seconds = [r.figures["seconds"] for r in rows if r.figures["seconds"] is not None]
        own = not rows[0].name
        table.append(
            {
                "dataset": dataset,
                "shots": shots,
                "method": name,
                "readable": rows[0].figures["readable"],
                "draws": len(rows),
                "mean": round(float(accuracy.mean()), 6),
                "sd": round(float(accuracy.std(ddof=1)), 6) if len(rows) > 1 else None,
                "evaluations": round(float(np.mean([r.figures["evaluations"] for r in rows])), 1) if own else None,
                "steps": round(float(np.mean([r.figures["steps"] for r in rows])), 1) if own else None,
                "seconds": round(float(np.mean(seconds)), 3) if own and seconds else None,
            }
        )
        reference = {r.cell.seed: r for r in groups.get((dataset, shots, against), [])}
        both = [r for r in rows if r.cell.seed in reference]
        if name != against and both:
            gaps = [r.hits.astype(np.float64) - reference[r.cell.seed].hits for r in both]
            interval = crossed_interval(np.stack(gaps))
            distances.append(
                {
                    "dataset": dataset,
                    "shots": shots,
                    "method": name,
                    "readable": rows[0].figures["readable"],
                    "draws": len(both),
                    "difference": round(interval.value, 6),
                    "low": round(interval.low, 6),
                    "high": round(interval.high, 6),
                }
            )
    return {
        **head,
        "methods": [
            {"name": m.name, "about": m.about, "readable": m.readable, "options": dict(m.options)}
            for m in methods.values()
        ],
        "table": table,
        "against": {"method": against, "rows": distances},
        "cells": [_cell(r) for r in tested],
    }


#: Where a spreadsheet may see a formula begin: at the start of a cell, whatever separates cells there.
_FORMULA = re.compile(r"((?:^|[;,\t\r\n])[\s\"']*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20\t\r])")


def to_csv(document: Mapping[str, Any]) -> str:
    """Return a comparison as CSV text, one line for each single result.

    Args:
        document: What `build_comparison` returned.

    Returns:
        CSV text with the columns of `COLUMNS`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in document["cells"]:
        flat = {
            **cell,
            "templates": " | ".join(cell["templates"]),
            "class_names": " | ".join(cell["class_names"] or []),
        }
        writer.writerow(["" if flat[c] is None else no_formula(flat[c]) for c in COLUMNS])
    return buffer.getvalue()


def no_formula(cell: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet takes for a formula.

    A text gets an apostrophe before a sign that begins a formula, at its start or after what may separate cells.

    Args:
        cell: A number, which is returned as it is, or a text.
    """
    if not isinstance(cell, str):
        return cell
    text = _FORMULA.sub(r"\1'", cell)
    return f"'{text}" if text.startswith(("\t", "\r")) else text


def _cell(row: Tested) -> dict[str, Any]:
    figures: Mapping[str, Any] = row.figures
    validation: Mapping[str, Any] = row.validation or {"accuracy": None, "xent": None}
    return {
        "dataset": row.cell.dataset,
        "shots": row.cell.shots,
        "seed": row.cell.seed,
        "method": row_name(row),
        "readable": figures["readable"],
        "support_accuracy": row.support["accuracy"],
        "support_xent": row.support["xent"],
        "validation_accuracy": validation["accuracy"],
        "validation_xent": validation["xent"],
        "test_accuracy": round(float(row.hits.mean()), 6),
        "evaluations": figures["evaluations"],
        "steps": figures["steps"],
        "seconds": figures["seconds"],
        "draw": figures["draw"]["support"],
        "version": figures["version"],
        "templates": figures["templates"],
        "class_names": figures["class_names"],
    }
