"""The JSON document of a comparison: every result, the means over draws, and the differences from one method."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.banks.template import printable
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.intervals import crossed_interval, pooled_interval
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
    "estimate",
    "test_mean_per_class",
    "test_worst_class",
    "test_top5",
    "test_ece",
    "evaluations",
    "steps",
    "start",
    "seconds",
    "draw",
    "version",
    "templates",
    "class_names",
)

#: Name of the method that a training must beat on its few shots; otherwise it counts as collapsed.
HAND_WRITTEN = "hand-written"

#: The rows of all draws, by (data set, shots, name of the row).
Key = tuple[str, int, str]
Groups = dict[Key, list[Tested]]


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
        A JSON-serialisable document with `table` (accuracy over draws), `against` (differences with 95 % intervals),
        `overall` (both, averaged over the data sets first) and `cells` (every single result). Accuracies are fractions,
        times are in seconds.
    """
    groups: Groups = {}
    for row in tested:
        groups.setdefault((row.dataset, row.cell.shots, row_name(row)), []).append(row)
    return {
        **head,
        "methods": [
            {"name": m.name, "about": m.about, "readable": m.readable, "options": dict(m.options)}
            for m in methods.values()
        ],
        "table": [_summary(key, rows, groups) for key, rows in groups.items()],
        "against": {"method": against, "rows": [d for key in groups if (d := _distance(key, groups, against))]},
        "overall": _overall(groups, against),
        "cells": [_cell(r) for r in tested],
    }


def _summary(key: Key, rows: Sequence[Tested], groups: Groups) -> dict[str, Any]:
    """Summarise the draws of one method on one data set with one number of shots."""
    dataset, shots, name = key
    accuracy = np.array([r.hits.mean() for r in rows])
    interval = crossed_interval(np.stack([r.hits.astype(np.float64) for r in rows])).within(0.0, 1.0)
    seconds = [r.figures["seconds"] for r in rows if r.figures["seconds"] is not None]
    gaps = [e - a for r, a in zip(rows, accuracy, strict=True) if (e := r.figures.get("estimate")) is not None]
    own = not rows[0].name
    return {
        "dataset": dataset,
        "shots": shots,
        "method": name,
        "readable": rows[0].figures["readable"],
        "draws": len(rows),
        "mean": round(float(accuracy.mean()), 6),
        "sd": round(float(accuracy.std(ddof=1)), 6) if len(rows) > 1 else None,
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
        "mean_per_class": _mean([r.report.mean_per_class for r in rows]),
        "worst_class": _mean([r.report.worst_class for r in rows]),
        "top5": _mean([r.report.top5 for r in rows]),
        "ece": _mean([r.report.ece for r in rows]),
        "median": round(float(np.median(accuracy)), 6),
        "collapsed": _collapsed(rows, groups.get((dataset, shots, HAND_WRITTEN), [])) if own else None,
        "estimate_gap": round(float(np.mean(gaps)), 6) if own and gaps else None,
        "evaluations": round(float(np.mean([r.figures["evaluations"] for r in rows])), 1) if own else None,
        "steps": round(float(np.mean([r.figures["steps"] for r in rows])), 1) if own else None,
        "seconds": round(float(np.mean(seconds)), 3) if own and seconds else None,
    }


def _collapsed(rows: Sequence[Tested], hand_written: Sequence[Tested]) -> int | None:
    """Return the number of draws in which a training's few-shot accuracy is below that of the hand-written prompt.

    It is None if the method is no training, or the hand-written prompt is not in the comparison.
    """
    floor = {r.cell.seed: r.support["accuracy"] for r in hand_written}
    if not any(r.figures["steps"] for r in rows) or not all(r.cell.seed in floor for r in rows):
        return None
    return sum(r.support["accuracy"] < floor[r.cell.seed] for r in rows)


def _distance(key: Key, groups: Groups, against: str) -> dict[str, Any] | None:
    """Return the difference from the reference method on their common draws and pictures, or None without any."""
    dataset, shots, name = key
    reference = {r.cell.seed: r for r in groups.get((dataset, shots, against), [])}
    both = [r for r in groups[key] if r.cell.seed in reference]
    if name == against or not both:
        return None
    gaps = [r.hits.astype(np.float64) - reference[r.cell.seed].hits for r in both]
    return {
        "dataset": dataset,
        "shots": shots,
        "method": name,
        "readable": both[0].figures["readable"],
        "draws": len(both),
        **crossed_interval(np.stack(gaps)).within(-1.0, 1.0).to_dict("difference"),
    }


