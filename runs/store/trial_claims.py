"""Claims trials for a worker before they are scored, and takes over the trials of workers that died."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Score
from promptsearch.runs.store import optuna_rows as rows
from promptsearch.runs.store.heartbeat import Heartbeat, retry_stale
from promptsearch.runs.store.process_id import is_dead, this_process
from promptsearch.runs.store.record import RunRecord, Trial, _attrs
from promptsearch.runs.store.storage import alone
from promptsearch.search import TrialSearcher


class Claims:
    """The trials of a run that one worker has claimed; several workers may share the run.

        with Claims(record, worker=0) as claims:
            trials = claims.take(sets, step=0, total=100, searcher=searcher)
            claims.finish([(t, score(t.prompt_set)) for t in trials])

    Trials are claimed under the storage's lock, so that all workers together make exactly `total`. The trial of a
    worker that died on this machine is taken over with its number. A trial from another machine whose heartbeat has
    stopped is failed and retried by Optuna with a new number.

    Args:
        record: The run.
        worker: Number of this worker.
    """

    def __init__(self, record: RunRecord, worker: int = 0) -> None:
        self.record, self.worker = record, worker
        self.owner = this_process()
        self._heartbeat = Heartbeat(record.storage)

    def __enter__(self) -> Claims:
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.__exit__()

    def take(self, sets: Sequence[PromptSet], step: int, total: int, searcher: TrialSearcher) -> list[Trial]:
        """Claim trials for sets, except those that another worker has claimed since this one last read the record.

        Args:
            sets: The sets to score.
            step: Number of the batch.
            total: Largest number of trials in the run; if fewer are left, only the first sets get one.
            searcher: Gives the trials' parameters and attributes.

        Returns:
            The claimed trials.
        """
        record = self.record
        new = {}
        for prompt_set in sets:
            params = searcher.params(prompt_set)
            attrs = {**_attrs(prompt_set, step), **searcher.notes(prompt_set)}
            attrs |= {"worker": self.worker, "owner": self.owner}
            new[prompt_set] = rows.NewTrial(attrs, params, searcher.encoding.distributions(params))
        with record.recording():
            looked = record.numbers
            with alone(record.storage):
                for trial in record.all_trials():
                    if trial.number not in looked:
                        new.pop(trial.prompt_set, None)
                trials = record.claim(list(new.items()), total)
        self._heartbeat.hold((t.trial_id for t in trials), begin=False)  # the claim recorded the first heartbeat
        return trials

    def take_over(self, trials: Sequence[Trial]) -> list[Trial]:
        """Claim the running trials whose worker has died."""
        import optuna

        lost = {t.number for t in trials if t.waiting or is_dead(t.owner)}
        if not lost:
            return []
        record = self.record
        taken = []
        with record.recording(), alone(record.storage):
            for t in record.all_trials(anew=True):  # read again, because another worker may have claimed them meanwhile
                if t.number not in lost or t.score is not None or not (t.waiting or is_dead(t.owner)):
                    continue
                storage = record.study._storage
                # start the heartbeat first: without one, a running trial never counts as dead
                self._heartbeat.hold([t.trial_id])
                storage.set_trial_user_attr(t.trial_id, "owner", self.owner)
                if t.waiting:
                    storage.set_trial_state_values(t.trial_id, optuna.trial.TrialState.RUNNING)
                taken.append(t)
        return taken

    def retry_stale(self) -> None:
        """Fail the trials whose heartbeat has stopped, and queue them again."""
        with self.record.recording(), alone(self.record.storage):
            retry_stale(self.record.study)

    def finish(self, scored: Sequence[tuple[Trial, Score]]) -> None:
        """Record the scores of claimed trials in one transaction.

        A trial is skipped if another worker got it meanwhile, because this process was suspended for too long.
        """
        self._heartbeat.release(t.trial_id for t, _ in scored)
        self.record.complete(scored)
