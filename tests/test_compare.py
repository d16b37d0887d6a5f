"""`promptsearch compare`: the same draws for all, killed and resumed, shared, tested once, shown in every form."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from forked import Forked
from made_problem import make_problem
from optuna.trial import TrialState

from promptsearch import plugins
from promptsearch.cli import main
from promptsearch.config import RunConfig
from promptsearch.evaluators.cache import read_block
from promptsearch.evaluators.intervals import Interval, crossed_interval, pooled_interval
from promptsearch.evaluators.task import Split
from promptsearch.runs import RunRecord
from promptsearch.runs.baselines.learners import learn_context_restarted
from promptsearch.runs.baselines.training_context import Row, Setting, Trained
from promptsearch.runs.compare.cells import Cell, Cells
from promptsearch.runs.compare.comparison import Comparison
from promptsearch.runs.compare.methods import random_templates, searcher_options
from promptsearch.search import SEARCHERS
from promptsearch.search.gradient import Checkpoint, CoOpOptions, Learned

LINES = ["a photo of a {}.", "a dark {}.", "the {} far away", "many {}", "a drawing of a {}", "one {} only"]
FAST = "hand-written,whole-bank,single,beam,random,climb"


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    """Arguments of a comparison that needs no torch: pictures and prompts are in the cache of this test."""
    return comparison_in(tmp_path)


def comparison_in(folder: Path) -> list[str]:
    bank = folder / "bank.txt"
    bank.write_text("\n".join(LINES) + "\n")
    make_problem(folder / "cache", LINES)
    make_problem(folder / "cache", LINES, "other", seed=1)
    problem = ["--model", "tiny", "--dataset", "made", "--dataset", "other", "--bank", str(bank), "--device", "cpu"]
    return ["compare", *problem, "--methods", FAST, "--shots", "1,4", "--seeds", "2", "--trials", "10"]


def run(args: list[str], code: int = 0) -> Result:
    result = CliRunner().invoke(main, args)
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    assert "Traceback" not in result.output
    return result


def document(args: list[str]) -> dict[str, Any]:
    return json.loads(run([*args, "--json"]).stdout)


@dataclass
class Whole:
    """The comparison of all tests, made once: what it shows and writes, and its document."""

    shown: str
    doc: dict[str, Any]
    files: dict[str, Path]
    home: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    files = {name: folder / f"out.{name}" for name in ("csv", "md", "svg", "png")}
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PROMPTSEARCH_CACHE", str(folder / "cache"))
        env.setenv("PROMPTSEARCH_HOME", str(folder / "home"))
        args = [*comparison_in(folder), "--csv", str(files["csv"]), "--markdown", str(files["md"])]
        shown = run([*args, "--figure", str(files["svg"])]).stdout
        return Whole(shown, document([*args, "--figure", str(files["png"])]), files, folder / "home")


def started(args: list[str], code: str | None = None, **env: str) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Forked(args, code=code, env={**os.environ, **env}, **streams)


def timeless(doc: dict[str, Any]) -> dict[str, Any]:
    """A document without what differs from one run to the next."""
    kept = {k: v for k, v in doc.items() if k not in ("run", "elapsed", "notes")}
    for part in ("table", "cells"):
        kept[part] = [{k: v for k, v in row.items() if k != "seconds"} for row in kept[part]]
    return kept


def test_all_methods_get_the_same_draws_and_means_are_of_the_cells(whole: Whole) -> None:
    doc = whole.doc
    assert len(doc["cells"]) == 2 * 2 * 2 * 6
    for dataset in ("made", "other"):
        for shots in (1, 4):
            for seed in (0, 1):
                at = [c for c in doc["cells"] if (c["dataset"], c["shots"], c["seed"]) == (dataset, shots, seed)]
                assert len(at) == 6 and len({c["draw"] for c in at}) == 1
                assert all(c["validation_xent"] > 0 for c in at)
    for row in doc["table"]:
        own = ("dataset", "shots", "method")
        values = [c["test_accuracy"] for c in doc["cells"] if all(c[k] == row[k] for k in own)]
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-5) and row["draws"] == 2
        assert row["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert doc["against"]["method"] == "hand-written" and any("coop is not among" in n for n in doc["notes"])
    gaps = {(r["dataset"], r["shots"], r["method"]): r for r in doc["against"]["rows"]}
    means = {(r["dataset"], r["shots"], r["method"]): r["mean"] for r in doc["table"]}
    for (dataset, shots, method), row in gaps.items():
        expected = means[dataset, shots, method] - means[dataset, shots, "hand-written"]
        assert row["difference"] == pytest.approx(expected, abs=2e-6) and row["low"] <= row["difference"] <= row["high"]


def test_results_are_averaged_over_data_sets_first(made: list[str]) -> None:
    doc = document([*made, "--methods", "hand-written,single,random"])
    for row in doc["overall"]:
        of = [c for c in doc["cells"] if (c["method"], c["shots"]) == (row["method"], row["shots"])]
        by_draw = [np.mean([c["test_accuracy"] for c in of if c["seed"] == seed]) for seed in (0, 1)]
        assert row["by_draw"] == pytest.approx(by_draw, abs=2e-6) and (row["draws"], row["datasets"]) == (2, 2)
        assert row["mean"] == pytest.approx(np.mean(by_draw), abs=2e-6) and row["low"] < row["mean"] < row["high"]
    assert {(r["method"], r["shots"]) for r in doc["overall"]} == {
        (m, s) for m in ("hand-written", "single", "random") for s in (1, 4)
    }
    gaps = {(r["method"], r["shots"]): r["against"]["difference"] for r in doc["overall"] if "against" in r}
    means = {(r["method"], r["shots"]): r["mean"] for r in doc["overall"]}
    assert gaps["random", 4] == pytest.approx(means["random", 4] - means["hand-written", 4], abs=2e-6)
    assert "mean over 2 data sets and 2 draws" in run([*made, "--methods", "hand-written,single,random"]).stdout
    fewer = document([*made, "--methods", "hand-written,random:1"])
    assert {r["method"]: r["draws"] for r in fewer["overall"]} == {"hand-written": 2, "random": 1}
    assert all("against" in r for r in fewer["overall"] if r["method"] == "random")


def test_results_are_judged_on_other_data_sets_with_the_same_classes(made: list[str], tmp_path: Path) -> None:
    args = [a for a in made if a not in ("--dataset", "made", "other")]
    args += ["--dataset", "made", "--methods", "hand-written,random", "--shots", "4"]
    doc = document([*args, "--transfer", "other"])
    assert doc["datasets"] == ["made", "made → other"] and doc["test_pictures"] == {"made": 200, "made → other": 200}
    there = {(c["method"], c["seed"]): c for c in doc["cells"] if c["dataset"] == "made → other"}
    problem = ["--model", "tiny", "--dataset", "made", "--device", "cpu", "--shots", "4", "--seed", "1"]
    own = document(["random", *problem, "--bank", str(tmp_path / "bank.txt"), "--trials", "10", "--transfer", "other"])
    assert there["random", 1]["test_accuracy"] == own["transfers"][0]["winner"]["test"]["accuracy"]
    assert there["random", 1]["templates"] == own["winner"]["templates"]
    assert not doc["overall"]  # of one data set that was drawn from
    assert "tiny on made → other: test accuracy" in run([*args, "--transfer", "other"]).stdout


def test_a_search_finds_what_its_own_command_finds(made: list[str], tmp_path: Path) -> None:
    doc = document([*made, "--shots", "4", "--ensemble", "2"])
    cell = next(c for c in doc["cells"] if (c["method"], c["dataset"], c["seed"]) == ("random", "other", 1))
    problem = ["--model", "tiny", "--dataset", "other", "--device", "cpu", "--shots", "4", "--seed", "1"]
    own = document(["random", *problem, "--bank", str(tmp_path / "bank.txt"), "--trials", "10", "--ensemble", "2"])
    assert cell["templates"] == own["winner"]["templates"] and cell["evaluations"] == own["evaluations"]
    assert cell["test_accuracy"] == own["winner"]["test"]["accuracy"]
    assert cell["support_xent"] == pytest.approx(own["winner"]["support"]["xent"], abs=1e-5)


def test_a_search_by_a_language_model_finds_what_its_own_command_finds() -> None:
    problem = ["--model", "tiny", "--dataset", "cifar10-dark", "--device", "cpu", "--shots", "4", "--trials", "32"]
    problem += ["--bank", "templates", "--ensemble", "2"]
    own = {"evolve-lm": ["evolve"], "climb-lm": ["climb", "--lm", "embedded"]}
    compared = ["compare", *problem, "--methods", "hand-written,evolve-lm,climb-lm", "--seeds", "1"]
    doc = document(compared)
    cells = {c["method"]: c for c in doc["cells"]}
    calls = 0
    for method, command in own.items():
        alone = document([*command, *problem, "--seed", "0"])
        assert cells[method]["templates"] == alone["winner"]["templates"]
        assert cells[method]["test_accuracy"] == alone["winner"]["test"]["accuracy"]
        assert cells[method]["readable"] and cells[method]["evaluations"] == alone["evaluations"] == 32
        calls += alone["proposals"]["usage"]["calls"]
    assert calls and any(f"The language model was called {calls} times" in n for n in doc["notes"])
    assert document(compared)["cells"] == doc["cells"]  # nothing is asked again


def test_a_language_model_that_no_method_asks_is_told(made: list[str]) -> None:
    result = run([*made, "--lm", "embedded"], 2)
    assert "--lm would do nothing: none of the methods uses a language model; add evolve-lm" in result.stderr


def test_every_searcher_of_the_registry_joins_with_its_commands_defaults() -> None:
    options = searcher_options({"ensemble": 3})
    assert options.keys() == SEARCHERS.keys()
    assert options["beam"]["width"] == 8 and options["tpe"]["ensemble"] == 3 and options["tpe"]["sampler"] == "tpe"
    assert options["evolve"]["proposer"] == "grammar" and not [o for o in options["evolve"] if o.startswith("lm")]
    assert all(o["objective"] == "xent" and "seed" not in o and "trials" not in o for o in options.values())


def test_a_searcher_of_a_plug_in_joins(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "promptsearch.search:RandomSearch", "promptsearch.searchers")
    there = plugins.found
    mine = {"mine": plugins.Plugin("searchers", "mine", point, "mine 1.0")}
    monkeypatch.setattr(plugins, "found", lambda k: ({**there(k)[0], **mine}, ()) if k == "searchers" else there(k))
    doc = document([*made, "--methods", "random,mine", "--shots", "4", "--seeds", "1"])
    found = {c["method"]: c["templates"] for c in doc["cells"] if c["dataset"] == "made"}
    assert found["mine"] == found["random"]


def test_a_killed_comparison_goes_on_and_ends_the_same(made: list[str], whole: Whole, tmp_path: Path) -> None:
    runs = tmp_path / "home" / "runs.db"
    process = started([*made, "--json"])
    count = 0
    while count < 9 and process.poll() is None:
        time.sleep(0.02)
        if runs.exists():
            with sqlite3.connect(runs, timeout=30) as db:
                tables = db.execute("select count(*) from sqlite_master where name = 'trials'").fetchone()[0]
                done = "select count(*) from trials where state = 'COMPLETE'"
                count = db.execute(done).fetchone()[0] if tables else 0
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=240)
    before = dict(
        sqlite3.connect(runs).execute("select number, datetime_complete from trials where state = 'COMPLETE'")
    )
    again = document(made)
    assert timeless(again) == timeless(whole.doc)
    after = dict(sqlite3.connect(runs).execute("select number, datetime_complete from trials"))
    assert len(after) == 48 and 9 <= len(before) < 48
    assert {n: after[n] for n in before} == before  # nothing was computed twice


def test_the_cell_of_a_machine_that_died_is_computed_by_another(made: list[str], postgres: str, tmp_path: Path) -> None:
    """As trials of searches are: its process cannot be looked for, but its heartbeat stops."""
    import sqlalchemy

    args = [*made, "--trials", "100", "--methods", "hand-written,random,climb", "--seeds", "1", "--shots", "4"]
    whole = document([*args, "--storage", str(tmp_path / "whole.db")])
    elsewhere = "import socket; socket.gethostname = lambda: 'elsewhere'; from promptsearch.cli import main; main()"
    process = started([*args, "--storage", postgres, "--study", "shared"], elsewhere)
    engine = sqlalchemy.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))

    def states() -> dict[str, int]:
        with engine.connect() as db:
            if not sqlalchemy.inspect(db).has_table("trials"):
                return {}
            return dict(db.execute(sqlalchemy.text("SELECT state, count(*) FROM trials GROUP BY state")).all())

    while True:  # until it is killed with a cell in hand
        assert process.poll() is None, process.communicate(timeout=240)
        if states().get("COMPLETE", 0) > 1:
            process.send_signal(signal.SIGSTOP)
            if states().get("RUNNING"):
                break
            process.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=240)
    with engine.begin() as db:  # a minute and more has passed
        aged = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 day'"
        db.execute(sqlalchemy.text(aged))
    again = document([*args, "--storage", postgres, "--study", "shared"])
    assert timeless(again) == timeless(whole)
    assert states() == {"COMPLETE": 6, "FAIL": 1}
    engine.dispose()


@pytest.mark.parametrize("signs", [0, 1])
def test_the_cell_of_a_machine_that_died_while_it_claimed_it_is_free(made: list[str], signs: int) -> None:
    """Before its first sign of life, or right after: no cell is left in the hands of nobody."""
    died = (
        "import os, signal, socket; socket.gethostname = lambda: 'elsewhere'\n"
        "from promptsearch.cli import main; from promptsearch.runs.store.heartbeat import Heartbeat\n"
        "hold = Heartbeat.hold\n"
        "def last(self, ids):\n"
        f"    {signs} and hold(self, ids)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Heartbeat.hold = last; main()"
    )
    args = [*made, "--methods", "single,random", "--seeds", "1"]
    process = started(args, died)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    again = started([*args, "--json"])
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0 and len(json.loads(out)["cells"]) == 8, err


def test_a_process_that_slept_leaves_its_cell_to_who_took_it(tmp_path: Path) -> None:
    record = RunRecord.open("c", str(tmp_path / "runs.db"), RunConfig.from_dict({"objective": "xent"}), {})
    cells = Cells(record, tmp_path)
    cell = Cell("beam", "made", 4, 0, "x")
    claim = cells.claim(cell)
    assert claim is not None
    record.storage.set_trial_state_values(claim, TrialState.FAIL)  # as Optuna does when its heartbeat has stopped
    other = cells.claim(cell)
    assert other is not None and other != claim
    figures, arrays = {"support": {"xent": 1.0}}, {"row 0": np.eye(2, dtype=np.float32)}
    assert not cells.finish(claim, cell, figures, arrays) and cell.key not in cells.done()
    assert cells.finish(other, cell, figures, arrays) and cells.done()[cell.key] == figures


def test_more_of_it_computes_only_what_is_new(made: list[str], tmp_path: Path) -> None:
    first = document([*made, "--methods", "single,random"])
    more = document([*made, "--methods", "hand-written,single,random:1", "--shots", "1,2,4", "--seeds", "3"])
    trials = sqlite3.connect(tmp_path / "home" / "runs.db").execute("select count(*) from trials").fetchone()[0]
    assert trials == 16 + 2 * 3 * 3 + 2 * 5 + 2  # hand-written; single: 3 × 3 of 4 there; random: 2 shots in the middle
    kept = {tuple(str(c[k]) for k in c) for c in first["cells"] if c["method"] == "single"}
    assert kept <= {tuple(str(c[k]) for k in c) for c in more["cells"]}
    assert {c["seed"] for c in more["cells"] if c["method"] == "random"} == {0}
    other = document([*made, "--methods", "random", "--trials", "11"])  # another budget is another cell
    assert {c["evaluations"] for c in other["cells"]} == {11}


def test_a_cell_that_something_else_took_away_is_told(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Comparison.compute

    def robbed(self: Comparison, spread: Any = None) -> None:
        compute(self, spread)
        next(self.cells.folder.glob("*.safetensors")).unlink()

    args = [*made, "--methods", "single,random"]
    with monkeypatch.context() as m:
        m.setattr(Comparison, "compute", robbed)
        message = run(args, 1).stderr.strip().splitlines()[-1]
    assert "was deleted after it was computed (1 in all)" in message and "run the same command again" in message
    assert len(document(args)["cells"]) == 16


def test_two_processes_share_it(made: list[str], whole: Whole, tmp_path: Path) -> None:
    processes = [started([*made, "--json"]) for _ in range(2)]
    outputs = [p.communicate(timeout=240) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    docs = [json.loads(out) for out, _ in outputs]
    assert timeless(docs[0]) == timeless(docs[1]) == timeless(whole.doc)
    assert sqlite3.connect(tmp_path / "home" / "runs.db").execute("select count(*) from trials").fetchone()[0] == 48


def test_tables_files_and_the_picture(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, doc, files = whole.shown, whole.doc, whole.files
    assert "tiny on made: test accuracy by shots per class, mean ± sd over 2 draws" in shown
    assert "points above hand-written on the same draws and pictures" in shown
    rows = list(csv.DictReader(files["csv"].open()))
    assert len(rows) == len(doc["cells"]) and {r["method"] for r in rows} == set(FAST.split(","))
    assert float(rows[0]["test_accuracy"]) == doc["cells"][0]["test_accuracy"]
    row = next(r for r in doc["table"] if (r["dataset"], r["shots"], r["method"]) == ("other", 4, "beam"))
    figure = f"{100 * row['mean']:.2f} ± {100 * row['sd']:.2f}"
    assert figure in shown and figure in files["md"].read_text()
    picture = files["svg"].read_text()
    assert "<svg" in picture and files["png"].read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setenv("PROMPTSEARCH_HOME", str(whole.home))
    name = doc["run"]["study"]
    (listed,) = json.loads(run(["runs", "list", "--json"]).stdout)
    assert (listed["study"], listed["state"]) == (name, "finished")
    assert name in run(["runs", "list"]).stdout and figure in run(["runs", "show", name]).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "beam,magic"], "--methods magic: unknown method; choose from all, hand-written"),
        (["--against", "magic"], "--against magic: unknown method; choose from hand-written"),
        (["--methods", "beam:x"], "--methods beam:x: give a number of draws after the colon"),
        (["--methods", "beam:0"], "names no method"),
        (["--methods", "vpt"], "feature pack only"),
        (["--shots", "1,two"], "--shots '1,two'"),
        (["--shots", "0"], "--shots '0'"),
        (["--shots", "90"], "90"),
        (["--figure", "out.gif"], "--figure out.gif: the file name must end in .png"),
        (["--figure", "no/such/out.png"], "the folder does not exist"),
        (["--csv", "no/such/out.csv"], "--csv no/such/out.csv: the folder does not exist"),
        (["--markdown", "no/such/out.md"], "--markdown no/such/out.md: the folder does not exist"),
        (["--ensemble", "0"], "--ensemble 0"),
        (
            ["--transfer", "pacs-sketch"],
            "--transfer pacs-sketch: no pictures, and its feature pack was made with another",
        ),
        (["--transfer", "cifar10"], "--transfer cifar10: its 10 classes are not the 4 of made ("),
        (["--transfer", "other", "--transfer", "other"], "--transfer other: already judged on"),
        (["--dataset", "nothing-there"], "nothing-there"),
    ],
)
def test_wrong_input_is_told_in_one_line(made: list[str], args: list[str], message: str) -> None:
    result = run([*made, *args], code=2)
    errors = result.stderr.strip().splitlines()
    assert message in errors[-1] and result.stdout == ""


def test_a_picture_without_matplotlib_is_refused_before_anything_is_computed(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    result = run([*made, "--figure", str(tmp_path / "a.png")], code=2)
    assert "pip install 'promptsearch[plots]'" in result.stderr and not (tmp_path / "home").exists()


def test_the_random_word_control_is_random_and_repeats_itself() -> None:
    vocabulary = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrst"] + ["ab", "Paris", "x1"]
    first, again, other = (random_templates(vocabulary, seed) for seed in (0, 0, 1))
    assert first == again != other and len(first) == len(set(first)) == 30
    assert all(t.startswith("a photo of a {}, which has ") and t.endswith(".") for t in first)
    said = {w for t in first[::2] for w in t.removeprefix("a photo of a {}, which has ").rstrip(".").split()}
    assert said <= set(vocabulary[:-3])


def test_a_collapsed_training_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Until one does not do worse on its own few shots than the hand-written prompt, or three did: then the best."""
    support = Split(np.eye(4, dtype=np.float32), np.arange(4), np.arange(4))
    task = SimpleNamespace(support=support, seed=0)
    evaluator = SimpleNamespace(score=lambda sets: [SimpleNamespace(accuracy=0.75)])
    setting = Setting(None, task, evaluator, None, print, Checkpoint(tmp_path / "cell.pt", "cell"), 5)  # type: ignore[arg-type]
    rolled = {n: np.roll(np.eye(4, dtype=np.float32), 1, axis=0) for n in range(4)}
    for n, weights in rolled.items():  # the first n classes are right
        weights[:n] = np.eye(4)[:n]

    def trained(*accuracies: int) -> tuple[float, list[int | None]]:
        seen, left = [], list(accuracies)

        def learn(setting: Setting, options: object) -> Trained:
            seen.append(setting.start)
            assert setting.checkpoint is not None and len({setting.checkpoint.path, tmp_path / "cell.pt"}) <= 2
            weights = np.eye(4, dtype=np.float32) if (n := left.pop(0)) == 4 else rolled[n]
            return Trained(Learned(weights, {}), Row("", weights))

        monkeypatch.setattr("promptsearch.runs.baselines.learners.learn_context", learn)
        found = learn_context_restarted(setting, CoOpOptions())
        return float((np.argmax(found.winner.weights, axis=0) == np.arange(4)).mean()), seen

    assert trained(4) == (1.0, [5])
    accuracy, starts = trained(1, 4)
    assert accuracy == 1.0 and starts[0] == 5 and len(set(starts)) == 2
    accuracy, starts = trained(0, 2, 1)
    assert accuracy == 0.5 and len(set(starts)) == 3


