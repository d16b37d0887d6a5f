"""Signs of life of the trials that a process has in hand: those whose signs stop are given to others by Optuna."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from promptsearch.runs.store.storage import HEARTBEAT

if TYPE_CHECKING:
    import optuna


class Heartbeat:
    """Tells a storage every `HEARTBEAT` seconds that trials are alive, from a thread of its own.

    with Heartbeat(storage) as heartbeat:
        heartbeat.hold([trial_id])
        heartbeat.release([trial_id])
    """

    def __init__(self, storage: optuna.storages.RDBStorage) -> None:
        self._storage = storage
        self._held: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Heartbeat:
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def hold(self, trial_ids: Iterable[int], *, begin: bool = True) -> None:
        """Keep trials alive from now on.

        Args:
            begin: give the first sign at once; without any, Optuna never takes a trial for dead.
        """
        for trial_id in trial_ids:
            if begin:
                self._storage.record_heartbeat(trial_id)
            self._held.add(trial_id)

    def release(self, trial_ids: Iterable[int]) -> None:
        """They are finished."""
        self._held.difference_update(trial_ids)

    def _beat(self) -> None:
        import optuna
        import sqlalchemy.exc

        errors: tuple[Any, ...] = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
        while not self._stop.wait(HEARTBEAT):
            for trial_id in list(self._held):
                try:
                    self._storage.record_heartbeat(trial_id)
                except errors:  # a missed beat is no harm: the next one is near
                    break
        self._storage.remove_session()


def retry_stale(study: optuna.Study) -> None:
    """Fail the trials whose signs of life stopped, and let each be tried again under a new number."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        optuna.storages.fail_stale_trials(study)
