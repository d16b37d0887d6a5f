"""Records heartbeats of running trials; Optuna lets other processes retry a trial whose heartbeat has stopped."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from promptsearch.runs.store.storage import HEARTBEAT

if TYPE_CHECKING:
    import optuna


class Heartbeat:
    """Records the heartbeat of trials every `HEARTBEAT` seconds, in a background thread.

        with Heartbeat(storage) as heartbeat:
            heartbeat.hold([trial_id])
            heartbeat.release([trial_id])

    Args:
        storage: The storage of the trials.
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
        """Start the heartbeat of trials.

        Args:
            trial_ids: Ids of the trials.
            begin: Whether to record the first heartbeat now; Optuna never considers a trial without one dead.
        """
        for trial_id in trial_ids:
            if begin:
                self._storage.record_heartbeat(trial_id)
            self._held.add(trial_id)

    def release(self, trial_ids: Iterable[int]) -> None:
        """Stop the heartbeat of trials, because they are finished."""
        self._held.difference_update(trial_ids)

    def _beat(self) -> None:
        import optuna
        import sqlalchemy.exc

        errors: tuple[Any, ...] = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
        while not self._stop.wait(HEARTBEAT):
            for trial_id in list(self._held):
                try:
                    self._storage.record_heartbeat(trial_id)
                except errors:  # a missed heartbeat does no harm, because the next one follows soon
                    break
        self._storage.remove_session()


def retry_stale(study: optuna.Study) -> None:
    """Fail the trials whose heartbeat has stopped, and queue each again under a new number."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that this function is experimental
        optuna.storages.fail_stale_trials(study)
