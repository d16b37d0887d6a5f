"""Trials written into Optuna's tables, in one transaction each: a kill leaves all of them or nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class NewTrial:
    """A trial to be written: in hand as long as it has no values."""

    attrs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    values: Sequence[float] | None = None


def insert(
    storage: optuna.storages.RDBStorage, study_id: int, trials: Sequence[NewTrial], total: int | None = None
) -> list[tuple[int, int]]:
    """Write trials, or the first of them where a study would have more than `total`: (trial id, number) of each.

    Optuna's own `add_trial` asks several questions for every parameter and attribute; this is what it writes, and
    several times as fast.  Call it under the storage's lock: numbers are counted.
    """
    import sqlalchemy as sql
    from optuna.distributions import distribution_to_json
    from optuna.storages._rdb import models
    from optuna.trial import TrialState

    trial_table = models.TrialModel
    written = []
    with _transaction(storage) as session:
        ours = trial_table.study_id == study_id
        number = session.execute(sql.select(sql.func.count()).where(ours)).scalar_one()
        if total is not None:
            gone = trial_table.state.in_((TrialState.FAIL, TrialState.PRUNED))
            lost = session.execute(sql.select(sql.func.count()).where(ours, gone)).scalar_one()
            trials = trials[: max(0, total - (number - lost))]
        params, attrs, values, beats = [], [], [], []
        for new in trials:
            now = datetime.now()
            finished = new.values is not None
            state = TrialState.COMPLETE if finished else TrialState.RUNNING
            row: Any = trial_table(study_id=study_id, number=number, state=state, datetime_start=now)
            if finished:
                row.datetime_complete = now
            session.add(row)
            session.flush()
            at = {"trial_id": row.trial_id}
            for name, value in new.params.items():
                kind = new.distributions[name]
                text = distribution_to_json(kind)
                internal = kind.to_internal_repr(value)
                params.append({**at, "param_name": name, "param_value": internal, "distribution_json": text})
            attrs += [{**at, "key": k, "value_json": json.dumps(v)} for k, v in new.attrs.items()]
            if new.values is None:
                beats.append(at)
            else:
                values += _values(row.trial_id, new.values)
            written.append((row.trial_id, number))
            number += 1
        for table, rows in (
            (models.TrialParamModel, params),
            (models.TrialUserAttributeModel, attrs),
            (models.TrialValueModel, values),
            (models.TrialHeartbeatModel, beats),
        ):
            if rows:
                session.execute(sql.insert(table), rows)
    return written


def count(storage: optuna.storages.RDBStorage, study_id: int) -> int:
    """How many trials a study has, failed ones among them."""
    import sqlalchemy as sql
    from optuna.storages._rdb import models

    with storage.engine.connect() as connection:
        ours = models.TrialModel.study_id == study_id
        return connection.execute(sql.select(sql.func.count()).select_from(models.TrialModel).where(ours)).scalar_one()


def complete(
    storage: optuna.storages.RDBStorage, trial_id: int, values: Sequence[float], attrs: Mapping[str, Any]
) -> bool:
    """Finish a trial in hand; False where it is not in hand any more."""
    import sqlalchemy as sql
    from optuna.storages._rdb import models
    from optuna.trial import TrialState

    with _transaction(storage) as session:
        trial = session.get(models.TrialModel, trial_id, with_for_update=True)
        if trial is None or trial.state != TrialState.RUNNING:
            return False
        trial.state, trial.datetime_complete = TrialState.COMPLETE, datetime.now()
        session.execute(sql.insert(models.TrialValueModel), _values(trial_id, values))
        rows = [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()]
        if rows:
            session.execute(sql.insert(models.TrialUserAttributeModel), rows)
    return True


def _values(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    from optuna.storages._rdb import models

    found = []
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        found.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
    return found


@contextlib.contextmanager
def _transaction(storage: optuna.storages.RDBStorage) -> Iterator[Session]:
    session = storage.scoped_session()
    try:
        if storage.engine.name == "sqlite":  # else the lock is only taken by the first change
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()
