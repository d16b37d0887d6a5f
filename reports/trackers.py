"""Logs a finished run to an experiment tracker, through the tracker's own library."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import digest_of
from promptsearch.reports.comparison_table import to_markdown
from promptsearch.reports.export import write
from promptsearch.reports.html import all_plots, build_page
from promptsearch.reports.view import Opened, RunView
from promptsearch.runs import RunRecord

#: Default project, experiment or folder for logged runs, if the environment does not name another.
PROJECT = "promptsearch"


@dataclass(frozen=True)
class Logged:
    """The data about a run that a tracker logs.

    Attributes:
        name: The run's name.
        key: Identifies the run among runs of the same name in other storages.
        config: The run's options, by dotted names.
        steps: (number of scored prompt sets, best scores so far) at several moments of the search.
        figures: The final scores.
        winner: The winner, or a comparison's table, as Markdown.
        report: The HTML report.
    """

    name: str
    key: str
    config: Mapping[str, str | int | float | bool]
    steps: list[tuple[int, dict[str, float]]]
    figures: Mapping[str, float]
    winner: str
    report: str


def check_tracker(name: str) -> None:
    """Check, before a search begins, that a tracker is known and its library is installed.

    Raises:
        InputError: The tracker is unknown, or its library is not installed.
    """
    if name not in TRACKERS:
        raise InputError(f"--log-to {name}: choose from {', '.join(TRACKERS)}")
    if importlib.util.find_spec(_PACKAGES[name]) is None:
        raise InputError(f"--log-to {name}: {name} is not installed; pip install 'promptsearch[{name}]'")


def log_run(tracker: str, record: RunRecord, document: Mapping[str, Any]) -> str:
    """Log a finished run; logging it again updates the same run in the tracker.

    Args:
        tracker: One of `TRACKERS`.
        record: The run.
        document: Its result document.

    Returns:
        Where it was logged.

    Raises:
        InputError: The tracker is unknown, or its library is not installed.
        PromptSearchError: The tracker fails; the run itself is recorded.
    """
    check_tracker(tracker)
    logged = describe(record, document)
    try:
        return TRACKERS[tracker](logged)
    except Exception as e:  # each library raises its own errors, e.g. for a missing server or key or a full disk
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise PromptSearchError(
            f"--log-to {tracker}: {reason}; run {record.name!r} is recorded, and the same command logs it again"
        ) from e


def describe(record: RunRecord, document: Mapping[str, Any]) -> Logged:
    """Collect the data about a run or a comparison that trackers log."""
    steps: list[tuple[int, dict[str, float]]] = []
    if document["command"] == "compare":
        opened = Opened([], [{**document, "name": record.name}], [])
        figures, winner = _compared(document), to_markdown(document)
    else:
        view = RunView(record)
        opened = Opened([view], [], [])
        steps = [(p.evaluations, _finite(p.score.to_dict())) for p in view.best_so_far()]
        figures, winner = _figures(document), _winner(document)
    overall, by_run = all_plots(opened)
    pictures = {record.name: lambda indices: "`promptsearch report` shows the pictures."}
    page = build_page(opened, overall, by_run, pictures)
    key = digest_of([record.name, record.url, record.about.get("started")])
    return Logged(record.name, key, _flat(record.config.to_dict()), steps, figures, winner, page)


def _figures(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a search: those on the few-shot pictures, the estimate, those on the test split."""
    winner, estimate = document["winner"], document.get("estimate") or {}
    figures = {f"few_shot/{name}": value for name, value in winner["support"].items()}
    figures |= {f"estimate/{k}": v for k, v in _flat(estimate).items() if isinstance(v, (int, float))}
    rows = [("winner", winner), *((b["name"], b) for b in document.get("baselines", []))]
    figures |= {f"test/accuracy/{n.replace(' ', '_')}": row["test"]["accuracy"] for n, row in rows if "test" in row}
    figures |= {"evaluations": document.get("evaluations", 0), "seconds": document.get("seconds", 0.0)}
    return _finite(figures)


