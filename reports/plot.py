"""What the plots of a report have in common: their form, colours and labels."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.reports.view import RunView

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Okabe and Ito's colours: told apart by the colour-blind, and on light and dark ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A")
BEFORE, AFTER = COLOURS[6], COLOURS[0]
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


def labels(views: list[RunView]) -> list[str]:
    """A short name for each run: its searcher, and what else tells it from the others."""
    plain = [v.searcher for v in views]
    if len(set(plain)) == len(plain):
        return [text(p) for p in plain]
    full = [f"{v.searcher}, {v.config.get('shots')} shots, seed {v.config.get('seed')}" for v in views]
    return [text(f if full.count(f) == 1 else v.name, 48) for f, v in zip(full, views, strict=True)]
