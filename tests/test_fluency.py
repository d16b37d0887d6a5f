"""Fluency: how it is measured, as a part of every objective, and as an aim of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from made_problem import make_problem

from promptsearch.banks import Bank, PromptSet, Template, load_bank
from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, Score
from promptsearch.evaluators.fluency import Fluency
from promptsearch.search import EvolveSearch, Space, get_objective, of_options
from promptsearch.search.objective import with_fluency
from promptsearch.search.pareto import front, fronts, words


def by_length(texts: Sequence[str]) -> np.ndarray:
    """A log-likelihood that is easily checked: minus one for each character, over so many words."""
    return np.array([[-len(t), len(t.split())] for t in texts], float)


def test_fluency_is_the_mean_per_token_over_classes_and_templates(tmp_path: Path) -> None:
    fluency = Fluency(by_length, Cache(tmp_path), {"lm": "x"}, ["cat", "horse"])
    one, two = PromptSet.of("a {}"), PromptSet.of("a {}", "the big {}")
    got = fluency([one, two])
    assert got[0] == pytest.approx((-5 / 2 - 7 / 2) / 2)
    assert got[1] == pytest.approx((-5 / 2 - 7 / 2 - 11 / 3 - 13 / 3) / 4)
    assert fluency([]) == []


def test_what_was_rated_before_is_not_rated_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        calls.append(len(texts))
        return by_length(texts)

    for _ in range(2):  # the second from the cache on disk
        fluency = Fluency(counted, Cache(tmp_path), {"lm": "x"}, ["cat", "horse"])
        fluency([PromptSet.of("a {}"), PromptSet.of("a {}", "the {}")])
        fluency([PromptSet.of("the {}")])
    assert calls == [4]
    Fluency(counted, Cache(tmp_path), {"lm": "another"}, ["cat", "horse"])([PromptSet.of("a {}")])
    assert calls == [4, 2]


def test_the_weight_adds_to_any_objective() -> None:
    score = Score(0.75, 0.5, fluency=-2.0)
    assert with_fluency(get_objective("xent"), 0.1)(score) == (pytest.approx(-0.7),)
    assert with_fluency(get_objective("accuracy"), 0.1)(score) == (pytest.approx(0.55), -0.5)
    assert with_fluency(get_objective("xent"), 0.0) is get_objective("xent")
    assert of_options({"objective": "xent", "fluency_weight": 1.0})(score) == (pytest.approx(-2.5),)
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="--fluency-weight"):
            with_fluency(get_objective("xent"), weight)


points = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(points)
def test_nothing_beats_the_front_and_the_rest_is_beaten(values: list[tuple[int, ...]]) -> None:
    def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    kept = front(values)
    for i, v in enumerate(values):
        assert (i in kept) == (not any(beats(o, v) for o in values))
    number = fronts(values)
    assert [i for i, n in enumerate(number) if n == 0] == kept
    for i, v in enumerate(values):
        above = [n for o, n in zip(values, number, strict=True) if beats(o, v)]
        assert number[i] == (max(above) + 1 if above else 0)


def test_evolution_with_several_aims_keeps_the_front() -> None:
    bank = Bank("made", tuple(Template(f"wording {i} of a {'very ' * (i % 5)}{{}}.") for i in range(40)))
    searcher = EvolveSearch(Space(bank), get_objective("xent"), batch=4, population=8, pareto=True)
    told: dict[PromptSet, Score] = {}
    while searcher.trials < 40 and (batch := searcher.ask()):
        scored = [(s, Score(0.5, int(s.key, 16) % 97 / 97, int(s.key[:6], 16) % 89 / -89)) for s in batch]
        told.update(scored)
        searcher.tell(scored)
    every = list(told)
    kept = front([(-told[s].xent, told[s].fluency, -words(s)) for s in every])  # type: ignore[arg-type, list-item]
    best = {s for s, _ in searcher._now.best}
    assert len(best & {every[i] for i in kept}) >= min(len(kept), 8) - 1


@pytest.fixture
def bank(tmp_path: Path) -> str:
    """A bank whose prompts are encoded, and whose fluency is not rated yet."""
    path = tmp_path / "bank.txt"
    lines = ["a photo of a {}.", "a dark photo of a {}.", "zq {} xv", "a {} at night.", "a drawing of the {}."]
    path.write_text("\n".join(lines))
    make_problem(tmp_path / "cache", load_bank(str(path)).templates)
    return str(path)


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


MADE = ["--model", "tiny", "--dataset", "made", "--shots", "4", "--no-estimate"]


@pytest.mark.parametrize("command", ["beam", "random", "climb", "tpe", "evolve"])
def test_every_searcher_takes_a_weight(command: str, bank: str) -> None:
    options = [command, "--bank", bank, *MADE, "--json"]
    options += ["--trials", "5"] if command != "beam" else ["--depth", "1"]
    options += ["--proposer", "grammar", "--population", "5"] if command == "evolve" else []
    document = json.loads(run(*options, "--fluency-weight", "1000").stdout)
    rows = [document["winner"], *document["runners_up"]]
    by_fluency = sorted(rows, key=lambda r: -r["support"]["fluency"])
    assert rows == by_fluency and rows[-1]["templates"] == ["zq {} xv"]


def test_without_a_weight_nothing_is_rated(bank: str) -> None:
    document = json.loads(run("random", "--bank", bank, *MADE, "--trials", "4", "--json").stdout)
    assert document["winner"]["support"].keys() == {"accuracy", "xent"}


AIMED = {
    "beam": (["beam", "--width", "2", "--patience", "9", "--depth"], "1", "3"),
    "random": (["random", "--trials"], "7", "16"),
    "climb": (["climb", "--trials"], "7", "16"),
    "tpe": (["tpe", "--startup", "6", "--trials"], "7", "18"),
    "nsga2": (["tpe", "--sampler", "nsga2", "--trials"], "7", "18"),
    "evolve": (["evolve", "--proposer", "grammar", "--population", "4", "--trials"], "7", "16"),
}


@pytest.mark.parametrize("name", AIMED)
def test_several_aims_make_a_study_of_several_objectives_and_resume(name: str, tmp_path: Path) -> None:
    from promptsearch.runs import RunRecord

    path = tmp_path / "bank.yaml"
    path.write_text(
        "name: one\npatterns: ['[det] [quality] [medium] of a {}.']\nslots:\n  det: [a, the]\n"
        "  quality: ['', dark, very blurry]\n  medium: [photo, zq xv, picture]\n"
    )
    every = load_bank(str(path)).templates
    make_problem(tmp_path / "cache", every)
    command, part, total = AIMED[name]
    if name == "evolve":  # a bank of all there is: whatever is written is encoded already
        path = tmp_path / "all.txt"
        path.write_text("\n".join(every))
    options = [command[0], "--bank", str(path), *MADE, "--pareto", "--select", "none", "--no-estimate", *command[1:]]
    if name != "beam":  # by rounds: it resumes only what was cut off
        run(*options, part, "--study", "front")
    document = json.loads(run(*options, total, "--study", "front", "--json").stdout)
    study = RunRecord.load("front").study
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["xent", "fluency", "words"]
    shown = {tuple(r["templates"]) for r in document["front"]}
    assert shown == {tuple(t.user_attrs["templates"]) for t in study.best_trials} and len(shown) > 1
    assert all(r["words"] == sum(len(t.split()) for t in r["templates"]) for r in document["front"])
    whole = json.loads(run(*options, total, "--study", "whole", "--json").stdout)
    assert (whole["winner"], whole["front"]) == (document["winner"], document["front"])  # resumed as never cut off
    table = run(*options, total, "--study", "front").stdout
    assert "No other prompt set is better" in table and "nats/token" in table
    for what in ("show", "best", "export"):
        run("runs", what, "front")


def test_a_beam_keeps_the_front_of_all_that_it_scored(bank: str) -> None:
    options = ["--bank", bank, *MADE, "--pareto", "--select", "none", "--no-estimate", "--json"]
    narrow = json.loads(run("beam", *options, "--width", "1", "--depth", "1").stdout)
    every = json.loads(run("random", *options, "--trials", "5").stdout)
    assert narrow["front"] == every["front"] and len(narrow["front"]) > 1


def test_several_aims_reach_optunas_sampler() -> None:
    from promptsearch.search import TpeSearch

    bank = Bank("made", tuple(Template(f"wording {i} of a {'very ' * (i % 5)}{{}}.") for i in range(60)))
    told: dict[str, set[PromptSet]] = {}
    for sampler in ("tpe", "nsga2", "gp", "qmc", "random"):
        searcher = TpeSearch(Space(bank), get_objective("xent"), sampler=sampler, startup=5, pareto=True)
        most = 8 if sampler == "gp" else 30  # it takes its time
        while searcher.trials < most and (batch := searcher.ask()):
            searcher.tell([(s, Score(0.5, int(s.key, 16) % 97 / 97, len(str(s.templates[0])) / -9)) for s in batch])
        told[sampler] = set(searcher.known)
        assert len(searcher._study.directions) == 3 and len(told[sampler]) == most
    with pytest.raises(InputError, match="--sampler cmaes: supports a single aim"):
        TpeSearch(Space(bank), get_objective("xent"), sampler="cmaes", pareto=True)


def test_another_weight_is_another_run(bank: str) -> None:
    options = ["random", "--bank", bank, *MADE, "--trials", "3", "--study", "mine"]
    run(*options, "--fluency-weight", "0.1")
    assert "fluency weight 0.1 (now 0.2)" in run(*options, "--fluency-weight", "0.2", code=2).stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--fluency-weight", "-1"], "--fluency-weight -1"),
        (["--fluency-weight", "much"], "not a valid float"),
        (["--pareto", "--fluency-lm", "./nowhere"], "--fluency-lm ./nowhere: no such folder"),
    ],
)
def test_bad_options(args: list[str], message: str, bank: str) -> None:
    assert message in run("random", "--bank", bank, *MADE, *args, code=2).stderr


def test_a_rated_run_whose_fluency_is_cached_imports_no_torch(bank: str) -> None:
    import os
    import subprocess
    import sys

    options: list[Any] = ["random", "--bank", bank, *MADE, "--trials", "5", "--fluency-weight", "1"]
    run(*options)
    code = (
        "import sys\nfrom promptsearch.cli import main\n"
        f"main({[*options, '--study', 'again', '--quiet']!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'datasets') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_objective_with_fluency_can_be_copied_and_pickled() -> None:
    import copy
    import pickle

    fluent = of_options({"objective": "accuracy", "fluency_weight": 0.5})
    score = Score(accuracy=0.5, xent=1.0, fluency=-2.0)
    for other in (copy.copy(fluent), copy.deepcopy(fluent), pickle.loads(pickle.dumps(fluent))):
        assert other == fluent and other(score) == fluent(score) == (pytest.approx(-0.5), -1.0)
    assert (fluent.name, fluent.figure, fluent.labels) == ("accuracy", "accuracy", True)


@pytest.mark.parametrize("options", [{"pareto": True}, {"fluency_weight": 1.0}])
def test_a_search_for_fluency_without_a_language_model_says_what_it_needs(options: dict[str, Any]) -> None:
    from promptsearch.search import build_searcher

    beam = {"width": 2, "depth": 2, "patience": 1, "objective": "xent"}
    searcher = build_searcher("beam", Bank.of("two", ["a {}.", "the {}."]), {**beam, **options})
    batch = searcher.ask()
    with pytest.raises(InputError, match="the scores have no fluency; give the evaluator a language model"):
        searcher.tell([(s, Score(0.5, 1.0)) for s in batch])
