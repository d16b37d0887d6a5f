"""Builds an HTML report of runs as a single file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import resources
from typing import TYPE_CHECKING, Any

from promptsearch.banks import printable
from promptsearch.evaluators.cache import digest_of
from promptsearch.reports.comparison_table import metric_tables
from promptsearch.reports.figures import of_comparison, of_run, overview
from promptsearch.reports.plot import Plot
from promptsearch.reports.table import (
    by_weight,
    metric_cells,
    metric_headings,
    metric_note,
    p_value,
    percent,
    phrase_lines,
    verdicts,
)
from promptsearch.reports.view import Opened, RunView, figure
from promptsearch.runs import RunResult
from promptsearch.version import __version__

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from PIL.Image import Image

#: Largest number of templates in the heading, and in a row of the table.
HEADING, ROW = 8, 3
#: Largest number of changed pictures in each direction, and their longest side in pixels.
PICTURES, SIDE = 24, 224
#: Largest number of templates of a bank that are listed.
BANK = 2000

#: Returns the test pictures at the given indices, or a sentence that says why there are none.
Pictures = Callable[[Sequence[int]], "list[Image] | str"]


def all_plots(opened: Opened) -> tuple[list[Plot], dict[str, list[Plot]]]:
    """Draw every plot of a report.

    Args:
        opened: The runs and comparisons of the report.

    Returns:
        The plots of all runs together, and the plots of each run and each comparison by its name.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # Optuna's plots create studies, which Optuna logs
    by_run = {v.name: of_run(v) for v in opened.views}
    return overview(opened.views), by_run | {c["name"]: of_comparison(c) for c in opened.comparisons}


