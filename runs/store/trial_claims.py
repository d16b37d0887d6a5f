"""Trials in hand: claimed before they are scored, kept alive by a heartbeat, given to others when their worker died."""

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
    """One worker's hold on the trials of a run that several may share.

        with Claims(record, worker=0) as claims:
            trials = claims.take(sets, step=0, total=100, searcher=searcher)
            claims.finish([(t, score(t.prompt_set)) for t in trials])

    Taking is done under the storage's lock, so that all workers together take exactly `total`.  A trial whose worker
    died on this machine is taken over under its own number; one from elsewhere whose heartbeat stopped is failed and
    tried again by Optuna under a new one.
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
        """Claim trials for these sets, or for the first of them when fewer are left of `total`.

        A set that another worker claimed since this one last looked is left to it.
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
        self._heartbeat.hold((t.trial_id for t in trials), begin=False)  # the claim gave the first sign
        return trials

    def take_over(self, trials: Sequence[Trial]) -> list[Trial]:
        """Of trials in hand, claim those that nobody holds any more."""
        import optuna

        lost = {t.number for t in trials if t.waiting or is_dead(t.owner)}
        if not lost:
            return []
        record = self.record
        taken = []
        with record.recording(), alone(record.storage):
            for t in record.all_trials(anew=True):  # again: another worker may have been quicker
                if t.number not in lost or t.score is not None or not (t.waiting or is_dead(t.owner)):
                    continue
                storage = record.study._storage
                self._heartbeat.hold([t.trial_id])  # first: one that runs without a sign of life runs for ever
                storage.set_trial_user_attr(t.trial_id, "owner", self.owner)
                if t.waiting:
                    storage.set_trial_state_values(t.trial_id, optuna.trial.TrialState.RUNNING)
                taken.append(t)
        return taken

    def retry_stale(self) -> None:
        """Fail the trials whose heartbeat stopped, and let them be tried again."""
        with self.record.recording(), alone(self.record.storage):
            retry_stale(self.record.study)

    def finish(self, scored: Sequence[tuple[Trial, Score]]) -> None:
        """Record the scores of trials in hand, in one transaction.

        One that was given to another meanwhile, because this process slept so long, is left to that one.
        """
        self._heartbeat.release(t.trial_id for t, _ in scored)
        self.record.complete(scored)
