"""What the plots of a report share: the `Plot` type, colours, line styles and labels."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.reports.view import RunView

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Okabe and Ito's colours, which colour-blind readers can tell apart, on light and dark backgrounds.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A")
BEFORE, AFTER = COLOURS[6], COLOURS[0]
#: Line styles that tell apart several runs of one searcher, which share a colour.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: Largest number of classes in the plot of accuracies by class (those that change most), and in a confusion matrix.
CLASSES, MATRIX = 30, 120
#: Largest number of templates whose counts are shown, and of characters of a template in a label.
TEMPLATES, LABEL = 20, 60
#: Largest number of trials in a scatter plot.
SCATTERED = 5000


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and explanation.

    Attributes:
        key: Short name, used for the figure's file.
        title: Heading.
        says: One sentence that explains the figure.
        figure: The plotly figure.
    """

    key: str
    title: str
    says: str
    figure: go.Figure


def text(value: object, limit: int | None = None) -> str:
    """Escape text for a plot, because plotly interprets HTML tags in labels.

    Args:
        value: What to show; converted with `str`.
        limit: Largest number of characters; longer text ends in "…".

    Returns:
        The escaped text, with unprintable characters replaced.
    """
    shown = str(value)
    if limit is not None and len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return html.escape(plain, quote=False)  # plotly does not understand &quot;


def styles(views: list[RunView]) -> list[dict[str, str]]:
    """Return each run's line style: the colour of its searcher, and a dash pattern that tells its runs apart."""
    searchers = list(dict.fromkeys(v.searcher for v in views))
    seen: Counter[str] = Counter()
    lines = []
    for v in views:
        colour, dash = searchers.index(v.searcher) % len(COLOURS), seen[v.searcher] % len(DASHES)
        lines.append({"color": COLOURS[colour], "dash": DASHES[dash]})
        seen[v.searcher] += 1
    return lines


def labels(views: list[RunView]) -> list[str]:
    """Return a short label for each run: its searcher, with shots, seed or run name if that is ambiguous."""
    plain = [v.searcher for v in views]
    if len(set(plain)) == len(plain):
        return [text(p) for p in plain]
    full = [f"{v.searcher}, {v.config.search.shots} shots, seed {v.config.search.seed}" for v in views]
    return [text(f if full.count(f) == 1 else v.name, 48) for f, v in zip(full, views, strict=True)]