def test_pooled_intervals_cover() -> None:
    """Of 300 made comparisons over two sets of pictures, drawn from together."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        draws = rng.normal(0, 0.2, (5, 1))
        first = 0.3 + draws + rng.normal(0, 1.0, (1, 40)) + rng.normal(0, 1.0, (5, 40))
        second = 0.5 + draws + rng.normal(0, 0.5, (1, 80)) + rng.normal(0, 1.0, (5, 80))
        interval = pooled_interval([(0.25, first), (0.75, second)])
        held += interval.low <= 0.25 * 0.3 + 0.75 * 0.5 <= interval.high
    assert 0.93 <= held / 300 <= 1
    values = rng.normal(size=(3, 7))
    assert pooled_interval([(0.5, values), (0.5, values)]).value == pytest.approx(values.mean())


def test_intervals_hold_only_values_that_are_possible(whole: Whole) -> None:
    doc = whole.doc
    for row in [*doc["table"], *doc["overall"]]:
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
    gaps = [*doc["against"]["rows"], *(row["against"] for row in doc["overall"] if "against" in row)]
    for gap in gaps:
        assert -1 <= gap["low"] <= gap["difference"] <= gap["high"] <= 1
    # two draws, Student's t with one degree of freedom: without a limit intervals would reach further
    assert any(row["low"] == 0 for row in doc["table"])
    assert Interval(0.5, -2.0, 3.0).within(-1.0, 1.0) == Interval(0.5, -1.0, 1.0)


def test_intervals_over_draws_and_pictures_cover() -> None:
    """Of 300 made comparisons with draws and pictures as random effects, some 95 % of the intervals hold the mean."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        values = 0.3 + rng.normal(0, 0.2, (5, 1)) + rng.normal(0, 1.0, (1, 40)) + rng.normal(0, 1.0, (5, 40))
        interval = crossed_interval(values)
        held += interval.low <= 0.3 <= interval.high
    assert 0.93 <= held / 300 <= 1
    one = crossed_interval(np.array([[0.0, 1.0, 1.0, 0.0]]))
    assert one.value == 0.5 and one.high - one.low == pytest.approx(
        2 * 1.96 * np.std([0, 1, 1, 0], ddof=1) / 2, rel=1e-3
    )


