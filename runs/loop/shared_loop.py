"""The loop of a run whose every set is a trial of its own: alone, or with other workers at the same study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Evaluator, Progress, Score, no_progress
from promptsearch.runs.store.record import RunRecord, Trial
from promptsearch.runs.store.trial_claims import Claims
from promptsearch.search import Searcher, TrialSearcher

#: Seconds between two looks at trials that other workers have in hand.
POLL = 0.25


@dataclass(frozen=True)
class Budget:
    """When a search ends: `trials` in all (of this run, whoever made them), `timeout` seconds from now."""

    trials: int | None = None
    timeout: float | None = None


def never() -> bool:
    """The answer to "stop now?" of a search that nobody interrupts."""
    return False


@dataclass
class Sharing:
    """Joins a searcher, an evaluator and a record until the budget is spent.

        reason = Sharing(searcher, evaluator, record, Budget(trials=100)).run()

    Every trial is claimed in the record before it is scored.  What others recorded is told to the searcher as it
    comes, by trial number.  A run that only one worker made is resumed exactly where it was cut off: all steps but the
    last are told, the last one is asked for again, and what it lacks is scored.
    """

    searcher: TrialSearcher
    evaluator: Evaluator
    record: RunRecord
    budget: Budget
    progress: Progress = no_progress
    stopping: Callable[[], bool] = never

    def run(self) -> str:
        """Why it ended: "trials", "timeout", "exhausted" or "interrupted".

        Raises:
            PromptSearchError: the record cannot be written, or was changed by something else.
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
        """Score one batch, or wait for others; returns why there is nothing more to do."""
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
        """Tell what is recorded, and go on with the batch that was cut off."""
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
        if self.searcher.trials != last:  # two processes worked at it as one
            self._tell(trials)
            return
        batch = self.searcher.ask()
        by_set = {t.prompt_set: t for t in cut}
        if not by_set.keys() <= set(batch):
            raise PromptSearchError(
                f"trial {cut[0].number} of run {self.record.name!r} is not what this search proposes: "
                "the record was changed; begin anew with another --study"
            )
        held = self._claims.take_over([t for t in cut if t.score is None])
        if len(held) < sum(t.score is None for t in cut):
            return  # the process that began this batch is alive: take turns with it
        missing = [s for s in batch if s not in by_set][: max(0, self._total() - len(trials))]
        new = self._claims.take(missing, last, self._total(), self.searcher)
        every = {t.prompt_set: t for t in (*cut, *new)}
        self._score([every[s] for s in batch if s in every])

    def _tell(self, trials: Sequence[Trial]) -> None:
        """Tell the scored trials that were not told yet, by number, a batch at a time."""
        news = [t for t in trials if t.score is not None and t.number not in self._told]
        for _, batch in groupby(news, key=lambda t: (t.worker, t.step)):
            self._tell_batch([(t, t.score) for t in batch if t.score is not None])

    def _tell_batch(self, scored: Sequence[tuple[Trial, Score]]) -> None:
        for t, _ in scored:
            self.searcher.recall(t.params)
        self.searcher.tell([(t.prompt_set, score) for t, score in scored])
        self._told.update(t.number for t, _ in scored)

    def _score(self, trials: Sequence[Trial]) -> None:
        """Score the trials of a batch that have no score, record them, and tell them all."""
        known = {t.prompt_set: t.score for t in trials if t.score is not None}
        fresh = list(dict.fromkeys(t.prompt_set for t in trials if self._answer(t, known) is None))
        known.update(zip(fresh, self.evaluator.score(fresh) if fresh else [], strict=True))
        scored = []
        for t in trials:
            score = self._answer(t, known)
            assert score is not None  # those without were just scored
            scored.append((t, score))
        if scored:
            self._claims.finish([(t, score) for t, score in scored if t.score is None])
            self._tell_batch(scored)
            self._show()

    def _answer(self, trial: Trial, known: dict) -> Score | None:
        score = known.get(trial.prompt_set)
        return score if score is not None else self.searcher.known.get(trial.prompt_set)  # type: ignore[return-value]

    def _show(self) -> None:
        done = self.searcher.trials
        rate = (done - self._already) / max(time.monotonic() - self._started, 1e-9)
        figures = best_so_far(self.searcher, self.evaluator.task.labelled)
        self.progress(done, self.budget.trials or 0, f"{figures}; {rate:.1f} trials/s")


def best_so_far(searcher: Searcher, labelled: bool) -> str:
    """The figures of the best set that a searcher was told, for people who wait."""
    assert searcher.best is not None  # something was told
    score = searcher.best[1]
    if labelled:
        return f"best {100 * score.accuracy:.1f} %, {score.xent:.4f}"
    return f"best {searcher.objective.name} {searcher.objective.value(score):.4f}"
