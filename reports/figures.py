"""The plots of a report, as plotly figures; Optuna's own where it has one."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.reports.details import confusion_matrix
from promptsearch.reports.view import RunView, by_shots

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


def overview(views: list[RunView]) -> list[Plot]:
    """The plots that show all runs together."""
    plots = []
    if any(v.points for v in views):
        plots.append(_progress(views))
    if len({v.config.get("shots") for v in views if v.result}) > 1:
        plots.append(_shots(views))
    if any(v.points for v in views):
        plots += [*_front(views), *_edf(views), _templates(views)]
    return plots


def of_run(view: RunView) -> list[Plot]:
    """The plots of one run: classes and confusions before and after, and Optuna's view of its slots."""
    plots = []
    if view.details is not None:
        plots.append(_classes(view.details))
        if len(view.details["classes"]) <= MATRIX:
            plots.append(_confusion(view.details))
    return plots + _parameters(view)


def _progress(views: list[RunView]) -> Plot:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=("cross-entropy (lower is better)", "accuracy, %"))
    for i, (v, name) in enumerate(zip(views, labels(views), strict=True)):
        best = v.best_so_far()
        if not best:
            continue
        end = max(p.evaluations for p in v.points)
        x = [p.evaluations for p in best] + [end]
        hover = [f"{text(p.prompt_set, 160)}" for p in best] + [text(best[-1].prompt_set, 160)]
        series = ([p.score.xent for p in best], [100 * p.score.accuracy for p in best])
        for column, y in enumerate(series, 1):
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=[*y, y[-1]],
                    text=hover,
                    name=name,
                    legendgroup=str(i),
                    showlegend=column == 1,
                    mode="lines+markers",
                    line={"shape": "hv", "color": COLOURS[i % len(COLOURS)]},
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
        "How good the best set so far is on the few-shot pictures, by the run's own objective, after so many sets "
        "were scored.",
        figure,
    )


def _shots(views: list[RunView]) -> Plot:
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (name, rows) in enumerate(by_shots(views).items()):
        figure.add_trace(
            go.Scatter(
                x=[r[0] for r in rows],
                y=[100 * r[1] for r in rows],
                error_y={"array": [100 * r[2] for r in rows], "visible": any(r[2] for r in rows)},
                text=[f"{r[3]} run{'s' * (r[3] != 1)}" for r in rows],
                name=text(name),
                mode="lines+markers",
                line={"color": COLOURS[i % len(COLOURS)], "dash": "dot" if name == "hand-written" else "solid"},
                hovertemplate="%{y:.2f} % at %{x} shots, %{text}<extra></extra>",
            )
        )
    shots = sorted({int(v.config["shots"]) for v in views})
    figure.update_xaxes(title="shots per class", type="log", tickvals=shots, ticktext=[str(s) for s in shots])
    figure.update_yaxes(title="test accuracy, %")
    says = "Accuracy on the whole test split of each run's winner; where there are several seeds, mean and sd."
    return Plot("shots", "Accuracy against shots", says, figure)


def _front(views: list[RunView]) -> list[Plot]:
    """Optuna's own Pareto fronts, of a study made for them."""
    import optuna
    from optuna.study import StudyDirection

    points = [p for v in views for p in v.points][:SCATTERED]
    rows = [("length", "words of the prompts", "MINIMIZE", [float(p.words) for p in points])]
    fluency = [getattr(p.score, "fluency", None) for p in points]
    if any(f is not None for f in fluency):
        known = [i for i, f in enumerate(fluency) if f is not None]
        points = [points[i] for i in known]
        rows[0] = ("length", "words of the prompts", "MINIMIZE", [float(p.words) for p in points])
        values = [float(f) for f in fluency if f is not None]
        rows.append(("fluency", "fluency (mean log-likelihood per token, nats)", "MAXIMIZE", values))
    plots = []
    for key, title, direction, values in rows:
        study = optuna.create_study(directions=[StudyDirection[direction], StudyDirection.MAXIMIZE])
        pairs = zip(points, values, strict=True)
        study.add_trials([optuna.trial.create_trial(values=[x, 100 * p.score.accuracy]) for p, x in pairs])
        figure = optuna.visualization.plot_pareto_front(study, target_names=[title, "few-shot accuracy, %"])
        _name_points(figure, [text(p.prompt_set, 160) for p in points])
        figure.update_layout(title=None)
        plots.append(
            Plot(
                f"front-{key}",
                f"Accuracy and {key}",
                f"Every recorded set by few-shot accuracy and {key}; those that no other beats in both are marked.",
                figure,
            )
        )
    return plots


def _name_points(figure: go.Figure, names: list[str]) -> None:
    """Hover with the prompts, instead of Optuna's dump of the trial, and this report's colours."""
    for trace in figure.data:
        front = trace is figure.data[-1]
        numbers = (re.search(r'"number": (\d+)', str(dump)) for dump in trace.text or ())
        trace.text = [names[int(n[1])] if n else "" for n in numbers]
        trace.hovertemplate = "%{y:.1f} %, %{x:.4g}<br>%{text}<extra></extra>"
        trace.name = "on the front" if front else "other sets"
        trace.marker = {"color": COLOURS[5] if front else COLOURS[4], "size": 9 if front else 6}
        trace.showlegend = True