def _flip(data: bytes) -> bytes:
    """One bit of a weight."""
    return data[:-5] + bytes([data[-5] ^ 0x40]) + data[-4:]


DAMAGE = {
    "a flipped bit": _flip,
    "a flipped bit of the header": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "a flipped length": lambda data: bytes([data[0] ^ 0xFF]) + data[1:],
    "truncated": lambda data: data[: len(data) // 2],
    "truncated in the header": lambda data: data[:20],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"x",
    "a web page": lambda data: b"<!doctype html><html></html>",
    "no checksum": lambda data: __import__("safetensors.numpy").numpy.save({"row 0": np.eye(4, 8, dtype=np.float32)}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cell_is_computed_again(made: list[str], tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    args = [*made, "--methods", "single,random", "--shots", "1", "--seeds", "1"]
    first = document(args)
    files = sorted((tmp_path / "home" / "learnt").rglob("*.safetensors"))
    assert len(files) == 4
    before = read_block(files[0]).arrays
    files[0].write_bytes(damage(files[0].read_bytes()))
    again = run([*args, "--json"])
    assert "is computed again" in again.stderr and str(files[0]) in again.stderr
    assert timeless(json.loads(again.stdout)) == timeless(first)
    after = read_block(files[0]).arrays
    assert after.keys() == before.keys() and all(np.array_equal(after[k], before[k]) for k in before)
    assert "computed again" not in run([*args, "--json"]).stderr


def test_the_file_of_another_cell_is_not_taken_for_it(made: list[str], tmp_path: Path) -> None:
    args = [*made, "--methods", "single,random", "--shots", "1", "--seeds", "1"]
    first = document(args)
    one, other, *_ = sorted((tmp_path / "home" / "learnt").rglob("*.safetensors"))
    one.write_bytes(other.read_bytes())
    again = run([*args, "--json"])
    assert "it holds the result of another cell" in again.stderr
    assert timeless(json.loads(again.stdout)) == timeless(first)