def _overall(groups: Groups, against: str) -> list[dict[str, Any]]:
    """Return the means over data sets, averaged for each draw first.

    Methods that lack a data set or a draw are left out. With a single data set, there are no means.
    """
    own = {key: rows for key, rows in groups.items() if rows[0].dataset == rows[0].cell.dataset}
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in own))
    if len(datasets) < 2:
        return []
    found = []
    for shots, name in dict.fromkeys((shots, name) for _, shots, name in own):
        parts = _parts([own.get((d, shots, name), []) for d in datasets])
        if parts is None:
            continue
        rows = own[datasets[0], shots, name]
        by_draw = np.sum([w * v.mean(axis=1) for w, v in parts], axis=0)  # (S,)
        row = {
            "shots": shots,
            "method": name,
            "readable": rows[0].figures["readable"],
            "datasets": len(datasets),
            "draws": len(by_draw),
            **pooled_interval(parts).within(0.0, 1.0).to_dict("mean"),
            "by_draw": [round(float(a), 6) for a in by_draw],
        }
        seeds = {r.cell.seed for r in rows}
        theirs = _parts([[r for r in own.get((d, shots, against), []) if r.cell.seed in seeds] for d in datasets])
        if theirs is not None and name != against and len(theirs[0][1]) == len(by_draw):
            gaps = [(w, ours - other) for (w, ours), (_, other) in zip(parts, theirs, strict=True)]
            row["against"] = pooled_interval(gaps).within(-1.0, 1.0).to_dict("difference")
        found.append(row)
    return found


def _parts(by_dataset: Sequence[Sequence[Tested]]) -> list[tuple[float, np.ndarray]] | None:
    """Return the weights and hits (S, P) of every set of test pictures, or None if draws are missing.

    Conditions of one data set (such as cifar10-dark) share their pictures, so their hits are not independent and are
    averaged.
    """
    seeds = {tuple(r.cell.seed for r in rows) for rows in by_dataset}
    if len(seeds) != 1 or () in seeds:
        return None
    pictures: dict[tuple[str, int], list[np.ndarray]] = {}
    for rows in by_dataset:
        hits = np.stack([r.hits.astype(np.float64) for r in rows])  # (S, P)
        pictures.setdefault((split_condition(rows[0].dataset)[0], hits.shape[1]), []).append(hits)
    return [(len(same) / len(by_dataset), np.mean(same, axis=0)) for same in pictures.values()]


#: Matches the places where a spreadsheet may see the beginning of a formula: at the start of a cell, whatever
#: separates cells.
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
        # a name may be a path with any characters
        shown = {c: printable(v) if isinstance(v, str) else v for c, v in flat.items()}
        writer.writerow(["" if shown[c] is None else no_formula(shown[c]) for c in COLUMNS])
    return buffer.getvalue()


def no_formula(cell: Any) -> Any:
    """Return a cell of a CSV file in a form that no spreadsheet interprets as a formula.

    In a text, an apostrophe is put before each sign that could begin a formula: at its start, or after a separator.

    Args:
        cell: A text, or a number, which is returned unchanged.
    """
    if not isinstance(cell, str):
        return cell
    text = _FORMULA.sub(r"\1'", cell)
    return f"'{text}" if text.startswith(("\t", "\r")) else text


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values, or None if one is missing."""
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 6) if len(known) == len(values) else None


def _cell(row: Tested) -> dict[str, Any]:
    figures: Mapping[str, Any] = row.figures
    validation: Mapping[str, Any] = row.validation or {"accuracy": None, "xent": None}
    return {
        "dataset": row.dataset,
        "shots": row.cell.shots,
        "seed": row.cell.seed,
        "method": row_name(row),
        "readable": figures["readable"],
        "support_accuracy": row.support["accuracy"],
        "support_xent": row.support["xent"],
        "validation_accuracy": validation["accuracy"],
        "validation_xent": validation["xent"],
        "test_accuracy": round(float(row.hits.mean()), 6),
        "estimate": figures.get("estimate") if not row.name else None,
        "test_mean_per_class": round(row.report.mean_per_class, 6),
        "test_worst_class": round(row.report.worst_class, 6),
        "test_top5": None if row.report.top5 is None else round(row.report.top5, 6),
        "test_ece": None if row.report.ece is None else round(row.report.ece, 6),
        "test_metrics": row.report.to_dict(),
        "evaluations": figures["evaluations"],
        "steps": figures["steps"],
        "start": figures.get("start"),
        "seconds": figures["seconds"],
        "draw": figures["draw"]["support"],
        "version": figures["version"],
        "templates": figures["templates"],
        "class_names": figures["class_names"],
    }
