"""Plug-ins: a complete package is installed by pip and run; a broken one is named and spoils nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_problem import make_problem

from promptsearch import plugins
from promptsearch.banks import load_bank
from promptsearch.cli import main
from promptsearch.runs import RunRecord
from promptsearch.score import Score
from promptsearch.search import SEARCHERS, get_objective

ROOT = Path(__file__).resolve().parent.parent
BROKEN = "".join(f"[promptsearch.{kind}]\nbad = broken_plugin:thing\n" for kind in plugins.KINDS if kind != "banks")
BROKEN += "[promptsearch.banks]\nbad = broken_plugin:bank\ntemplates = broken_plugin:bank\nodd = odd_plugin:bank\n"


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def example(example_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example installed, as far as this process sees; returns the folder."""
    monkeypatch.syspath_prepend(str(example_site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    plugins.found.cache_clear()
    yield example_site
    plugins.found.cache_clear()


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package whose module raises, one that takes our name, and one that returns no bank."""
    site = tmp_path / "broken"
    info = site / "broken_plugin-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "broken_plugin.py").write_text("raise RuntimeError('no luck\\nat all')\n")
    (site / "odd_plugin.py").write_text("def bank():\n    return ['a {}.']\n")
    monkeypatch.syspath_prepend(str(site))
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()


def test_what_comes_with_promptsearch_is_listed_and_loads() -> None:
    plugins.found.cache_clear()
    document = json.loads(run("plugins", "--json").stdout)
    ours = [p for p in document["plugins"] if p["package"] == "promptsearch"]
    assert {p["kind"] for p in ours} == set(plugins.KINDS) and not any(p["error"] for p in ours)
    assert {p["name"] for p in ours if p["kind"] == "searchers"} == {"beam", "random", "climb", "tpe", "evolve"}
    assert {"accuracy", "xent"} <= {p["name"] for p in ours if p["kind"] == "objectives"}


def test_the_example_is_listed_with_its_package(example: Path) -> None:
    text = run("plugins").stdout
    for name in ("example", "two-colours", "careful", "closer", "short-first"):
        assert re.search(rf"^  {name} +promptsearch-example 1.0$", text, re.M), text
    assert "seven sentences" in run("banks", "list").stdout
    assert len(load_bank("example")) == 7
    assert get_objective("careful")(Score(0.9, 0.5)) == (pytest.approx(0.85),)


def test_a_searcher_and_an_objective_of_a_plug_in(example: Path, tmp_path: Path) -> None:
    make_problem(tmp_path / "cache", load_bank("example").templates)
    common = ["--bank", "example", "--objective", "careful", "--model", "tiny", "--dataset", "made", "--shots", "4"]
    args = ["search", "short-first", *common, "--set", "longest=6", "--study", "mine", "--json"]
    args += ["--select", "none", "--no-estimate"]
    first = json.loads(run(*args, "--trials", "3").stdout)
    assert first["command"] == "short-first" and first["evaluations"] == 3
    doc = json.loads(run(*args, "--trials", "5").stdout)
    tried = [s.templates[0] for s, _ in RunRecord.load("mine").trials()]
    short = ["a {}.", "a sketch of a {}.", "a close photo of a {}.", "an old photo of a {}."]
    assert tried == ["a photo of a {}.", *short]
    scores = RunRecord.load("mine").trials()
    best = max(scores, key=lambda r: r[1].accuracy - 0.1 * r[1].xent)[0]
    assert doc["winner"]["templates"] == list(best.templates)
    resumed = json.loads(run("runs", "resume", "mine", "--json").stdout)
    assert resumed["winner"] == doc["winner"]
    assert "longest has" not in run("runs", "show", "mine").stdout
    error = run("search", "short-first", *common, "--set", "tallest=6", code=2).stderr
    assert "tallest" in error and "longest" in error
    assert "2 or more" in run("search", "short-first", *common, "--set", "longest=1", code=2).stderr
    assert "NAME=VALUE" in run("search", "short-first", *common, "--set", "longest", code=2).stderr


def test_a_proposer_and_a_data_set_of_a_plug_in(example: Path) -> None:
    args = "evolve --proposer closer --bank example --dataset two-colours --model tiny --shots 2 --trials 12 --json"
    doc = json.loads(run(*args.split(), "--population", "2", "--offspring", "2", "--study", "bred").stdout)
    assert doc["dataset"] == "two-colours" and doc["test_pictures"] == 12
    tried = [str(t) for s, _ in RunRecord.load("bred").trials() for t in s.templates]
    assert any(t.startswith(("a close look at", "a far view of", "a cropped", "a bright")) for t in tried), tried


def test_a_plug_in_that_raises_is_named_and_skipped(broken: None) -> None:
    listed = run("plugins")
    assert "bad" in listed.stdout and "(left out)" in listed.stdout
    assert "'bad' (banks) of broken-plugin 2.0" in listed.stderr and "no luck" in listed.stderr
    shadowed = "'templates' (banks) of broken-plugin 2.0 is ignored, because promptsearch has one of this name"
    assert shadowed in listed.stderr
    banks = run("banks", "list")
    assert "templates" in banks.stdout and "Warning: plug-in 'bad'" in banks.stderr
    assert load_bank("templates").source == "promptsearch/banks/templates.txt"
    error = run("banks", "show", "bad", code=1).stderr
    assert "broken-plugin 2.0" in error and len(error.splitlines()) == 1
    assert "must return a Bank" in run("banks", "show", "odd", code=1).stderr
    assert "beam" in SEARCHERS and callable(SEARCHERS["beam"])


@pytest.mark.parametrize(
    "args",
    [
        ["beam", "--bank", "bad"],
        ["beam", "--objective", "bad"],
        ["random", "--dataset", "bad"],
        ["search", "bad"],
        ["evolve", "--proposer", "bad"],
    ],
)
def test_a_plug_in_of_any_kind_that_raises_is_one_line_where_it_is_named(broken: None, args: list[str]) -> None:
    error = run(*args, "--model", "tiny", code=1).stderr
    assert "of broken-plugin 2.0 cannot be loaded (RuntimeError: no luck)" in error and error.count("\n") == 1


def test_a_comparison_leaves_a_broken_searcher_out(broken: None, tmp_path: Path) -> None:
    make_problem(tmp_path / "cache", ["a {}."])
    (tmp_path / "bank.txt").write_text("a {}.\n")
    args = ["--model", "tiny", "--dataset", "made", "--methods", "hand-written", "--shots", "2", "--seeds", "1"]
    done = run("compare", *args, "--bank", str(tmp_path / "bank.txt"), "--json")
    assert json.loads(done.stdout)["table"] and "Warning: plug-in 'bad' (searchers)" in done.stderr


def test_unknown_names_say_what_there_is() -> None:
    assert "has its own command" in run("search", "beam", code=2).stderr
    assert "installed: none" in run("search", "nobody", code=2).stderr
    assert "choose from fill, grammar, lm" in run("evolve", "--proposer", "nobody", code=2).stderr
    assert "cifar100" in run("random", "--dataset", "nothing-there", "--model", "tiny", code=2).stderr
