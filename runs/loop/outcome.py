"""The result of a search, which a notebook shows as a table and a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptsearch.banks import PromptSet, printable
from promptsearch.evaluators import Score

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Largest number of rows in the table.
SHOWN = 10


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of a search.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome)  # a table of the best sets, which a notebook shows for `outcome`
        outcome.plot()  # the best score against the number of sets scored

    Attributes:
        winner: The best set and its score.
        ranked: The recorded sets and their scores, best first.
        evaluations: Number of sets scored.
        ended: Why the search ended: "exhausted", "trials", "timeout" or "interrupted".
        curve: (number of sets scored, best score so far), one for each round, or for each trial that was better.
    """

    winner: tuple[PromptSet, Score]
    ranked: list[tuple[PromptSet, Score]]
    evaluations: int
    ended: str = "exhausted"
    curve: Sequence[tuple[int, Score]] = ()

    def plot(self) -> go.Figure:
        """Plot few-shot accuracy and cross-entropy of the best set so far against the number of sets scored.

        Returns:
            A plotly figure.
        """
        import plotly.graph_objects as go

        points = [*self.curve, (self.evaluations, self.winner[1])]
        x = [n for n, _ in points]
        figure = go.Figure(layout={"xaxis_title": "prompt sets scored", "hovermode": "x unified"})
        accuracy = [100 * s.accuracy for _, s in points]
        figure.add_scatter(x=x, y=[s.xent for _, s in points], name="cross-entropy", line_shape="hv")
        figure.add_scatter(x=x, y=accuracy, name="accuracy (%)", line_shape="hv", yaxis="y2")
        return figure.update_layout(
            yaxis={"title": "few-shot cross-entropy"},
            yaxis2={"title": "few-shot accuracy (%)", "overlaying": "y", "side": "right"},
        )

    def __repr__(self) -> str:
        """Return a table of the best sets, with one template per line."""
        lines = [f"{self.evaluations:,} prompt sets scored", "", "    accuracy  cross-entropy  prompts"]
        for i, (s, score) in enumerate(self.ranked[:SHOWN], start=1):
            first, *others = (printable(t) for t in s.templates)
            lines.append(f"{i:2d}  {100 * score.accuracy:6.1f} %  {score.xent:13.4f}  {first}")
            lines += [f"{'':29}{t}" for t in others]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table of the best sets as HTML, with escaped templates."""
        rows = "".join(
            f"<tr><td>{i}</td><td style='text-align:left'>{'<br>'.join(html.escape(t) for t in s.templates)}</td>"
            f"<td>{100 * score.accuracy:.1f}</td><td>{score.xent:.4f}</td></tr>"
            for i, (s, score) in enumerate(self.ranked[:SHOWN], start=1)
        )
        return (
            f"<table><caption>{self.evaluations} prompt sets scored</caption><thead><tr><th></th><th>prompts</th>"
            f"<th>few-shot accuracy (%)</th><th>cross-entropy</th></tr></thead><tbody>{rows}</tbody></table>"
        )
