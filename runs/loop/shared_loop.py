"""The loop for searchers that record every set as a trial, alone or with other workers on the same study."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Evaluator, Progress, Score, no_progress
from promptsearch.runs.store.record import RunRecord, Trial
from promptsearch.runs.store.trial_claims import Claims
from promptsearch.search import Searcher, TrialSearcher

log = logging.getLogger(__name__)

#: Seconds between two checks of the trials that other workers are scoring.
POLL = 0.25


@dataclass(frozen=True)
class Budget:
    """The limits of a search.

    Attributes:
        trials: Total number of trials in the run, including recorded ones and those of other workers.
        timeout: Seconds from now.
    """

    trials: int | None = None
    timeout: float | None = None


def never() -> bool:
    """Return False; the default of `stopping`, for searches that are never interrupted."""
    return False


@dataclass
class Sharing:
    """Runs a searcher on a record that several workers may share, until the budget is spent.

        reason = Sharing(searcher, evaluator, record, Budget(trials=100)).run()

    Every trial is claimed in the record before it is scored. The searcher is told the trials of other workers as they
    finish, in the order of their numbers. A run of a single worker is resumed exactly where it was interrupted: the
    searcher is told all batches but the last, asked for the last one again, and its missing scores are computed.

    Attributes:
        searcher: Proposes sets.
        evaluator: Scores them.
        record: The run.
        budget: When to stop.
        progress: Called after each batch.
        stopping: Called before each batch; the search stops if it returns True.
    """

    searcher: TrialSearcher
    evaluator: Evaluator
    record: RunRecord
    budget: Budget
    progress: Progress = no_progress
    stopping: Callable[[], bool] = never

    def run(self) -> str:
        """Run until the search ends.

        Returns:
            Why it ended: "trials", "timeout", "exhausted" or "interrupted".

        Raises:
            PromptSearchError: The record cannot be written, or does not fit the search.
        """
        self._told: set[int] = set()
        self._started = time.monotonic()
        self.searcher.total = self.budget.trials
        self._already = len(self.record.all_trials())
        try:
            with Claims(self.record, self.searcher.worker) as self._claims:
                self._resume()
                while (reason := self._turn()) is None:
                    pass
        finally:
            self.searcher.finish()
        if reason == "trials" or reason == "exhausted":
            self._tell(self.record.all_trials())
        return reason

    def _turn(self) -> str | None:
        """Score one batch, or wait for other workers; return why the search has ended, or None if it goes on."""
        if self.stopping():
            return "interrupted"
        timeout = self.budget.timeout
        if timeout is not None and self.searcher.trials and time.monotonic() - self._started >= timeout:
            return "timeout"
        trials = self.record.all_trials()
        self._tell(trials)
        in_hand = [t for t in trials if t.score is None]
        if in_hand:
            self._claims.retry_stale()
            if lost := self._claims.take_over(in_hand):
                self._score(lost)
                return None
            trials = self.record.all_trials()
            self._tell(trials)
            in_hand = [t for t in trials if t.score is None]
        room = self._total() - len(trials)
        asked = self.searcher.ask([t.prompt_set for t in in_hand])[:room] if room > 0 else []
        if not asked:
            if in_hand:
                time.sleep(POLL)
                return None
            return "trials" if room <= 0 else "exhausted"
        self._score(self._claims.take(asked, self.searcher.trials, self._total(), self.searcher))
        return None

    def _total(self) -> int:
        return self.budget.trials if self.budget.trials is not None else 1 << 62

    def _resume(self) -> None:
        """Tell the searcher the recorded trials, and complete the interrupted batch."""
        trials = self.record.all_trials()
        if not trials:
            return
        worker = self.searcher.worker
        last = max(t.step for t in trials)
        cut = [t for t in trials if t.step == last]
        before = [t for t in trials if t.step != last]
        alone = all(t.worker == worker for t in trials) and all(t.score is not None for t in before)
        if not alone:
            self._tell(trials)
            return
        self._tell(before)
        if self.searcher.trials != last:  # two processes worked on the run with the same worker number
            self._tell(trials)
            return
        batch = self.searcher.ask()
        by_set = {t.prompt_set: t for t in cut}
        if not by_set.keys() <= set(batch):
            raise PromptSearchError(
                f"trial {cut[0].number} of run {self.record.name!r} is not the one that this search proposes, so the "
                "record was changed; start a new run with another --study"
            )
        held = self._claims.take_over([t for t in cut if t.score is None])
        if len(held) < sum(t.score is None for t in cut):
            return  # the process that started this batch is alive, so share the run with it
        missing = [s for s in batch if s not in by_set][: max(0, self._total() - len(trials))]
        new = self._claims.take(missing, last, self._total(), self.searcher)
        every = {t.prompt_set: t for t in (*cut, *new)}
        self._score([every[s] for s in batch if s in every])

    def _tell(self, trials: Sequence[Trial]) -> None:
        """Tell the searcher the scored trials that it does not know yet, batch by batch in order of number."""
        news = [t for t in trials if t.score is not None and t.number not in self._told]
        for _, batch in groupby(news, key=lambda t: (t.worker, t.step)):
            self._tell_batch([(t, t.score) for t in batch if t.score is not None])

    def _tell_batch(self, scored: Sequence[tuple[Trial, Score]]) -> None:
        for t, _ in scored:
            self.searcher.recall(t.params)
        self.searcher.tell([(t.prompt_set, score) for t, score in scored])
        self._told.update(t.number for t, _ in scored)

    def _score(self, trials: Sequence[Trial]) -> None:
        """Score the trials of a batch that have no score, record them, and tell the searcher the batch."""
        known = {t.prompt_set: t.score for t in trials if t.score is not None}
        fresh = list(dict.fromkeys(t.prompt_set for t in trials if self._answer(t, known) is None))
        known.update(zip(fresh, self.evaluator.score(fresh) if fresh else [], strict=True))
        scored = []
        for t in trials:
            score = self._answer(t, known)
            assert score is not None  # all missing scores were just computed
            scored.append((t, score))
        if scored:
            self._claims.finish([(t, score) for t, score in scored if t.score is None])
            self._tell_batch(scored)
            self._show()

    def _answer(self, trial: Trial, known: dict) -> Score | None:
        score = known.get(trial.prompt_set)
        return score if score is not None else self.searcher.known.get(trial.prompt_set)

    def _show(self) -> None:
        done = self.searcher.trials
        rate = (done - self._already) / max(time.monotonic() - self._started, 1e-9)
        figures = best_so_far(self.searcher, self.evaluator.task.labelled)
        own = self.searcher.progress()
        said = f"{figures}; {rate:.1f} trials/s" + (f"; {own}" if own else "")
        log.info("%d trials: %s", done, said)
        self.progress(done, self.budget.trials or 0, said)


def best_so_far(searcher: Searcher, labelled: bool) -> str:
    """Return the score of the searcher's best set as text for the progress display."""
    assert searcher.best is not None  # something was told
    score = searcher.best[1]
    if labelled:
        return f"best {100 * score.accuracy:.1f} %, {score.xent:.4f}"
    return f"best {searcher.objective.name} {searcher.objective.value(score):.4f}"
