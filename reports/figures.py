"""The plots of an HTML report, as plotly figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.reports.optuna_plots import distributions, fronts, parameters
from promptsearch.reports.plot import (
    AFTER,
    BEFORE,
    CLASSES,
    COLOURS,
    LABEL,
    MATRIX,
    TEMPLATES,
    Plot,
    labels,
    styles,
    text,
)
from promptsearch.reports.view import RunView, by_shots
from promptsearch.runs.pipeline import confusion_matrix

if TYPE_CHECKING:
    pass


def overview(views: list[RunView]) -> list[Plot]:
    """Return the plots that show all runs together.

    Args:
        views: The runs of the report.
    """
    plots = []
    if any(v.points for v in views):
        plots.append(_progress(views))
    if len({v.config.search.shots for v in views if v.result}) > 1:
        plots.append(_shots(views))
    if any(v.points for v in views):
        plots += [*fronts(views), *distributions(views), _templates(views)]
    return plots


def of_comparison(document: dict[str, Any]) -> list[Plot]:
    """Plot test accuracy against shots: one plot per data set, one line per method.

    Args:
        document: A document of `build_comparison`.
    """
    import plotly.graph_objects as go

    plots = []
    for i, dataset in enumerate(document["datasets"]):
        figure = go.Figure()
        names = dict.fromkeys(r["method"] for r in document["table"] if r["dataset"] == dataset)
        others = [n for n in names if n != "hand-written"]
        for name in names:
            j = others.index(name) if name in others else 0
            colour = COLOURS[j % (len(COLOURS) - 1)] if name in others else BEFORE  # the last colour is BEFORE's grey
            rows = [r for r in document["table"] if r["dataset"] == dataset and r["method"] == name]
            sd = [100 * (r["sd"] or 0) for r in rows]
            figure.add_trace(
                go.Scatter(
                    x=[r["shots"] for r in rows],
                    y=[100 * r["mean"] for r in rows],
                    error_y={"array": sd, "visible": any(sd), "thickness": 1},
                    text=[f"{r['draws']} draw{'s' * (r['draws'] != 1)}" for r in rows],
                    name=text(name),
                    mode="lines+markers",
                    marker={"symbol": j // (len(COLOURS) - 1)},
                    line={"color": colour, "dash": "solid" if rows[0]["readable"] else "dash"},
                    hovertemplate="%{fullData.name}<br>%{y:.2f} % at %{x} shots, mean of %{text}<extra></extra>",
                )
            )
        shots = document["shots"]
        figure.update_xaxes(title="shots per class", type="log", tickvals=shots, ticktext=[str(s) for s in shots])
        means = [100 * r["mean"] for r in document["table"] if r["dataset"] == dataset]
        # The axis fits the means: the large standard deviation of one method would flatten all other lines.
        figure.update_yaxes(title="test accuracy, %", range=[min(means) - 3, max(means) + 3])
        figure.update_layout(height=480)
        says = "Mean over draws ± one standard deviation. Dashed lines are learnt vectors, which cannot be read."
        plots.append(Plot(f"comparison-{i}", f"{dataset}: accuracy against shots", says, figure))
    return plots


def of_run(view: RunView) -> list[Plot]:
    """Return the plots of one run: training loss, accuracy by class, confusion matrices and slots.

    Args:
        view: The run.
    """
    plots = []
    if view.result is not None and len(view.result.get("losses", ())) > 1:
        plots.append(_losses(view.result["losses"], view.result["steps"]))
    if view.details is not None:
        plots.append(_classes(view.details))
        if len(view.details["classes"]) <= MATRIX:
            plots.append(_confusion(view.details))
    return plots + parameters(view)


def _progress(views: list[RunView]) -> Plot:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    labelled = any(p.labelled for v in views for p in v.points)
    if labelled:  # runs without labels have another scale and are left out
        titles: tuple[str, ...] = ("cross-entropy (lower is better)", "accuracy, %")
    else:
        titles = (text(" / ".join(dict.fromkeys(v.objective for v in views))),)
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles)
    for i, (v, name, style) in enumerate(zip(views, labels(views), styles(views), strict=True)):
        best = v.best_so_far()
        if not best or best[0].labelled != labelled:
            continue
        end = max(p.evaluations for p in v.points)
        x = [p.evaluations for p in best] + [end]
        hover = [f"{text(p.prompt_set, 160)}" for p in best] + [text(best[-1].prompt_set, 160)]
        series = [[p.score.xent for p in best], [100 * p.score.accuracy for p in best]]
        for column, y in enumerate(series if labelled else [[v.value(p) for p in best]], 1):
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=[*y, y[-1]],
                    text=hover,
                    name=name,
                    legendgroup=str(i),
                    showlegend=column == 1,
                    mode="lines+markers",
                    line={"shape": "hv", **style},
                    hovertemplate="%{y:.4g} after %{x:,} sets<br>%{text}<extra></extra>",
                ),
                1,
                column,
            )
    counted = [p.evaluations for v in views for p in v.points]
    first, last = min(counted), max(counted)
    figure.update_xaxes(title="prompt sets scored")
    if last > 30 * first:
        ticks = [m * 10**e for e in range(12) for m in (1, 3) if first <= m * 10**e <= last]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{t:,}" for t in ticks])
    figure.update_layout(legend={"y": 1.14}, height=430)
    return Plot(
        "progress",
        "Best score against evaluations",
        "The score of the best set so far on the few-shot pictures, by the run's own objective, against the number "
        "of sets scored.",
        figure,
    )


def _shots(views: list[RunView]) -> Plot:
    import plotly.graph_objects as go

    figure = go.Figure()
    searchers = list(dict.fromkeys(v.searcher for v in views))
    for name, rows in by_shots(views).items():
        colour = BEFORE if name == "hand-written" else COLOURS[searchers.index(name) % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=[r[0] for r in rows],
                y=[100 * r[1] for r in rows],
                error_y={"array": [100 * r[2] for r in rows], "visible": any(r[2] for r in rows)},
                text=[f"{r[3]} run{'s' * (r[3] != 1)}" for r in rows],
                name=text(name),
                mode="lines+markers",
                line={"color": colour, "dash": "dot" if name == "hand-written" else "solid"},
                hovertemplate="%{y:.2f} % at %{x} shots, %{text}<extra></extra>",
            )
        )
    shots = sorted({v.config.search.shots for v in views})
    figure.update_xaxes(title="shots per class", type="log", tickvals=shots, ticktext=[str(s) for s in shots])
    figure.update_yaxes(title="test accuracy, %")
    says = "Accuracy of each run's winner on the whole test split; mean ± standard deviation over seeds."
    return Plot("shots", "Accuracy against shots", says, figure)


def _losses(losses: list[float], steps: int) -> Plot:
    import plotly.graph_objects as go

    x = np.linspace(steps / len(losses), steps, len(losses)).round()
    line = {"color": COLOURS[0]}
    figure = go.Figure(go.Scatter(x=x, y=losses, line=line, hovertemplate="%{y:.4g} after %{x:,} steps<extra></extra>"))
    figure.update_xaxes(title="training steps")
    figure.update_yaxes(title="loss")
    figure.update_layout(height=320, margin={"t": 16})
    return Plot("losses", "Training", "The training loss on the few-shot pictures.", figure)


def _templates(views: list[RunView]) -> Plot:
    import plotly.graph_objects as go

    counts: Counter[str] = Counter()
    for v in views:
        counts.update(v.chosen())
    winners = {t for v in views if v.readable for t in v.winner()["templates"]}
    top = sorted(counts.items(), key=lambda r: (r[1], r[0]))[-TEMPLATES:]
    names = [text(t, LABEL) for t, _ in top]
    figure = go.Figure(
        go.Bar(
            x=[n for _, n in top],
            y=list(range(len(top))),
            orientation="h",
            marker={"color": [COLOURS[0] if t in winners else COLOURS[4] for t, _ in top]},
            text=["in a winner" if t in winners else "" for t, _ in top],
            customdata=[text(t) for t, _ in top],
            hovertemplate="%{customdata}: %{x} times<extra></extra>",
        )
    )
    figure.update_yaxes(tickvals=list(range(len(top))), ticktext=names, ticklabelstandoff=6)
    figure.update_xaxes(title="times chosen", rangemode="tozero", tickformat="d", dtick=1 if top[-1][1] < 10 else None)
    figure.update_layout(height=max(200, 26 * len(top) + 70), showlegend=False, margin={"t": 16})
    says = "How many of each run's best recorded sets (the best tenth, between 5 and 50) use each template."
    return Plot("templates", "Templates chosen", says, figure)


def _classes(details: dict[str, Any]) -> Plot:
    import plotly.graph_objects as go

    before, after = (recalls(details, w) for w in ("before", "after"))
    change = after - before
    order = np.argsort(-np.abs(change), kind="stable")[:CLASSES]
    order = order[np.argsort(change[order], kind="stable")]
    names = [text(details["classes"][c], 32) for c in order]
    lines: dict[str, list[Any]] = {"x": [], "y": []}
    for row, c in enumerate(order):
        lines["x"] += [before[c], after[c], None]
        lines["y"] += [row, row, None]
    figure = go.Figure(go.Scatter(**lines, mode="lines", line={"color": COLOURS[4], "width": 3}, hoverinfo="skip"))
    figure.data[0].showlegend = False
    for values, name, colour in ((before, details["baseline"], BEFORE), (after, "winner", AFTER)):
        figure.add_trace(
            go.Scatter(
                x=values[order],
                y=list(range(len(order))),
                name=text(name),
                mode="markers",
                marker={"color": colour, "size": 11},
                customdata=[f"{text(details['classes'][c])}: {change[c]:+.1f} points" for c in order],
                hovertemplate="%{x:.1f} %<br>%{customdata}<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=names, ticklabelstandoff=6)
    figure.update_xaxes(title="right, %")
    figure.update_layout(height=max(240, 26 * len(order) + 110))
    every = len(order) == len(details["classes"])
    which = "all classes" if every else f"the {len(order)} of {len(details['classes'])} classes that change most"
    says = f"Accuracy on each class's test pictures: {which}, sorted by the change that the winner makes."
    return Plot("classes", "Accuracy by class, before and after", says, figure)


def recalls(details: dict[str, Any], which: str) -> np.ndarray:
    """Compute the recall of each class.

    Args:
        details: What `build_details` returned.
        which: "before" for the baseline or "after" for the winner.

    Returns:
        (C,) percentage of each class's pictures that are classified correctly; nan for a class without pictures.
    """
    matrix = confusion_matrix(details, which)
    totals = matrix.sum(axis=1).astype(float)
    totals[totals == 0] = np.nan
    recall: np.ndarray = 100 * np.diag(matrix) / totals
    return recall


def _confusion(details: dict[str, Any]) -> Plot:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = [text(c, 24) for c in details["classes"]]
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=(text(details["baseline"]), "winner"), horizontal_spacing=0.05
    )
    for column, which in enumerate(("before", "after"), 1):
        counts = confusion_matrix(details, which)
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        figure.add_trace(
            go.Heatmap(
                z=shares,
                x=list(range(len(names))),
                y=list(range(len(names))),
                customdata=np.dstack(
                    [np.tile(np.array(names), (len(names), 1)), np.tile(np.array(names)[:, None], (1, len(names)))]
                ),
                text=counts,
                texttemplate="%{z:.0f}" if len(names) <= 15 else None,
                zmin=0,
                zmax=100,
                colorscale="Blues",
                showscale=column == 2,
                colorbar={"title": "%", "thickness": 12},
                hovertemplate="%{text} pictures (%{z:.1f} %)<br>of “%{customdata[1]}” predicted as “%{customdata[0]}”"
                "<extra></extra>",
            ),
            1,
            column,
        )
    ticks = list(range(len(names)))
    figure.update_xaxes(tickvals=ticks, ticktext=names, tickangle=-45, title={"text": "predicted", "standoff": 8})
    figure.update_yaxes(tickvals=ticks, ticktext=names, autorange="reversed")
    figure.update_yaxes(title={"text": "true", "standoff": 4}, col=1)
    figure.update_yaxes(showticklabels=False, col=2)  # the labels are those of the first matrix
    figure.update_layout(height=max(430, min(900, 16 * len(names) + 220)))
    says = "The percentage of each class's test pictures (row) that is predicted as each class (column)."
    return Plot("confusion", "Confusion matrix, before and after", says, figure)
