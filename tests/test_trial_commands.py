"""The searches by trials through the command line, and what can be done with the runs that are kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from trial_runs import PROBLEM, document, prepare, recorded, run

from promptsearch.banks import BASELINE, load_bank
from promptsearch.evaluators import Problem

SEARCHES = ("tpe", "random", "climb")


@pytest.fixture
def bank(tmp_path: Path) -> str:
    return prepare(tmp_path)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def given(command: str, bank: str, db: Path, trials: int = 12, study: str = "r") -> list[str]:
    options = ["--bank", bank, "--storage", str(db), "--trials", str(trials), "--study", study]
    return [command, *PROBLEM, *options]


@pytest.mark.parametrize("command", SEARCHES)
def test_a_search_finds_records_and_reports(command: str, bank: str, db: Path) -> None:
    doc = document(*given(command, bank, db))
    assert {"model", "dataset", "shots", "seed", "run", "evaluations", "seconds", "winner", "runners_up"} <= doc.keys()
    assert doc["command"] == command and doc["run"]["trials"] == 12 and doc["run"]["ended"] == "trials"
    trials = recorded("r", db)
    assert [n for n, _, _ in trials] == list(range(12))
    assert trials[0][1] == (str(BASELINE),)  # the hand-written prompt is always tried
    assert doc["winner"]["support"]["xent"] == pytest.approx(min(x for _, _, x in trials), abs=1e-6)
    assert doc["evaluations"] == len({t for _, t, _ in trials})
    assert run(*given(command, bank, db)).stdout  # the same command shows it as a table
    assert document(*given(command, bank, db)) == doc


@pytest.mark.parametrize("command", SEARCHES)
def test_trials_are_totals_and_going_on_equals_no_interruption(command: str, bank: str, db: Path) -> None:
    document(*given(command, bank, db, 5, "cut"))
    document(*given(command, bank, db, 11, "cut"))
    cut = document(*given(command, bank, db, 17, "cut"))
    whole = document(*given(command, bank, db, 17, "whole"))
    assert recorded("cut", db) == recorded("whole", db)
    assert cut["winner"] == whole["winner"]
    assert document(*given(command, bank, db, 9, "cut"))["winner"] == cut["winner"]  # fewer: nothing is lost
    assert len(recorded("cut", db)) == 17


def test_ensembles(bank: str, db: Path) -> None:
    for command in SEARCHES:
        document(*given(command, bank, db, 24, command), "--ensemble", "3")
        sizes = {len(t) for _, t, _ in recorded(command, db)}
        assert len(sizes) > 1 and sizes <= {1, 2, 3}


def test_an_exhausted_bank_ends_the_search(tmp_path: Path, db: Path) -> None:
    prepare(tmp_path)
    small = tmp_path / "two.txt"
    small.write_text("a dark picture of a {}.\nthe {}.\n")
    for command in SEARCHES:
        doc = document(*given(command, str(small), db, 50, command))
        assert doc["run"]["ended"] == "exhausted" and doc["run"]["trials"] == 3  # with the hand-written one
        assert document(*given(command, str(small), db, 80, command)) == doc


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "qmc", "cmaes"])
def test_samplers(sampler: str, bank: str, db: Path) -> None:
    own = ["--sampler", sampler, "--startup", "5"]
    first = document(*given("tpe", bank, db, 8, "cut"), *own)
    assert first["run"]["trials"] == 8
    document(*given("tpe", bank, db, 14, "cut"), *own)
    document(*given("tpe", bank, db, 14, "whole"), *own)
    assert recorded("cut", db) == recorded("whole", db)


def test_gp_over_one_pattern(tmp_path: Path, db: Path) -> None:
    prepare(tmp_path)
    one = tmp_path / "one.yaml"
    one.write_text('patterns: ["[det] {}[context]."]\nslots: {det: [the, my, one], context: ["", " at night"]}\n')
    doc = document(*given("tpe", str(one), db, 6), "--sampler", "gp", "--startup", "3", "--batch", "2")
    assert doc["run"]["trials"] == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sampler", "annealing"], "--sampler annealing: choose from tpe, random, gp, nsga2, qmc, cmaes"),
        (["--sampler", "gp"], "a Gaussian process needs the same slots"),
        (["--sampler", "qmc", "--bank", "templates"], "at most 256"),
        (["--startup", "0"], "--startup 0: must be at least 1"),
        (["--batch", "0"], "--batch 0: must be at least 1"),
        (["--ensemble", "0"], "--ensemble 0: must be at least 1"),
        (["--trials", "0"], "0 is not in the range x>=1"),
        (["--timeout", "0"], "0.0 is not in the range x>0"),
        (["--enqueue", "nowhere.txt"], "nowhere.txt"),
        (["--objective", "f1"], "f1"),
        (["--seed", "-1"], "-1"),
        (["--fork", "other", "--study", "nothing-yet"], "does not exist; a search"),
    ],
)
def test_bad_options(bank: str, db: Path, args: list[str], message: str) -> None:
    run("runs", "list", "--storage", db, code=2)  # nothing there yet
    assert message in run(*given("tpe", bank, db), *args, code=2).stderr


def test_enqueued_templates_are_tried_first(bank: str, tmp_path: Path, db: Path) -> None:
    first = tmp_path / "first.txt"
    first.write_text("my {} at night.\nthe {}.\n")
    for command in SEARCHES:
        document(*given(command, bank, db, 6, command), "--enqueue", first)
        tried = [t for _, t, _ in recorded(command, db)][:3]
        assert tried == [(str(BASELINE),), ("my {} at night.",), ("the {}.",)]
        error = run(*given(command, bank, db, 6, command), code=2).stderr  # another run without them
        assert "enqueued" in error


def test_a_timeout_stops_and_the_same_command_goes_on(bank: str, db: Path) -> None:
    first = document(*given("random", bank, db, 40), "--timeout", "0.000001", "--batch", "4")
    assert first["run"]["ended"] == "timeout" and 0 < first["run"]["trials"] < 40
    assert document(*given("random", bank, db, 40), "--batch", "4")["run"]["trials"] == 40


def test_a_changed_run_is_refused_with_the_difference_named(bank: str, tmp_path: Path, db: Path) -> None:
    document(*given("tpe", bank, db, 4))
    other = tmp_path / "other.txt"
    other.write_text("the {}.\nmy {}.\n")
    for args, named in {
        ("--shots", "2"): "shots 4 (now 2)",
        ("--seed", "1"): "seed 0 (now 1)",
        ("--bank", str(other)): "bank 'small' (now 'other')",
        ("--objective", "accuracy"): "objective 'xent' (now 'accuracy')",
        ("--startup", "3"): "startup 20 (now 3)",
    }.items():
        error = run(*given("tpe", bank, db, 4), *args, code=2).stderr
        assert named in error and "--fork" in error and "--study" in error
    assert "command 'tpe' (now 'climb')" in run(*given("climb", bank, db, 4), code=2).stderr
    assert len(recorded("r", db)) == 4


def test_other_pictures_or_another_model_are_refused(bank: str, tmp_path: Path, db: Path) -> None:
    from made_problem import make_problem

    document(*given("tpe", bank, db, 4))
    make_problem(tmp_path / "cache", load_bank(bank).templates, seed=1)  # other pictures under the same name
    for command in (given("tpe", bank, db, 8), ["worker", "--study", "r", "--storage", db]):
        assert "data fingerprint" in run(*command, code=2).stderr
    assert "data fingerprint" in run("runs", "resume", "r", "--storage", db, "--trials", "8", code=2).stderr


def test_a_fork_begins_with_the_best_of_a_run(bank: str, db: Path) -> None:
    old = document(*given("random", bank, db, 15))
    doc = document(*given("climb", bank, db, 20), "--seed", "1", "--fork", "branch")
    assert doc["run"]["study"] == "branch"
    started = [t for _, t, _ in recorded("branch", db)][:11]
    assert started[0] == (str(BASELINE),) and tuple(old["winner"]["templates"]) in started
    best = sorted(recorded("r", db), key=lambda r: r[2])[:10]
    assert {t for _, t, _ in best} <= set(started)
    assert len(recorded("r", db)) == 15  # the old one is as it was
    again = document(*given("climb", bank, db, 20), "--seed", "1", "--fork", "branch")
    assert again == doc  # the same command resumes the fork


def test_runs_list_show_best_export_delete(bank: str, tmp_path: Path, db: Path) -> None:
    doc = document(*given("tpe", bank, db))
    keep = ["--storage", db]
    rows = document("runs", "list", *keep)
    assert [(r["study"], r["command"], r["state"], r["trials"]) for r in rows] == [("r", "tpe", "finished", 12)]
    assert "finished" in run("runs", "list", *keep).stdout
    assert document("runs", "show", "r", *keep) == doc
    assert "hand-written" in run("runs", "show", "r", *keep).stdout

    text = run("runs", "best", "r", *keep).stdout
    assert text.splitlines() == doc["winner"]["templates"]
    best = tmp_path / "best.txt"
    best.write_text(text)
    assert [str(t) for t in load_bank(str(best))] == doc["winner"]["templates"]  # ready to be a bank
    assert document("runs", "best", "r", *keep)["templates"] == doc["winner"]["templates"]

    table = list(csv.DictReader(io.StringIO(run("runs", "export", "r", *keep).stdout)))
    assert [int(r["number"]) for r in table] == list(range(12)) and table[0]["templates"] == str(BASELINE)
    out = tmp_path / "trials.json"
    run("runs", "export", "r", *keep, "--json", "--out", out)
    assert len(json.loads(out.read_text())["trials"]) == 12
    assert "cannot be written" in run("runs", "export", "r", *keep, "--out", tmp_path / "no" / "f", code=2).stderr

    assert "--yes" in run("runs", "delete", "r", *keep, "--json", code=2).stderr
    assert document("runs", "delete", "r", "--yes", *keep) == {"deleted": "r", "trials": 12}
    assert document("runs", "list", *keep) == []
    assert "no run 'r'" in run("runs", "show", "r", *keep, code=2).stderr


def test_resume_by_name_needs_nothing_else(bank: str, db: Path) -> None:
    for command in SEARCHES:
        document(*given(command, bank, db, 6, f"{command} cut"))
        Path(bank).rename(f"{bank}.away")  # everything is in the study
        doc = document("runs", "resume", f"{command} cut", "--storage", db, "--trials", "14")
        Path(f"{bank}.away").rename(bank)
        whole = document(*given(command, bank, db, 14, f"{command} whole"))
        assert recorded(f"{command} cut", db) == recorded(f"{command} whole", db)
        assert doc["winner"] == whole["winner"] and doc["run"]["trials"] == 14


def test_what_this_machine_gives_to_a_run(bank: str, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document(*given("random", bank, db, 6))
    given_to: list[tuple[int | None, int | None]] = []
    there = Problem.evaluator

    def seen(self: Problem, *args: Any) -> Any:
        given_to.append((self.memory, self.encoder.batch))
        return there(self, *args)

    monkeypatch.setattr(Problem, "evaluator", seen)
    little = ["--storage", db, "--memory", "3MB", "--encode-batch", "5"]
    document("runs", "resume", "r", *little, "--trials", "10")
    document("worker", "--study", "r", *little)
    assert set(given_to) == {(3 << 20, 5)} and len(given_to) == 2
    assert len(recorded("r", db)) == 10


def test_a_finished_run_resumes_to_its_result(bank: str, db: Path) -> None:
    doc = document(*given("tpe", bank, db))
    assert document("runs", "resume", "r", "--storage", db) == doc
    assert "winner" in run("runs", "resume", "r", "--storage", db).stdout


def test_a_comparison_has_no_winner_and_says_what_to_do(bank: str, db: Path) -> None:
    where = ["--storage", db]
    problem = ["--model", "tiny", "--dataset", "made", "--bank", bank, "--shots", "1", "--seeds", "1"]
    run("compare", *problem, *where, "--study", "c", "--methods", "hand-written,single")
    asked = ("runs best c", "runs export c", "runs resume c", "export c --to bank")
    for args in asked:
        error = run(*args.split(), *where, code=2).stderr
        assert "'c' is a comparison and has no winner; show it with `promptsearch runs show c`" in error
        assert "--csv" in error
    assert "made by compare" in run("worker", "--study", "c", *where, code=2).stderr
    assert "single" in run("runs", "show", "c", *where).stdout
    assert document("runs", "list", *where)[0]["command"] == "compare"
    run("runs", "delete", "c", "--yes", *where)


def test_an_unfinished_run_is_shown_with_its_best_so_far(bank: str, db: Path) -> None:
    from promptsearch.runs import RunRecord

    doc = document(*given("random", bank, db, 6))
    RunRecord.load("r", str(db)).set("result", None)
    shown = document("runs", "show", "r", "--storage", db)
    assert shown["state"] == "unfinished" and shown["best"]["templates"] == doc["winner"]["templates"]
    text = run("runs", "show", "r", "--storage", db).stdout
    assert "r: unfinished, 6 trials" in text and f"best so far: {doc['winner']['templates'][0]}" in text


def test_names_cannot_command_a_terminal(bank: str, db: Path) -> None:
    evil = "evil\x1b[31m\nred \u202e[bold]x[/bold]"
    searched = run(*given("random", bank, db, 4, evil))
    outputs = [searched.stdout, searched.stderr]
    for args in (["list"], ["show", evil], ["resume", evil], ["delete", evil, "--yes"]):
        outputs.append(run("runs", *args, "--storage", db).stdout)
    assert all("\x1b" not in text and "\u202e" not in text for text in outputs)
    assert all("[bold]x[/bold]" in text for text in (outputs[0], outputs[2], outputs[-1]))
    error = run("runs", "show", "gone\x1b[2J", "--storage", db, code=2).stderr
    assert "no run" in error and "\x1b" not in error


def test_a_run_without_a_trial_says_so(bank: str, db: Path) -> None:
    import optuna

    from promptsearch.runs import RunRecord

    document(*given("tpe", bank, db))
    config = RunRecord.load("r", str(db)).config
    RunRecord.open("empty", str(db), config, {})
    assert "no scored trial yet" in run("runs", "best", "empty", "--storage", db, code=2).stderr
    assert document("runs", "show", "empty", "--storage", db)["trials"] == 0
    assert document("runs", "export", "empty", "--storage", db)["trials"] == []
    assert "has no stored bank yet" in run("runs", "resume", "empty", "--storage", db, code=2).stderr
    assert optuna.get_all_study_names(f"sqlite:///{db}") == ["r", "empty"]


def test_old_studies_are_read_and_resumed(bank: str, db: Path) -> None:
    """A configuration is stored as earlier versions did, and one that lacks an objective goes by the default."""
    from promptsearch.config import FluencyConfig, RunConfig, WriterConfig
    from promptsearch.runs import RunRecord

    stored = {
        "command": "evolve", "model": "tiny", "model fingerprint": "m", "precision": "fp32", "dataset": "made",
        "data fingerprint": "d", "bank": "b", "bank hash": "h", "shots": 0, "seed": 3, "unlabelled": 50,
        "select": "none", "ensemble": 2, "population": 4, "objective": "zpe", "fluency lm": "embedded",
        "fluency lm fingerprint": "f", "fluency weight": 0.5, "pareto": True, "lm": "embedded", "lm fingerprint": "l",
        "temperature": 0.7, "top p": 0.9, "enqueued": "e",
    }  # fmt: skip
    config = RunConfig.from_dict(stored)
    assert config.to_dict() == stored
    assert config.search.fluency == FluencyConfig("embedded", "f", 0.5, True)
    assert config.search.writer == WriterConfig("embedded", "l", None, 0.7, 0.9)
    assert config.search.options == {"ensemble": 2, "population": 4, "enqueued": "e"}
    assert config.search.builder_options()["fluency_weight"] == 0.5
    coop = {**{k: stored[k] for k in list(stored)[:6]}, "shots": 1, "seed": 0, "bank": None, "bank hash": None}
    coop |= {"command": "coop", "objective": "xent", "epochs": 50, "pictures fingerprint": "p"}
    assert RunConfig.from_dict(coop).to_dict() == coop
    bare = RunRecord.open("bare", str(db), RunConfig.from_dict({"command": "tpe"}), {})
    assert bare.config.search.objective == "xent" and bare.study.direction.name == "MINIMIZE"