def build_page(
    opened: Opened,
    overall: list[Plot],
    by_run: Mapping[str, list[Plot]],
    pictures: Mapping[str, Pictures],
    notes: Sequence[str] = (),
) -> str:
    """Build the HTML page.

    All text that comes from a run is escaped: by Jinja in the page, by `reports.plot.text` in the plots.

    Args:
        opened: The runs and comparisons of the report.
        overall: The plots of all runs together, from `all_plots`.
        by_run: The plots of each run and comparison, from `all_plots`.
        pictures: For each run's name, a function that returns its test pictures.
        notes: Lines shown at the top.

    Returns:
        The page's HTML.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    page = resources.files("promptsearch.reports") / "page"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_finalize
    )
    template = environment.from_string((page / "report.html.j2").read_text("utf-8"))
    views = opened.views
    runs = [_run(v, by_run[v.name], pictures.get(v.name)) for v in views]
    results = [*(v.result for v in views if v.result), *opened.comparisons]
    found = dict.fromkeys(n for r in results for n in r.get("notes", []))
    names = [*(c["name"] for c in opened.comparisons), *(v.name for v in views)]
    return template.render(
        title=printable(f"promptsearch: {', '.join(names)}"),
        comparisons=[_comparison(c, by_run[c["name"]]) for c in opened.comparisons],
        runs=runs,
        overview=[_plot(p, f"all-{i}") for i, p in enumerate(overall)],
        notes=[printable(n) for n in (*notes, *found)],
        css=(page / "report.css").read_text("utf-8"),
        js=(page / "report.js").read_text("utf-8"),
        plotly=get_plotlyjs(),
        version=__version__,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def to_json(figure: go.Figure) -> str:
    """Return a figure as JSON that is safe inside a script element: it contains no `<`, `>` or `&`."""
    plain = json.dumps(json.loads(figure.to_json()), ensure_ascii=True)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plot(plot: Plot, key: str) -> dict[str, Any]:
    figure = plot.figure
    top = figure.layout.margin.t
    figure.update_layout(template=None, margin={"l": 60, "r": 20, "t": 50 if top is None else top, "b": 50})
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    if figure.layout.height is None:
        figure.update_layout(height=400)
    return {"id": f"{key}-{plot.key}", "title": plot.title, "says": plot.says, "json": to_json(figure)}


def _run(view: RunView, plots: list[Plot], pictures: Pictures | None) -> dict[str, Any]:
    winner, result = view.winner(), view.result
    templates = by_weight(winner) if view.readable else []
    shown = templates[:HEADING]
    classes = view.about.get("classes") or []
    gains = (result or {}).get("gains") or {}
    said = phrase_lines(winner, classes, gains.get("classes", ())) if view.readable and classes else []
    slug = f"run-{digest_of(view.name)[:10]}"
    flips: list[dict[str, Any]] = []
    why = None
    if view.details is not None:
        flips, why = _flips(view, pictures)
    bank = view.record.get("bank") or {}
    return {
        "view": view,
        "slug": slug,
        "glance": _glance(view, winner),
        "templates": [_heading(t, w) for t, w in shown],
        "more": len(templates) - len(shown),
        "phrases": [printable(line) for line in said],
        "gained_in": f", and what they gained in {gains['where']} accuracy" if gains.get("classes") else "",
        "tiles": _tiles(view, winner),
        "verdicts": verdicts(RunResult.from_dict(result)) if result is not None else [],
        "rows": _rows(view) if result is not None else [],
        "metrics": _metrics(RunResult.from_dict(result)) if result is not None else None,
        "plots": [_plot(p, slug) for p in plots],
        "gained": view.details["flips"]["gained"]["count"] if view.details else 0,
        "lost": view.details["flips"]["lost"]["count"] if view.details else 0,
        "flips": flips,
        "no_pictures": why,
        "config": _config(view),
        "bank": [printable(t) for t in bank.get("templates", [])[:BANK]],
        "grammar": json.dumps(bank["grammar"], indent=1, ensure_ascii=False) if "grammar" in bank else "",
    }


def _comparison(document: dict[str, Any], plots: list[Plot]) -> dict[str, Any]:
    """Collect what the page shows of a comparison: its plots, and a table with the differences from one method."""
    distances = {(r["dataset"], r["shots"], r["method"]): r for r in document["against"]["rows"]}
    tables = []
    for dataset in document["datasets"]:
        rows: dict[str, list[dict[str, str]]] = {}
        for r in (r for r in document["table"] if r["dataset"] == dataset):
            sd = "" if r["sd"] is None else f" ± {100 * r['sd']:.2f}"
            cell = {"shots": r["shots"], "accuracy": f"{100 * r['mean']:.2f}{sd}", "distance": ""}
            if gap := distances.get((dataset, r["shots"], r["method"])):
                figures = (100 * gap[k] for k in ("difference", "low", "high"))
                cell["distance"] = "{:+.2f} ({:+.2f} to {:+.2f})".format(*figures)
            rows.setdefault(printable(r["method"]), []).append(cell)
        by_shots = {
            name: [next((c for c in cells if c["shots"] == s), None) for s in document["shots"]]
            for name, cells in rows.items()
        }
        tables.append({"dataset": printable(dataset), "rows": by_shots})
    return {
        "slug": (slug := f"run-{digest_of(document['name'])[:10]}"),
        "name": document["name"],
        "model": document["model"],
        "seeds": document["seeds"],
        "shots": document["shots"],
        "against": document["against"]["method"],
        "methods": document["methods"],
        "tables": tables,
        "metrics": [
            (printable(title), header, [[printable(c) for c in row] for row in rows])
            for title, header, rows in metric_tables(document)
        ],
        "plots": [_plot(p, slug) for p in plots],
    }


def _heading(template: str, weight: float | None) -> dict[str, Any]:
    before, _, after = printable(template).partition("{}")
    share = None if weight is None else f"{weight:.2f}"
    return {"before": before, "name": "class name", "after": after, "weight": share}


def _tiles(view: RunView, winner: dict[str, Any]) -> list[tuple[str, str, str]]:
    support, result = winner["support"], view.result
    tiles = []
    if result is not None and "paired" in result:
        test, paired = winner["test"], result["paired"]
        interval = f"95 % interval {100 * test['low']:.1f} to {100 * test['high']:.1f}"
        points = f"points, {100 * paired['low']:+.2f} to {100 * paired['high']:+.2f}"
        if "mcnemar" in paired:
            points += f"; McNemar {p_value(paired['mcnemar'])}"
        tiles += [
            ("test accuracy", f"{100 * test['accuracy']:.2f} %", interval),
            (f"against {paired['baseline']}", f"{100 * paired['difference']:+.2f}", points),
        ]
    if (accuracy := figure(support, "accuracy")) is not None:
        tiles.append(("few-shot accuracy", f"{100 * accuracy:.1f} %", f"cross-entropy {support['xent']:.4f}"))
    elif (value := figure(support, view.objective.replace("-", "_"))) is not None:
        tiles.append((view.objective, f"{value:.4f}", "computed without labels"))
    if (fluency := support.get("fluency")) is not None:
        tiles.append(("fluency", f"{fluency:.2f}", "log-likelihood per token, nats"))
    if result is not None:
        what = ("training steps", "steps") if "steps" in result else ("prompt sets scored", "evaluations")
        tiles.append((what[0], f"{result[what[1]]:,}", f"in {result['seconds']:.1f} s"))
    else:
        tiles.append(("recorded trials", f"{len(view.points):,}", "not finished"))
    return tiles


def _glance(view: RunView, winner: dict[str, Any]) -> dict[str, Any]:
    """Summarise a run in one row of the table of runs."""
    templates = [printable(t) for t, _ in by_weight(winner)] if view.readable else ["(learnt vectors)"]
    row = {"prompts": " · ".join(templates[:ROW]), "more": max(0, len(templates) - ROW), "test": "", "interval": ""}
    row |= {"against": "", "sets": f"{len(view.points):,}", "support": _number(winner["support"], "accuracy", 100, 1)}
    if view.result is None:
        return {**row, "test": "not finished"}
    sets = "" if "steps" in view.result else f"{view.result['evaluations']:,}"
    if "test" not in winner:
        return {**row, "sets": sets, "test": "no test split"}
    test = winner["test"]
    row |= {"test": f"{100 * test['accuracy']:.2f}", "interval": f"{100 * test['low']:.1f}–{100 * test['high']:.1f}"}
    against = f"{100 * view.result['paired']['difference']:+.2f}"
    return {**row, "sets": sets, "against": against}


def _number(support: Mapping[str, Any], name: str, factor: float, digits: int) -> str:
    value = figure(support, name)
    return "" if value is None else f"{factor * value:.{digits}f}"


def _rows(view: RunView) -> list[dict[str, Any]]:
    assert view.result is not None  # the caller lists finished runs only
    result = view.result
    named = [("winner", result["winner"])]
    named += [(r.get("name", "decoded"), r) for r in result.get("decoded", [])]
    named += [("runner-up", r) for r in result["runners_up"][:2]]
    named += [(b["name"], b) for b in result["baselines"]]
    rows = []
    for name, r in named:
        learnt = name == "winner" and not view.readable
        templates = ["(learnt vectors)"] if learnt else [printable(t) for t, _ in by_weight(r)]
        test = r.get("test")
        rows.append(
            {
                "name": name,
                "prompts": " · ".join(templates[:ROW]),
                "more": max(0, len(templates) - ROW),
                "support": _number(r["support"], "accuracy", 100, 1),
                "xent": _number(r["support"], "xent", 1, 4),
                "test": f"{100 * test['accuracy']:.2f}" if test else "",
                "interval": f"{100 * test['low']:.1f}–{100 * test['high']:.1f}" if test else "",
            }
        )
    return rows


def _metrics(result: RunResult) -> dict[str, Any] | None:
    """Collect the test metrics other than accuracy, of the winner and the baselines, and the winner's by class."""
    report = result.winner.report
    if report is None:
        return None
    named = [("winner", report), *((r.name, r.report) for r in result.baselines if r.report is not None)]
    names = result.classes or tuple(map(str, range(len(report.recall))))
    by_class = zip(names, report.recall, report.precision, strict=True)
    return {
        "note": metric_note(report),
        "headings": [heading.replace("\n", " ") for heading in metric_headings(report)],
        "rows": [(name, [printable(c) for c in metric_cells(found, names)]) for name, found in named],
        "classes": [(printable(name), percent(recall), percent(precision)) for name, recall, precision in by_class],
    }