def _compared(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean test accuracy of each method of a comparison, by data set and shots."""
    figures = {}
    for row in document["table"]:
        figures[f"test/accuracy/{row['dataset']}/{row['shots']}_shots/{row['method']}"] = row["mean"]
    return _finite(figures)


def _winner(document: Mapping[str, Any]) -> str:
    """Return the winner as Markdown."""
    winner = document["winner"]
    weights = winner.get("weights") or [1.0] * len(winner["templates"])
    lines = [f"- `{t}` × {w / sum(weights):.3g}" for t, w in zip(winner["templates"], weights, strict=True)]
    for name, phrases in zip(document.get("classes", []), winner.get("phrases") or [], strict=False):
        lines.append(f"- {name}: {', '.join(phrases)}")
    return "\n".join(lines)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Flatten nested options to dotted names, as trackers require."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, (str, int, float, bool)) else str(value)
    return flat


def _finite(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(v) for name, v in figures.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def _to_wandb(logged: Logged) -> str:
    """Log with wandb, to the place that its environment variables name (WANDB_MODE=offline: to a folder)."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=logged.name,
        id=logged.key,
        resume="allow",
        config=dict(logged.config),
    )
    run.define_metric("best/*", step_metric="evaluations")
    for step, figures in logged.steps:
        run.log({"evaluations": step, **{f"best/{name}": v for name, v in figures.items()}})
    for name, value in {**logged.figures, "winner": logged.winner}.items():
        run.summary[name] = value
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "report.html"
        write(file, logged.report)
        artifact = wandb.Artifact(f"report-{logged.key}", "report")
        artifact.add_file(str(file))
        run.log_artifact(artifact)
        place = run.url or str(Path(run.dir).parent)
        run.finish()
    return str(place)


def _to_mlflow(logged: Logged) -> str:
    """Log with MLflow, to MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""
    import mlflow

    experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    query = f"tags.`promptsearch.run` = '{logged.key}'"
    client = mlflow.MlflowClient()
    found = client.search_runs([experiment.experiment_id], query, max_results=1)
    with mlflow.start_run(
        run_id=found[0].info.run_id if found else None, run_name=None if found else logged.name
    ) as run:
        mlflow.set_tag("promptsearch.run", logged.key)
        mlflow.set_tag("mlflow.note.content", logged.winner)
        if not found:
            mlflow.log_params({name: str(value)[:500] for name, value in logged.config.items()})
        for step, figures in logged.steps:
            mlflow.log_metrics({f"best/{name}": v for name, v in figures.items()}, step=step)
        mlflow.log_metrics({_metric(name): value for name, value in logged.figures.items()})
        mlflow.log_text(logged.winner, "winner.md")
        mlflow.log_text(logged.report, "report.html")
        return f"{mlflow.get_tracking_uri()}, experiment {experiment.name}, run {run.info.run_id}"


def _metric(name: str) -> str:
    """Return a name that MLflow accepts for a metric, which may have letters, digits and a few signs."""
    return "".join(c if c.isalnum() and c.isascii() or c in "_-./ " else "_" for c in name)


def _to_tensorboard(logged: Logged) -> str:
    """Log event files to `runs/NAME`, or to TENSORBOARD_LOGDIR instead of `runs`, with the report beside them."""
    from torch.utils.tensorboard import SummaryWriter

    name = "".join(c if c.isalnum() or c in "_-." else "_" for c in logged.name).lstrip(".") or "run"
    folder = Path(os.environ.get("TENSORBOARD_LOGDIR", "runs")) / name
    for old in folder.glob("events.out.tfevents.*"):  # files of the same run, which was logged before
        old.unlink()
    with _silent_threads(), SummaryWriter(str(folder)) as writer:
        for step, figures in logged.steps:
            for figure, value in figures.items():
                writer.add_scalar(f"best/{figure}", value, step)
        for figure, value in logged.figures.items():
            writer.add_scalar(figure, value, 0)
        writer.add_text("winner", logged.winner, 0)
        writer.add_text("config", "\n".join(f"- {k}: `{v}`" for k, v in logged.config.items()), 0)
    write(folder / "report.html", logged.report)
    return str(folder)


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Silence tracebacks of the thread that writes event files, because its errors are raised in this thread too."""
    before, threading.excepthook = threading.excepthook, lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


#: The functions that log a run, by the value of `--log-to`.
TRACKERS: dict[str, Callable[[Logged], str]] = {
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
    "tensorboard": _to_tensorboard,
}

#: The module of each tracker's library.
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard"}