def _edf(views: list[RunView]) -> list[Plot]:
    """Optuna's empirical distribution, where there are several runs to compare."""
    import optuna

    with_points = [(v, name) for v, name in zip(views, labels(views), strict=True) if len(v.points) > 1]
    if len(with_points) < 2:
        return []
    studies = []
    for v, name in with_points:
        study = optuna.create_study(study_name=name, direction="maximize")
        study.add_trials([optuna.trial.create_trial(value=100 * p.score.accuracy) for p in v.points])
        studies.append(study)
    figure = optuna.visualization.plot_edf(studies, target_name="few-shot accuracy, %")
    figure.update_layout(title=None)
    figure.update_yaxes(title="share of the sets")
    for i, trace in enumerate(figure.data):
        trace.line.color = COLOURS[i % len(COLOURS)]
    says = "The share of each run's recorded sets that get at most so much right: further right is better."
    return [Plot("distribution", "How good the recorded sets are", says, figure)]


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
    figure.update_yaxes(tickvals=list(range(len(top))), ticktext=names, ticksuffix="  ")
    figure.update_xaxes(title="times chosen", rangemode="tozero")
    figure.update_layout(height=max(220, 26 * len(top) + 90), showlegend=False)
    says = "How many of the best recorded sets of each run (its best tenth, 5 to 50) use a template."
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
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=names, ticksuffix="  ")
    figure.update_xaxes(title="test pictures of the class that are right, %")
    figure.update_layout(height=max(240, 26 * len(order) + 110))
    every = len(order) == len(details["classes"])
    says = "All classes, " if every else f"The {len(order)} of {len(details['classes'])} classes that change most, "
    return Plot("classes", "Accuracy by class, before and after", f"{says}by how much the winner changes them.", figure)


def recalls(details: dict[str, Any], which: str) -> np.ndarray:
    """(C,) percent of each class's pictures that are right; nan for a class without pictures."""
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
        rows=1, cols=2, subplot_titles=(text(details["baseline"]), "winner"), horizontal_spacing=0.14
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
                hovertemplate="%{text} pictures (%{z:.1f} %)<br>of “%{customdata[1]}” taken for “%{customdata[0]}”"
                "<extra></extra>",
            ),
            1,
            column,
        )
    ticks = list(range(len(names)))
    figure.update_xaxes(tickvals=ticks, ticktext=names, tickangle=-45, title={"text": "taken for", "standoff": 8})
    figure.update_yaxes(tickvals=ticks, ticktext=names, autorange="reversed")
    figure.update_yaxes(title={"text": "is", "standoff": 4}, col=1)
    figure.update_layout(height=max(430, min(900, 16 * len(names) + 220)))
    says = "Of the test pictures of each class (row), the percentage that is taken for each class (column)."
    return Plot("confusion", "Confusion matrix, before and after", says, figure)


def _parameters(view: RunView) -> list[Plot]:
    """Optuna's importances and slices of a run by trials over slots."""
    import optuna

    completed = [t for t in view.record.study.get_trials(deepcopy=False) if t.params and t.value is not None]
    if len(completed) < 10 or len({t.value for t in completed}) < 2:
        return []
    target = "cross-entropy" if view.record.study.direction == optuna.study.StudyDirection.MINIMIZE else "accuracy"
    study = optuna.create_study(direction="minimize" if target == "cross-entropy" else "maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=t.value,
                params={text(k): text(v, 40) if isinstance(v, str) else v for k, v in t.params.items()},
                distributions={text(k): _escaped(d) for k, d in t.distributions.items()},
            )
            for t in completed
        ]
    )
    shared = set.intersection(*(set(t.params) for t in study.get_trials(deepcopy=False)))
    names = [k for k in sorted(shared) if len({t.params[k] for t in study.get_trials(deepcopy=False)}) > 1]
    if not names:
        return []
    plots = []
    if len(names) > 1:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        figure = optuna.visualization.plot_param_importances(
            study, evaluator=evaluator, params=names, target_name=target
        )
        figure.update_layout(title=None)
        figure.update_xaxes(title="importance")
        figure.update_yaxes(title="slot")
        figure.update_traces(marker={"color": COLOURS[0]})
        says = "Optuna's estimate (PED-ANOVA) of how much each slot matters for being among the best."
        plots.append(Plot("importance", "Which slots matter", says, figure))
    figure = optuna.visualization.plot_slice(study, params=names[:6], target_name=target)
    figure.update_layout(title=None)
    figure.update_traces(marker={"showscale": False, "colorscale": "Blues"})
    says = f"Every trial's {target} by what stands in a slot; darker came later."
    plots.append(Plot("slices", "What stands in the slots", says, figure))
    return plots


def _escaped(distribution: Any) -> Any:
    import optuna

    if not isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution
    choices = [text(c, 40) if isinstance(c, str) else c for c in distribution.choices]
    return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(choices)))
