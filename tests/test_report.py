"""`promptsearch report`: a page that is whole in itself, tested in a real browser, and its bad inputs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, chromium, page_of, wait_for
from click.testing import CliRunner, Result
from made_problem import CLASSES, make_problem

from promptsearch.banks import PromptSet
from promptsearch.cli import main
from promptsearch.config import RunConfig
from promptsearch.evaluators import Score, Split
from promptsearch.reports.figures import overview
from promptsearch.reports.table import p_value
from promptsearch.reports.view import RunView, by_shots
from promptsearch.runs import RunRecord
from promptsearch.runs.pipeline import build_details, confusion_matrix

HOSTILE = [
    'a <script>document.title="owned"</script> {}.',
    "</script><img src=x onerror=\"document.title='owned'\"> {}",
    "a $\\frac{}$ \\input of <b>&amp;</b>",
    "{{ 7 * 7 }} {}".replace("{{", "(").replace("}}", ")"),
    "a photo of a {}.",
]
NASTY = '<img src=x onerror="document.title=1">\x1b[31m'
COMMON = ["--model", "tiny", "--dataset", "made", "--quiet"]
CONFIG = {"command": "beam", "model": "tiny", "dataset": "made", "shots": 2, "seed": 0, "objective": "xent"}


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs on a made-up problem: a beam over hostile templates, and two random searches."""
    root = tmp_path_factory.mktemp("made")
    bank = root / "bank.txt"
    bank.write_text("\n".join(HOSTILE))
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PROMPTSEARCH_CACHE", str(root / "cache"))
        env.setenv("PROMPTSEARCH_HOME", str(root / "home"))
        make_problem(root / "cache", HOSTILE)
        common = [*COMMON, "--bank", str(bank)]
        run("beam", *common, "--shots", "4", "--width", "3", "--depth", "3", "--study", NASTY)
        for shots in ("2", "4"):
            trials = ["--trials", "15", "--ensemble", "2", "--study", f"random-{shots}"]
            run("random", *common, *trials, "--shots", shots)
    return root


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> list[str]:
    """The names of those runs, which each test has a copy of."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [NASTY, "random-2", "random-4"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_the_page_works_in_a_browser(runs: list[str], tmp_path: Path, browser: Any) -> None:
    out = tmp_path / "report.html"
    assert str(out) in run("report", *runs, "-o", str(out)).output
    for scheme in ("light", "dark"):
        with page_of(browser, color_scheme=scheme, viewport={"width": 1100, "height": 900}) as (page, complaints):
            asked: list[str] = []
            page.on("request", lambda r, asked=asked: asked.append(r.url))
            page.goto(out.as_uri())
            wait_for(page, "[...document.querySelectorAll('.plot')].every(d => d.data)")
            assert complaints == [] and [u for u in asked if not u.startswith("data:")] == [out.as_uri()]
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            points = page.evaluate(
                "[...document.querySelectorAll('.plot')].map(d => [d.dataset.figure, d.querySelectorAll("
                "'.point, .heatmaplayer image, .scatterlayer path, .barlayer path').length])"
            )
            assert len(points) >= 8 and all(n > 0 for _, n in points), points
            assert "owned" not in page.title() and NASTY.split("\x1b")[0] in page.title()
            said = page.inner_text("body")
            assert any(t in said for t in HOSTILE) and "\x1b" not in said
            assert page.evaluate("document.querySelectorAll('main img[src=x], main b b').length") == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.click("#theme")
            assert page.evaluate("document.documentElement.dataset.theme") != scheme
            ground = "getComputedStyle(document.body).backgroundColor"
            assert (page.evaluate(ground) == "rgb(246, 247, 249)") == (scheme == "dark")
            if scheme == "dark":
                continue
            pdf = page.pdf()
            assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
            page.set_viewport_size({"width": 680, "height": 900})  # A4 less its margins
            page.emulate_media(media="print")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # else print makes all small
            too_low = "[...document.querySelectorAll('.plot')].filter(d => d.offsetHeight < d.layout.height).length"
            assert page.evaluate(too_low) == 0  # what comes next would be printed over them


def test_what_is_folded_up_is_printed(runs: list[str], tmp_path: Path, browser: Any) -> None:
    out = tmp_path / "report.html"
    trials = ["--trials", "3", "--select", "none", "--no-estimate", "--study", "fourth"]
    run("random", *COMMON, "--bank", str(tmp_path / "bank.txt"), *trials)
    run("report", *runs, "fourth", "-o", str(out))
    with page_of(browser) as (page, _):
        page.goto(out.as_uri())
        wait_for(page, "[...document.querySelectorAll('.plot')].every(d => d.data)")
        opened = "document.querySelectorAll('details.part[open]').length"
        assert page.evaluate(opened) == 0
        page.evaluate("addEventListener('beforeprint', () => { window.printed = " + opened + " })")
        page.pdf()
        assert page.evaluate("window.printed") == 4 and page.evaluate(opened) == 0


def test_on_a_phone_panels_stand_below_each_other(runs: list[str], tmp_path: Path, browser: Any) -> None:
    out = tmp_path / "report.html"
    run("report", runs[1], "-o", str(out))
    with page_of(browser, viewport={"width": 390, "height": 800}) as (page, complaints):
        page.goto(out.as_uri())
        wait_for(page, "[...document.querySelectorAll('.plot')].every(d => d.data)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and complaints == []
        first, second = page.evaluate(
            "[...document.querySelectorAll('[id$=confusion] .heatmaplayer image')]"
            ".map(e => e.getBoundingClientRect().top)"
        )
        assert second > first + 200


def test_labels_of_plots_show_templates_and_obey_none_of_them(runs: list[str], tmp_path: Path, browser: Any) -> None:
    out = tmp_path / "report.html"
    run("report", runs[0], "-o", str(out))
    with page_of(browser) as (page, complaints):
        page.goto(out.as_uri())
        wait_for(page, "[...document.querySelectorAll('.plot')].every(d => d.data)")
        ticks = page.evaluate("[...document.querySelectorAll('[id$=templates] .ytick text')].map(t => t.textContent)")
        chosen = list(RunView(RunRecord.load(runs[0])).chosen())
        assert len(ticks) == len(chosen)
        for tick in ticks:
            assert any(tick.strip().rstrip("…") in c for c in chosen), tick
        assert complaints == []


def test_flipped_pictures_are_shown_where_there_are_pictures(tmp_path: Path, browser: Any) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("test", 12)):
        for name in ("cat", "dog", "ship"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(n):
                noise = rng.integers(0, 255, (40, 40, 3), np.uint8)
                Image.fromarray(noise).save(tmp_path / "data" / split / name / f"{i}.png")
    beam = ["beam", "--model", "tiny", "--dataset", str(tmp_path / "data"), "--shots", "2", "--depth", "2", "--quiet"]
    run(*beam, "--bank", "simple-imagenet", "--study", "noise", "--no-estimate")
    record = RunRecord.load("noise")
    details = record.get("details")
    details["flips"]["gained"] = {"count": 1, "pictures": [[3, 0, 1, 0]]}
    record.set("details", details)
    out = tmp_path / "report.html"
    run("report", "noise", "-o", str(out))
    with page_of(browser) as (page, complaints):
        page.goto(out.as_uri())
        wait_for(page, "document.images.length > 0 && [...document.images].every(i => i.naturalWidth === 40)")
        assert "dog → cat" in page.inner_text(".pictures")
        assert complaints == []
    (tmp_path / "data" / "test" / "cat").rename(tmp_path / "data" / "test" / "cow")
    (tmp_path / "data" / "train" / "cat").rename(tmp_path / "data" / "train" / "cow")
    named = ["--pictures", str(tmp_path / "data")]
    assert "has the classes cow, dog, ship" in run("report", "noise", "-o", str(out), *named, code=2).stderr
    for split in ("test", "train"):
        (tmp_path / "data" / split / "cow").rename(tmp_path / "data" / split / "cat")
    (tmp_path / "data" / "test" / "cat" / "3.png").unlink()
    for left in (tmp_path / "data" / "test").rglob("*.png"):
        left.unlink()
    run("report", "noise", "-o", str(out))
    assert "The pictures cannot be shown" in out.read_text()


def test_png_of_each_plot(runs: list[str], tmp_path: Path) -> None:
    from PIL import Image

    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    run("report", runs[1], "-o", str(tmp_path / "r.html"), "--png", str(tmp_path / "plots"))
    files = {f.stem for f in (tmp_path / "plots").glob("*.png")}
    assert {"progress", "front-length", "templates", "classes", "confusion"} <= files
    for file in (tmp_path / "plots").glob("*.png"):
        with Image.open(file) as picture:
            assert picture.width == 2700 and len(set(picture.convert("L").resize((90, 40)).tobytes())) > 10


def test_png_without_a_chromium_says_so(runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    error = run("report", runs[1], "-o", str(tmp_path / "r.html"), "--png", str(tmp_path / "plots"), code=1).stderr
    assert "Chromium" in error and len(error.splitlines()) == 1


def test_the_words_say_what_the_result_says(runs: list[str], tmp_path: Path) -> None:
    view = RunView(RunRecord.load("random-4"))
    assert view.result is not None
    winner, paired = view.result["winner"], view.result["paired"]
    assert f"{100 * winner['test']['accuracy']:.2f} % of 200 test pictures" in view.headline
    assert ("no evidence that it is better" in view.headline) == (paired["mcnemar"] >= 0.05)
    assert f"McNemar {p_value(paired['mcnemar'])})" in view.headline
    best = view.best_so_far()
    assert [p.score.xent for p in best] == sorted((p.score.xent for p in best), reverse=True)
    assert best[-1].score.xent == pytest.approx(view.result["runners_up"][0]["support"]["xent"], abs=1e-6)
    beam = RunView(RunRecord.load(NASTY))
    assert beam.result is not None
    assert beam.points[0].evaluations == 5 and beam.points[-1].evaluations == beam.result["evaluations"]
    shots = by_shots([RunView(RunRecord.load(n)) for n in runs])
    assert [row[0] for row in shots["random"]] == [2, 4] and shots["hand-written"][1][3] == 2


def test_details_are_the_confusions_of_the_opened_test(runs: list[str]) -> None:
    record = RunRecord.load("random-4")
    details, result = record.get("details"), record.result
    assert result is not None and details["classes"] == list(CLASSES)
    for which, accuracy in (
        ("before", result["baselines"][0]["test"]["accuracy"]),
        ("after", result["winner"]["test"]["accuracy"]),
    ):
        matrix = confusion_matrix(details, which)
        assert matrix.sum() == 200 and np.trace(matrix) / 200 == pytest.approx(accuracy, abs=1e-6)
    gained, lost = (details["flips"][k]["count"] for k in ("gained", "lost"))
    assert (gained - lost) / 200 == pytest.approx(result["paired"]["difference"], abs=1e-6)


def test_of_many_flips_an_even_choice_is_kept() -> None:
    n = 1000
    labels = np.zeros(n, np.int64)
    test = Split(np.zeros((n, 2), np.float32), labels, np.arange(n) + 7)
    details = build_details(["a", "b"], test, labels + 1, labels)
    assert details["flips"]["gained"]["count"] == n and details["flips"]["lost"] == {"count": 0, "pictures": []}
    kept = details["flips"]["gained"]["pictures"]
    assert len(kept) == 200 and kept[0] == [7, 0, 1, 0] and kept[-1] == [n + 6, 0, 1, 0]
    json.dumps(details)


def test_a_run_that_is_empty_unfinished_or_of_one_trial(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    empty = RunRecord.open("empty", None, RunConfig.from_dict(CONFIG), {})
    assert "no scored trial" in run("report", "empty", "-o", str(out), code=2).stderr
    assert not out.exists()
    done = run("report", "empty", "random-2", "-o", str(out))
    assert "is skipped" in done.stderr and "is skipped" in out.read_text()
    empty.add([(PromptSet.of("a {}."), Score(0.5, 1.0))], 0, 1)
    run("report", "empty", "-o", str(out))
    page = out.read_text()
    assert "The run is not finished" in page and "test split was not opened" in page
    one = ["--trials", "1", "--shots", "2", "--model", "tiny", "--dataset", "made", "--study", "one", "--quiet"]
    run("random", "--bank", str(tmp_path / "bank.txt"), "--select", "none", *one)
    run("report", "one", "-o", str(out))
    assert "The winner, “a photo of a {}.”, classifies" in out.read_text()
    assert "no run" in run("report", "nobody", "-o", str(out), code=2).stderr


def test_fluency_has_a_front_of_its_own(tmp_path: Path) -> None:
    record = RunRecord.open("fluent", None, RunConfig.from_dict({**CONFIG, "pareto": True, "fluency weight": 0.5}), {})
    rows = [("a {}.", 0.5, 1.0, -4.0), ("a photo of a {}.", 0.6, 0.9, -2.0), ("zq {} zq zq.", 0.6, 0.8, -9.0)]
    record.add([(PromptSet.of(t), Score(a, x, f)) for t, a, x, f in rows], 0, 3)
    view = RunView(RunRecord.load("fluent"))
    assert str(view.ranked()[0].prompt_set) == "a photo of a {}."  # by the weighted objective
    plots = {p.key: p.figure for p in overview([view])}
    on = {k: set(plots[k].data[-1].text) for k in ("front-length", "front-fluency")}
    assert on == {"front-length": {"a {}.", "zq {} zq zq."}, "front-fluency": {"a photo of a {}."}}
    run("report", "fluent", "-o", str(tmp_path / "r.html"))


def test_a_run_without_labels_has_no_few_shot_accuracy(runs: list[str], tmp_path: Path) -> None:
    beam = ["beam", "--model", "tiny", "--dataset", "made", "--bank", str(tmp_path / "bank.txt"), "--quiet"]
    run(*beam, "--shots", "0", "--unlabelled", "100", "--depth", "2", "--study", "zero")
    plots = {p.key: p.figure for p in overview([RunView(RunRecord.load("zero"))])}
    assert plots.keys() == {"progress", "templates"} and len(plots["progress"].data[0].x) > 1
    out = tmp_path / "r.html"
    run("report", "zero", "random-2", "-o", str(out))
    page = out.read_text("utf-8").partition("<script>")[0]
    assert "no labels" in page and "mutual-information" in page and "nan" not in re.sub(r"<[^>]*>", "", page)
    done = run("export", "zero", "--to", "transformers")
    assert "HYPOTHESIS_TEMPLATE" in done.stdout and "few-shot" not in done.stderr


def test_a_comparison_and_learnt_vectors_have_their_place(tmp_path: Path, browser: Any) -> None:
    """By documents of their form: what makes them is tested elsewhere."""
    methods = [{"name": n, "about": "", "readable": r, "options": {}} for n, r in (("beam", True), ("<b>coop", False))]
    rows = [
        {"dataset": "made", "shots": s, "method": m["name"], "readable": m["readable"], "draws": 2}
        | {"mean": 0.5 + s / 100, "sd": 0.01, "evaluations": 3, "steps": 0, "seconds": 1}
        for m in methods
        for s in (1, 2)
    ]
    gap = {"dataset": "made", "shots": 2, "method": "beam", "readable": True, "draws": 2}
    gap |= {"difference": 0.031, "low": -0.01, "high": 0.05}
    document = {"model": "tiny", "datasets": ["made"], "shots": [1, 2], "seeds": 2, "methods": methods, "table": rows}
    document |= {"against": {"method": "<b>coop", "rows": [gap]}, "notes": []}
    record = RunRecord.open("set side by side", None, RunConfig.from_dict({"command": "compare", "model": "tiny"}), {})
    out = tmp_path / "r.html"
    assert "no scored trial" in run("report", "set side by side", "-o", str(out), code=2).stderr
    record.finish(document)
    assert "no winner" in run("export", "set side by side", "--to", "bank", code=2).stderr
    coop = RunRecord.open("coop", None, RunConfig.from_dict({**CONFIG, "command": "coop"}), {})
    support, test = {"accuracy": 0.5, "xent": 1.0}, {"accuracy": 0.6, "low": 0.5, "high": 0.7}
    learnt = {"name": "learnt", "templates": ["zqx {}"], "readable": False, "support": support, "test": test}
    result = {"winner": learnt, "decoded": [], "runners_up": [], "baselines": [], "evaluations": 1, "seconds": 2.0}
    result |= {"paired": {"baseline": "x", "difference": 0.0, "low": -0.1, "high": 0.1}, "test_pictures": 9}
    coop.finish(result)
    run("report", "set side by side", "coop", "-o", str(out))
    with page_of(browser) as (page, complaints):
        page.goto(out.as_uri())
        wait_for(page, "[...document.querySelectorAll('.plot')].every(d => d.data)")
        said = page.inner_text("body")
        assert "+3.10 (-1.00 to +5.00)" in said and "51.00 ± 1.00" in said and "<b>coop" in said
        assert "learnt vectors, which cannot be read" in said and "zqx" not in said
        assert page.evaluate("document.querySelectorAll('[id$=comparison-0] .legendtext').length") == 2
        assert complaints == []


@pytest.mark.parametrize("place", ["/sys/report.html", "{tmp}/no/folder/report.html"])
def test_a_folder_that_cannot_be_written(runs: list[str], tmp_path: Path, place: str) -> None:
    error = run("report", "random-2", "-o", place.replace("{tmp}", str(tmp_path)), code=2).stderr
    assert "cannot be written" in error and "report.html" in error
