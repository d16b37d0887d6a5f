"""Optuna's tables: what `optuna_rows` writes is what the installed version of Optuna itself writes and reads.

CONTRIBUTING says how to run this file against other versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sql
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from promptsearch.runs.store.optuna_rows import NewTrial, complete, counts, create_study, insert

ATTRS = {
    "prompt_set": {"templates": ["a photo of a {}."]},
    "accuracy": 0.5,
    "name": "é “x”",
    "none": None,
    "many": [1, 2],
}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "slot": CategoricalDistribution(["a", None, "c"]),
    "k": IntDistribution(1, 9, step=2),
    "w": FloatDistribution(1e-3, 1.0, log=True),
}
PARAMS: dict[str, Any] = {"slot": None, "k": 5, "w": 0.25}
DIRECTIONS = [["minimize"], ["maximize", "minimize"]]
#: Filled in by the database or the clock.
BY_CHANCE = {"datetime_start", "datetime_complete", "heartbeat", "study_id", "trial_id"}


@pytest.fixture(params=DIRECTIONS, ids=["one aim", "two aims"])
def directions(request: pytest.FixtureRequest) -> list[str]:
    return request.param


def opened(path: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{path}")


def by_optuna(path: Path, directions: list[str], trials: list[NewTrial]) -> RDBStorage:
    """The same study and trials, written through Optuna's public functions."""
    storage = opened(path)
    study = optuna.create_study(study_name="one", storage=storage, directions=directions)
    for key, value in ATTRS.items():
        study.set_user_attr(key, value)
    if len(directions) > 1:
        study.set_metric_names([str(i) for i in range(len(directions))])
    for new in trials:
        state = TrialState.RUNNING if new.values is None else TrialState.COMPLETE
        parts = {"params": dict(new.params), "distributions": dict(new.distributions), "user_attrs": dict(new.attrs)}
        study.add_trial(create_trial(state=state, values=new.values and list(new.values), **parts))
    return storage


def by_us(path: Path, directions: list[str], trials: list[NewTrial]) -> RDBStorage:
    storage = opened(path)
    names = [str(i) for i in range(len(directions))] if len(directions) > 1 else ()
    create_study(storage, "one", directions, ATTRS, names)
    insert(storage, storage.get_study_id_from_name("one"), trials, 0)
    return storage


def rows(storage: RDBStorage) -> dict[str, list[tuple[Any, ...]]]:
    """The cells of every table but those that the clock or the database fills in."""
    tables = sql.MetaData()
    tables.reflect(storage.engine)
    found = {}
    with storage.engine.connect() as connection:
        for name, table in tables.tables.items():
            kept = [c for c in table.columns if c.name not in BY_CHANCE and not c.primary_key]
            found[name] = sorted(map(tuple, connection.execute(sql.select(*kept)).all()), key=repr) if kept else []
    return found


def trials_for(directions: list[str]) -> list[NewTrial]:
    values = [0.5 * (i + 1) for i in range(len(directions))]
    return [
        NewTrial(ATTRS, PARAMS, DISTRIBUTIONS, values),
        NewTrial({}, {}, {}, [-1e300] * len(directions)),
        NewTrial(ATTRS, PARAMS, DISTRIBUTIONS, [float("inf")] * len(directions)),
        NewTrial({"owner": "x"}, {"slot": "a"}, {"slot": DISTRIBUTIONS["slot"]}, None),
    ]


def plain(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs


def test_the_rows_are_those_that_optuna_writes(tmp_path: Path, directions: list[str]) -> None:
    trials = trials_for(directions)
    theirs = rows(by_optuna(tmp_path / "theirs.db", directions, trials))
    ours = rows(by_us(tmp_path / "ours.db", directions, trials))
    assert ours.keys() == theirs.keys()
    for table in theirs:
        if table != "trial_heartbeats":  # ours are written for running trials, so that others see when they stop
            assert ours[table] == theirs[table], table


def test_optuna_reads_what_was_written(tmp_path: Path, directions: list[str]) -> None:
    trials = trials_for(directions)
    by_us(tmp_path / "ours.db", directions, trials)
    by_optuna(tmp_path / "theirs.db", directions, trials)
    read = [
        optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path / name}") for name in ("ours.db", "theirs.db")
    ]
    ours, theirs = ([plain(t) for t in study.get_trials()] for study in read)
    assert ours == theirs and [s.directions for s in read][0] == read[1].directions
    assert read[0].user_attrs == ATTRS and read[0].metric_names == read[1].metric_names


def test_times_are_those_of_optuna(tmp_path: Path) -> None:
    finished = trials_for(["minimize"])[:1]
    by_us(tmp_path / "ours.db", ["minimize"], finished)
    (ours,) = optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path / 'ours.db'}").get_trials()
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'theirs.db'}")
    study.tell(study.ask(), 1.0)
    (theirs,) = study.get_trials()
    for name in ("datetime_start", "datetime_complete"):
        mine, its = getattr(ours, name), getattr(theirs, name)
        assert mine.tzinfo == its.tzinfo and abs((mine - its).total_seconds()) < 600  # not hours: one time zone


def test_a_running_trial_is_completed_once(tmp_path: Path, directions: list[str]) -> None:
    storage = by_us(tmp_path / "ours.db", directions, trials_for(directions))
    study = storage.get_study_id_from_name("one")
    assert counts(storage, study) == {TrialState.COMPLETE: 3, TrialState.RUNNING: 1}
    running = storage.get_all_trials(study)[3]._trial_id
    values = [0.25] * len(directions)
    assert complete(storage, {running: (values, {"xent": 1.5})}) == {running}
    assert complete(storage, {running: ([9.0] * len(directions), {})}) == set()
    trial = opened(tmp_path / "ours.db").get_trial(running)
    assert (trial.state, trial.values, trial.user_attrs["xent"]) == (TrialState.COMPLETE, values, 1.5)


def test_a_study_of_the_same_name_leaves_nothing(tmp_path: Path) -> None:
    storage = by_us(tmp_path / "ours.db", ["minimize"], [])
    before = rows(storage)
    with pytest.raises(sql.exc.IntegrityError):
        create_study(storage, "one", ["maximize"], {"other": 1})
    assert rows(storage) == before
