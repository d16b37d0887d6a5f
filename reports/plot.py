"""What the plots of a report have in common: their form, colours and labels."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.reports.view import RunView

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Okabe and Ito's colours: told apart by the colour-blind, and on light and dark ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A")
BEFORE, AFTER = COLOURS[6], COLOURS[0]
#: Lines of several runs of one searcher, which have its colour.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: Classes shown one by one, and in a confusion matrix; of more, those that change most.
CLASSES, MATRIX = 30, 120
#: Templates whose counts are shown, and characters of a template in a label.
TEMPLATES, LABEL = 20, 60
#: Trials drawn in a scatter plot.
SCATTERED = 5000


@dataclass(frozen=True)
class Plot:
    """A figure with the heading and the sentence that belong to it; `key` names its file."""

    key: str
    title: str
    says: str
    figure: go.Figure


def text(value: object, limit: int | None = None) -> str:
    """Any text for a plot: plotly reads tags in labels, so what comes from a run is escaped."""
    shown = str(value)
    if limit is not None and len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return html.escape(plain, quote=False)  # plotly knows no &quot;


def styles(views: list[RunView]) -> list[dict[str, str]]:
    """The line of each run, the same in all plots: a colour for its searcher, a dash for which of its runs it is."""
    searchers = list(dict.fromkeys(v.searcher for v in views))
    seen: Counter[str] = Counter()
    lines = []
    for v in views:
        colour, dash = searchers.index(v.searcher) % len(COLOURS), seen[v.searcher] % len(DASHES)
        lines.append({"color": COLOURS[colour], "dash": DASHES[dash]})
        seen[v.searcher] += 1
    return lines


def labels(views: list[RunView]) -> list[str]:
    """A short name for each run: its searcher, and what else tells it from the others."""
    plain = [v.searcher for v in views]
    if len(set(plain)) == len(plain):
        return [text(p) for p in plain]
    full = [f"{v.searcher}, {v.config.get('shots')} shots, seed {v.config.get('seed')}" for v in views]
    return [text(f if full.count(f) == 1 else v.name, 48) for f, v in zip(full, views, strict=True)]
