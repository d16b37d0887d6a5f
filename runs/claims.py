"""Trials in hand: claimed before they are scored, kept alive by a heartbeat, given to others when their worker died."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Score
from promptsearch.runs.owner import is_dead, this_process
from promptsearch.runs.record import RunRecord, Trial, _attrs
from promptsearch.runs.storage import HEARTBEAT, alone
from promptsearch.search import TrialSearcher


class Claims:
    """One worker's hold on the trials of a run that several may share.

        with Claims(record, worker=0) as claims:
            for trial in claims.take(sets, step=0, total=100, searcher=searcher):
                claims.finish(trial, score(trial.prompt_set))

    Taking is done under the storage's lock, so that all workers together take exactly `total`.  A trial whose worker
    died on this machine is taken over under its own number; one from elsewhere whose heartbeat stopped is failed and
    tried again by Optuna under a new one.
    """

    def __init__(self, record: RunRecord, worker: int = 0) -> None:
        self.record, self.worker = record, worker
        self.owner = this_process()
        self._beating: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def take(self, sets: Sequence[PromptSet], step: int, total: int, searcher: TrialSearcher) -> list[Trial]:
        """Claim trials for these sets, or for the first of them when fewer are left of `total`."""
        import optuna

        record = self.record
        taken = []
        with record.recording(), alone(record.storage):
            room = total - len(record.all_trials())
            for prompt_set in sets[: max(0, room)]:
                params = searcher.params(prompt_set)
                template = optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions=searcher.encoding.distributions(params),
                    user_attrs={
                        **_attrs(prompt_set, step),
                        **searcher.notes(prompt_set),
                        "worker": self.worker,
                        "owner": self.owner,
                    },
                )
                study = record.study
                trial_id = study._storage.create_new_trial(study._study_id, template)
                number = study._storage.get_trial_number_from_id(trial_id)
                self._hold(trial_id)
                taken.append(Trial(number, trial_id, prompt_set, None, step, self.worker, self.owner, False, params))
        return taken

    def take_over(self, trials: Sequence[Trial]) -> list[Trial]:
        """Of trials in hand, claim those that nobody holds any more."""
        import optuna

        lost = {t.number for t in trials if t.waiting or is_dead(t.owner)}
        if not lost:
            return []
        record = self.record
        taken = []
        with record.recording(), alone(record.storage):
            for t in record.all_trials():  # again: another worker may have been quicker
                if t.number not in lost or t.score is not None or not (t.waiting or is_dead(t.owner)):
                    continue
                storage = record.study._storage
                if t.waiting:
                    storage.set_trial_state_values(t.trial_id, optuna.trial.TrialState.RUNNING)
                storage.set_trial_user_attr(t.trial_id, "owner", self.owner)
                self._hold(t.trial_id)
                taken.append(t)
        return taken

    def retry_stale(self) -> None:
        """Fail the trials whose heartbeat stopped, and let them be tried again."""
        import optuna

        with self.record.recording(), alone(self.record.storage), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental
            optuna.storages.fail_stale_trials(self.record.study)

    def finish(self, trial: Trial, score: Score) -> None:
        """Record the score of a trial in hand."""
        import optuna

        storage = self.record.study._storage
        self._beating.discard(trial.trial_id)
        with self.record.recording():
            try:
                for key, value in score.to_dict().items():
                    storage.set_trial_user_attr(trial.trial_id, key, value)
                values = self.record.values_of(trial.prompt_set, score)
                storage.set_trial_state_values(trial.trial_id, optuna.trial.TrialState.COMPLETE, values)
            except optuna.exceptions.UpdateFinishedTrialError:
                return  # this process slept so long that the trial was given to another
        self.record.safe = max(self.record.safe, trial.number)

    def _hold(self, trial_id: int) -> None:
        self.record.storage.record_heartbeat(trial_id)
        self._beating.add(trial_id)

    def _beat(self) -> None:
        import optuna
        import sqlalchemy.exc

        errors: tuple[Any, ...] = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
        while not self._stop.wait(HEARTBEAT):
            for trial_id in list(self._beating):
                try:
                    self.record.storage.record_heartbeat(trial_id)
                except errors:  # a missed beat is no harm: the next one is near
                    break
        self.record.storage.remove_session()