def _flips(view: RunView, pictures: Pictures | None) -> tuple[list[dict[str, Any]], str | None]:
    assert view.details is not None  # the caller checks it
    names, flips = view.details["classes"], view.details["flips"]
    sides = [("gained", "Wrong before, right now"), ("lost", "Right before, wrong now")]
    wanted = {key: flips[key]["pictures"][:PICTURES] for key, _ in sides}
    every = [row[0] for rows in wanted.values() for row in rows]
    got = pictures(every) if pictures is not None and every else []
    if isinstance(got, str):
        return [], got
    found = dict(zip(every, got, strict=True)) if got else {}
    shown = []
    for key, title in sides:
        rows = [
            {
                "src": _data_url(found[index]),
                "index": index,
                "true": printable(names[true]),
                "before": printable(names[before]),
                "after": printable(names[after]),
            }
            for index, true, before, after in wanted[key]
            if index in found
        ]
        shown.append({"title": title, "pictures": rows})
    return shown, None


def _data_url(picture: Image) -> str:
    if max(picture.size) > SIDE:
        picture = picture.copy()
        picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _config(view: RunView) -> list[tuple[str, str]]:
    rows = [("run", view.name), ("saved in", view.record.url)]
    rows += [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in view.config.to_dict().items()]
    about = {k: v for k, v in view.about.items() if k not in ("classes", "opened", "folder")}
    rows += [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in about.items()]
    if opened := view.record.get("test_opened"):
        rows.append(("test split opened", opened if isinstance(opened, str) else ", ".join(opened)))
    return [(printable(k), printable(v)) for k, v in rows]


def _finalize(value: Any) -> Any:
    """Replace unprintable characters, e.g. in the names of runs and data sets, before they reach the page."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))
