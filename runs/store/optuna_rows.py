"""Writes batches of trials to Optuna's tables, each in one transaction, so that an interrupted batch leaves nothing."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import TrialState
    from sqlalchemy import Connection


@dataclass(frozen=True)
class NewTrial:
    """A trial to write.

    Attributes:
        attrs: User attributes.
        params: Parameters.
        distributions: The distribution of each parameter.
        values: Objective values; None for a running trial.
    """

    attrs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    values: Sequence[float] | None = None


def create_study(
    storage: optuna.storages.RDBStorage,
    name: str,
    directions: Sequence[str],
    attrs: Mapping[str, Any],
    metric_names: Sequence[str] = (),
) -> None:
    """Create a study with its attributes in one transaction, so that nobody ever sees a part of it.

    Args:
        storage: The storage.
        name: Name of the study.
        directions: "minimize" or "maximize" for each objective.
        attrs: User attributes.
        metric_names: Names of the objectives, for Optuna's plots.

    Raises:
        sqlalchemy.exc.IntegrityError: There is a study of this name.
    """
    import sqlalchemy as sql
    from optuna.storages._rdb import models
    from optuna.study import StudyDirection

    studies, aims, user, system = (
        m.__table__
        for m in (
            models.StudyModel,
            models.StudyDirectionModel,
            models.StudyUserAttributeModel,
            models.StudySystemAttributeModel,
        )
    )
    with _transaction(storage) as connection:
        key = connection.execute(sql.insert(studies).values(study_name=name)).inserted_primary_key
        assert key is not None  # the table has a primary key
        own = {"study_id": key[0]}
        rows = [{**own, "direction": StudyDirection[d.upper()], "objective": i} for i, d in enumerate(directions)]
        connection.execute(sql.insert(aims), rows)
        connection.execute(sql.insert(user), [{**own, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()])
        if metric_names:
            named = {**own, "key": "study:metric_names", "value_json": json.dumps(list(metric_names))}
            connection.execute(sql.insert(system), [named])


def insert(
    storage: optuna.storages.RDBStorage, study_id: int, trials: Sequence[NewTrial], first: int
) -> list[tuple[int, int]]:
    """Write trials to a study.

    The rows are those that Optuna's `add_trial` writes, but it runs several queries for every parameter and attribute
    and is several times slower. The caller must hold the storage's lock, because the numbers must be free.

    Args:
        storage: The storage.
        study_id: Id of the study.
        trials: The trials.
        first: Number of the first trial; the others follow.

    Returns:
        (trial id, number) of each trial.
    """
    from optuna.trial import TrialState

    say, now = _statements(), _now()
    written = []
    with _transaction(storage) as connection:
        params, attrs, values, beats = [], [], [], []
        for number, new in enumerate(trials, first):
            finished = new.values is not None
            state = TrialState.COMPLETE if finished else TrialState.RUNNING
            row = {"study_id": study_id, "number": number, "state": state, "datetime_start": now}
            if finished:
                row["datetime_complete"] = now
            trial_id = connection.execute(say.trials, row).inserted_primary_key[0]  # type: ignore[index]
            for name, value in new.params.items():
                kind = new.distributions[name]
                params.append({
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": kind.to_internal_repr(value),
                    "distribution_json": _as_json(kind),
                })  # fmt: skip
            attrs += _attrs(trial_id, new.attrs)
            if new.values is None:
                beats.append({"trial_id": trial_id})
            else:
                values += _values(trial_id, new.values)
            written.append((trial_id, number))
        for statement, rows in ((say.params, params), (say.attrs, attrs), (say.values, values), (say.beats, beats)):
            if rows:
                connection.execute(statement, rows)
    return written


def counts(storage: optuna.storages.RDBStorage, study_id: int) -> Counter[TrialState]:
    """Count the trials of a study by state."""
    with storage.engine.connect() as connection:
        found = connection.execute(_statements().count, {"study": study_id})
        return Counter({row[0]: row[1] for row in found})


def complete(
    storage: optuna.storages.RDBStorage, trials: Mapping[int, tuple[Sequence[float], Mapping[str, Any]]]
) -> set[int]:
    """Finish running trials.

    Args:
        storage: The storage.
        trials: (values, user attributes) of each trial, by trial id.

    Returns:
        The ids of the trials that were finished; others were not running any more and are not changed.
    """
    say = _statements()
    ours: set[int] = set()
    with _transaction(storage) as connection:
        for trial_id in trials:
            if connection.execute(say.complete, {"trial": trial_id, "datetime_complete": _now()}).rowcount:
                ours.add(trial_id)
        values = [v for i in trials if i in ours for v in _values(i, trials[i][0])]
        attrs = [a for i in trials if i in ours for a in _attrs(i, trials[i][1])]
        for statement, rows in ((say.values, values), (say.attrs, attrs)):
            if rows:
                connection.execute(statement, rows)
    return ours


@cache
def _statements() -> SimpleNamespace:
    """Prepared SQL statements."""
    import sqlalchemy as sql
    from optuna.storages._rdb import models
    from optuna.trial import TrialState

    trials: Any = models.TrialModel.__table__
    of_study = trials.c.study_id == sql.bindparam("study")
    in_hand = (trials.c.trial_id == sql.bindparam("trial")) & (trials.c.state == TrialState.RUNNING)
    rows: Any = (
        models.TrialParamModel,
        models.TrialUserAttributeModel,
        models.TrialValueModel,
        models.TrialHeartbeatModel,
    )
    params, attrs, values, beats = (sql.insert(model.__table__) for model in rows)
    return SimpleNamespace(
        count=sql.select(trials.c.state, sql.func.count()).where(of_study).group_by(trials.c.state),
        complete=sql.update(trials).where(in_hand).values(state=TrialState.COMPLETE),
        trials=sql.insert(trials),
        params=params,
        attrs=attrs,
        values=values,
        beats=beats,
    )


def _now() -> datetime:
    """Return the time as Optuna stores it: in UTC since version 5, in local time before."""
    from optuna.storages._rdb import models

    utc = hasattr(models.TrialModel, "_datetime_start_utc")
    return datetime.now(timezone.utc).replace(tzinfo=None) if utc else datetime.now()


@lru_cache(maxsize=1024)
def _as_json(distribution: BaseDistribution) -> str:
    from optuna.distributions import distribution_to_json

    return distribution_to_json(distribution)


def _attrs(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()]


def _values(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    from optuna.storages._rdb import models

    found = []
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        found.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
    return found


@contextlib.contextmanager
def _transaction(storage: optuna.storages.RDBStorage) -> Iterator[Connection]:
    with storage.engine.begin() as connection:
        if storage.engine.name == "sqlite":  # without this, SQLite takes the lock only at the first write
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
