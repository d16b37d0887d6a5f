"""Plots drawn by Optuna: Pareto fronts, distributions, parameter importances and slices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from promptsearch.reports.plot import COLOURS, SCATTERED, Plot, labels, styles, text
from promptsearch.reports.view import RunView
from promptsearch.runs import MemoryRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go


#: Largest number of characters of a slot's word below an axis.
WORD = 24


def fronts(views: list[RunView]) -> list[Plot]:
    """Plot the Pareto fronts of few-shot accuracy against prompt length and against fluency.

    Args:
        views: The runs of the report.

    Returns:
        Up to two plots; none if no run was scored with labels.
    """
    import optuna
    from optuna.study import StudyDirection

    points = [p for v in views for p in v.points if p.labelled][:SCATTERED]
    if not points:
        return []
    rows = [("length", "words of the prompts", "MINIMIZE", [float(p.words) for p in points])]
    fluency = [getattr(p.score, "fluency", None) for p in points]
    if any(f is not None for f in fluency):
        known = [i for i, f in enumerate(fluency) if f is not None]
        points = [points[i] for i in known]
        rows[0] = ("length", "words of the prompts", "MINIMIZE", [float(p.words) for p in points])
        values = [float(f) for f in fluency if f is not None]
        rows.append(("fluency", "fluency, nats per token", "MAXIMIZE", values))
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
                f"Few-shot accuracy and {key} of every recorded set; the Pareto front (no other set is better in both) "
                "is marked.",
                figure,
            )
        )
    return plots


def _name_points(figure: go.Figure, names: list[str]) -> None:
    """Show prompts on hover, in place of Optuna's trial data, and use the report's colours."""
    for trace in figure.data:
        front = trace is figure.data[-1]
        numbers = (re.search(r'"number": (\d+)', str(dump)) for dump in trace.text or ())
        trace.text = [names[int(n[1])] if n else "" for n in numbers]
        trace.hovertemplate = "%{y:.1f} %, %{x:.4g}<br>%{text}<extra></extra>"
        trace.name = "on the front" if front else "other sets"
        trace.marker = {"color": COLOURS[5] if front else COLOURS[4], "size": 9 if front else 6}
        trace.showlegend = True


def distributions(views: list[RunView]) -> list[Plot]:
    """Plot the empirical distribution of few-shot accuracy of each run.

    Args:
        views: The runs of the report.

    Returns:
        One plot, or none if fewer than two runs have labelled scores.
    """
    import optuna

    named = zip(views, labels(views), styles(views), strict=True)
    with_points = [(v, name, style) for v, name, style in named if sum(p.labelled for p in v.points) > 1]
    if len(with_points) < 2:
        return []
    studies = []
    for v, name, _ in with_points:
        study = optuna.create_study(study_name=name, direction="maximize")
        study.add_trials([optuna.trial.create_trial(value=100 * p.score.accuracy) for p in v.points if p.labelled])
        studies.append(study)
    figure = optuna.visualization.plot_edf(studies, target_name="few-shot accuracy, %")
    figure.update_layout(title=None)
    figure.update_yaxes(title="share of the sets")
    for trace, (_, _, style) in zip(figure.data, with_points, strict=True):
        trace.line = style
    says = "The share of each run's recorded sets with at most this accuracy: further right is better."
    return [Plot("distribution", "How good the recorded sets are", says, figure)]


def parameters(view: RunView) -> list[Plot]:
    """Plot the importance of each slot of a grammar, and the score by the word in each slot.

    Args:
        view: A run whose trials choose words for slots.

    Returns:
        Up to two plots; none if the run has fewer than ten trials with slots.
    """
    import optuna

    if isinstance(view.record, MemoryRecord):  # a run in memory has no Optuna study
        return []
    completed = [t for t in view.record.study.get_trials(deepcopy=False) if t.params and t.values]
    if len(completed) < 10 or len({t.values[0] for t in completed}) < 2:
        return []
    direction = view.record.study.directions[0]  # if a study has several directions, the first is the objective's
    target = view.objective
    study = optuna.create_study(direction=direction)
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=t.values[0],
                params={text(k): text(v, WORD) if isinstance(v, str) else v for k, v in t.params.items()},
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
        figure.update_layout(title=None, margin={"t": 16}, height=max(200, 44 * len(names) + 90))
        figure.update_xaxes(title="importance")
        figure.update_yaxes(title=None, ticklabelstandoff=6)
        figure.update_traces(marker={"color": COLOURS[0]})
        says = "Optuna's estimate (PED-ANOVA) of how much each slot decides whether a trial is among the best."
        plots.append(Plot("importance", "Which slots matter", says, figure))
    figure = optuna.visualization.plot_slice(study, params=names[:6], target_name=target)
    figure.update_layout(title=None, margin={"t": 16})
    figure.update_traces(marker={"showscale": False, "colorscale": [[0, COLOURS[4]], [1, COLOURS[5]]]})
    _unquote(figure)
    says = f"The {target} of every trial by the word in each slot; blue trials came first, orange ones last."
    plots.append(Plot("slices", "Score by the words in the slots", says, figure))
    return plots


def _unquote(figure: go.Figure) -> None:
    """Remove the quotes that Optuna puts around the words of a slot, and name the empty word."""

    def plain(value: Any) -> Any:
        quoted = isinstance(value, str) and len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
        return (value[1:-1] or "(nothing)") if quoted else value

    for trace in figure.data:
        trace.x = [plain(v) for v in trace.x]
    figure.for_each_xaxis(
        lambda axis: axis.update(categoryarray=[plain(v) for v in axis.categoryarray]) if axis.categoryarray else None
    )


def _escaped(distribution: Any) -> Any:
    import optuna

    if not isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution
    choices = [text(c, WORD) if isinstance(c, str) else c for c in distribution.choices]
    return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(choices)))
