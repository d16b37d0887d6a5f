"""Many processes at one run: nothing lost, nothing twice, and what a dead one had in hand is done by others."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from trial_runs import PROBLEM, document, prepare, recorded, run, start, wait_for_trials

from promptsearch.banks import PromptSet
from promptsearch.config import RunConfig
from promptsearch.evaluators import Score
from promptsearch.runs import Budget, RunRecord, Sharing
from promptsearch.search import RandomSearch, Space, get_objective

TOTAL = 40


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


def begin(tmp_path: Path, storage: str, trials: int = 2, command: str = "random") -> list[str]:
    options = ["--bank", prepare(tmp_path), "--storage", storage, "--study", "r", "--batch", "2", "--ensemble", "2"]
    args = [command, *PROBLEM, *options, "--trials"]
    document(*args, trials)
    return args


def test_four_workers_share_a_run(tmp_path: Path, storage: str) -> None:
    args = begin(tmp_path, storage)
    RunRecord.load("r", storage).set("budget", {"trials": TOTAL})
    workers = [start("worker", "--study", "r", "--storage", storage, "--json") for _ in range(4)]
    outputs = [w.communicate(timeout=240) for w in workers]
    assert [w.returncode for w in workers] == [0] * 4, outputs
    assert all(not err for _, err in outputs)  # no "database is locked", nor anything else
    summaries = [json.loads(out) for out, _ in outputs]
    trials = recorded("r", storage)
    assert [n for n, _, _ in trials] == list(range(TOTAL))
    assert sum(s["scored"] for s in summaries) == TOTAL - 2
    assert len({t for _, t, _ in trials}) == TOTAL  # random search draws nothing twice, whoever draws
    assert document("runs", "show", "r", "--storage", storage)["state"] == "unfinished"  # its result is of two trials
    doc = document(*args, TOTAL)
    assert doc["run"]["trials"] == TOTAL and doc["run"]["ended"] == "trials"
    assert doc["winner"]["support"]["xent"] == pytest.approx(min(x for _, _, x in trials), abs=1e-6)


def test_the_trials_of_a_killed_worker_are_done_by_another(tmp_path: Path) -> None:
    storage = tmp_path / "runs.db"
    args = begin(tmp_path, str(storage), command="tpe")
    RunRecord.load("r", str(storage)).set("budget", {"trials": TOTAL})
    victim = start("worker", "--study", "r", "--storage", storage)
    wait_for_trials(storage, 6, victim)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=240)
    assert victim.returncode == -signal.SIGKILL
    doc = document(*args, TOTAL)
    assert doc["run"]["trials"] == TOTAL
    assert [n for n, _, _ in recorded("r", storage)] == list(range(TOTAL))


class Made:
    """Scores out of the sets' keys."""

    task = SimpleNamespace(labelled=True)

    def score(self, sets: list[PromptSet]) -> list[Score]:
        return [Score(0.5, int(s.key[:6], 16) / 1e6) for s in sets]


def test_a_trial_whose_heartbeat_stopped_elsewhere_is_failed_and_tried_again(tmp_path: Path, storage: str) -> None:
    """As Optuna does it: the worker of another machine cannot be looked for, but its heartbeat can."""
    import sqlalchemy
    from optuna.trial import TrialState

    from promptsearch.runs.store.trial_claims import Claims

    begin(tmp_path, storage)
    record = RunRecord.load("r", storage)
    from promptsearch.runs import restore_bank
    from promptsearch.search import build_searcher

    config = record.config.search
    searcher = build_searcher(config.searcher, restore_bank(record), config.builder_options())
    assert isinstance(searcher, RandomSearch)
    lost = PromptSet.of("the {} at night.")
    claims = Claims(record, worker=7)
    claims.owner = "another-machine#1#1"
    (held,) = claims.take([lost], 2, 10, searcher)
    with record.storage.engine.begin() as db:
        old = datetime.now() - timedelta(hours=30)
        db.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = :old"), {"old": old})
    reason = Sharing(searcher, Made(), record, Budget(6)).run()  # type: ignore[arg-type]
    assert reason == "trials"
    trials = record.all_trials()
    assert len(trials) == 6 and held.number not in [t.number for t in trials]
    assert [t.prompt_set for t in trials].count(lost) == 1
    assert record.study.trials[held.number].state == TrialState.FAIL


def test_a_worker_whose_trial_was_given_away_does_not_write_it(tmp_path: Path) -> None:
    from promptsearch.runs.store import optuna_rows as rows
    from promptsearch.runs.store.trial_claims import Claims

    record = RunRecord.open("r", str(tmp_path / "runs.db"), RunConfig.from_dict({"objective": "xent"}), {})
    from promptsearch.banks import Bank

    searcher = RandomSearch(Space(Bank.of("made", ["a {}.", "the {}."])), get_objective("xent"))
    claims = Claims(record)
    (trial,) = claims.take(searcher.ask(), 0, 5, searcher)
    claims.finish([(trial, Score(0.5, 1.0))])
    assert not rows.complete(record.storage, {trial.trial_id: ([2.0], {"xent": 2.0})})
    claims.finish([(trial, Score(0.5, 2.0))])
    assert [t.score for t in record.all_trials(anew=True)] == [Score(0.5, 1.0)]
    assert [t.score for t in record.all_trials()] == [Score(0.5, 1.0)]


def test_what_others_did_is_seen_although_trials_are_read_only_where_they_changed(tmp_path: Path, storage: str) -> None:
    from promptsearch.banks import Bank
    from promptsearch.runs.store.trial_claims import Claims

    one = RunRecord.open("r", storage, RunConfig.from_dict({"objective": "xent"}), {})
    other = RunRecord.load("r", storage)
    searcher = RandomSearch(Space(Bank.of("made", [f"a {{}} {i}." for i in range(9)])), get_objective("xent"), batch=2)
    here, there = Claims(one), Claims(other, worker=1)
    one.all_trials(), other.all_trials()
    batch = searcher.ask()
    (mine,) = here.take(batch[:1], 0, 4, searcher)
    (theirs,) = there.take(batch, 0, 4, searcher)  # the first was taken since it looked
    assert theirs.prompt_set == batch[1] and theirs.number == 1
    there.finish([(theirs, Score(0.5, 1.0))])
    here.finish([(mine, Score(0.5, 2.0))])
    for record in (one, other, RunRecord.load("r", storage)):
        assert [(t.number, t.score and t.score.xent) for t in record.all_trials()] == [(0, 2.0), (1, 1.0)]
    assert len(here.take(searcher._unseen(searcher.rng(), set(batch), 5), 2, 4, searcher)) == 2  # the total is four


def test_a_run_by_rounds_cannot_be_joined(tmp_path: Path) -> None:
    bank, storage = prepare(tmp_path), tmp_path / "runs.db"
    document("beam", *PROBLEM, "--bank", bank, "--storage", storage, "--study", "b", "--depth", "1")
    error = run("worker", "--study", "b", "--storage", storage, code=2).stderr
    assert "beam works in rounds in one process" in error
    assert "no run 'x'" in run("worker", "--study", "x", "--storage", storage, "--wait", "0", code=2).stderr


def test_a_worker_ends_at_once_where_all_is_done(tmp_path: Path) -> None:
    storage = tmp_path / "runs.db"
    begin(tmp_path, str(storage), 4)
    done = document("worker", "--study", "r", "--storage", storage)
    assert (done["scored"], done["trials"], done["ended"]) == (0, 4, "trials")
    assert "runs resume r" in run("worker", "--study", "r", "--storage", storage).stdout
