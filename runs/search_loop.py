"""The search loop: it scores a searcher's sets and records them, alone or with other workers on the same study."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import PromptSet, Template, printable
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Encoder, Evaluator, Progress, Score, no_progress
from promptsearch.runs.store.record import MemoryRecord, Record, RunRecord, Trial
from promptsearch.runs.store.trial_claims import Claims
from promptsearch.search import Objective, Searcher, Tools, TrialSearcher

if TYPE_CHECKING:
    import plotly.graph_objects as go


#: Largest number of rows in the table.
SHOWN = 10


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of a search.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome)  # a table of the best sets, which a notebook shows for `outcome`
        outcome.plot()  # the best score against the number of sets scored

    Attributes:
        winner: The best set and its score.
        ranked: The recorded sets and their scores, best first.
        evaluations: Number of sets scored.
        ended: Why the search ended: "exhausted", "trials", "timeout" or "interrupted".
        curve: (number of sets scored, best score so far), one for each round, or for each trial that was better.
    """

    winner: tuple[PromptSet, Score]
    ranked: list[tuple[PromptSet, Score]]
    evaluations: int
    ended: str = "exhausted"
    curve: Sequence[tuple[int, Score]] = ()

    def plot(self) -> go.Figure:
        """Plot few-shot accuracy and cross-entropy of the best set so far against the number of sets scored.

        Returns:
            A plotly figure.
        """
        import plotly.graph_objects as go

        points = [*self.curve, (self.evaluations, self.winner[1])]
        x = [n for n, _ in points]
        figure = go.Figure(layout={"xaxis_title": "prompt sets scored", "hovermode": "x unified"})
        accuracy = [100 * s.accuracy for _, s in points]
        figure.add_scatter(x=x, y=[s.xent for _, s in points], name="cross-entropy", line_shape="hv")
        figure.add_scatter(x=x, y=accuracy, name="accuracy (%)", line_shape="hv", yaxis="y2")
        return figure.update_layout(
            yaxis={"title": "few-shot cross-entropy"},
            yaxis2={"title": "few-shot accuracy (%)", "overlaying": "y", "side": "right"},
        )

    def __repr__(self) -> str:
        """Return a table of the best sets, with one template per line."""
        lines = [f"{self.evaluations:,} prompt sets scored", "", "    accuracy  cross-entropy  prompts"]
        for i, (s, score) in enumerate(self.ranked[:SHOWN], start=1):
            first, *others = (printable(t) for t in s.templates)
            lines.append(f"{i:2d}  {100 * score.accuracy:6.1f} %  {score.xent:13.4f}  {first}")
            lines += [f"{'':29}{t}" for t in others]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table of the best sets as HTML, with escaped templates."""
        rows = "".join(
            f"<tr><td>{i}</td><td style='text-align:left'>{'<br>'.join(html.escape(t) for t in s.templates)}</td>"
            f"<td>{100 * score.accuracy:.1f}</td><td>{score.xent:.4f}</td></tr>"
            for i, (s, score) in enumerate(self.ranked[:SHOWN], start=1)
        )
        return (
            f"<table><caption>{self.evaluations} prompt sets scored</caption><thead><tr><th></th><th>prompts</th>"
            f"<th>few-shot accuracy (%)</th><th>cross-entropy</th></tr></thead><tbody>{rows}</tbody></table>"
        )


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


def search(
    searcher: Searcher,
    evaluator: Evaluator,
    record: Record | None = None,
    progress: Progress = no_progress,
    budget: Budget = Budget(),
    stopping: Callable[[], bool] = never,
) -> Outcome:
    """Run a searcher until it ends or its budget is spent.

        outcome = search(BeamSearch(bank, get_objective("xent")), evaluator)
        print(outcome.winner)

    A recorded run is resumed by replaying it: recorded sets get their recorded scores, others are scored, and recorded
    trials are not written again.

    Args:
        searcher: Proposes sets.
        evaluator: Scores them.
        record: The run to resume and to record in; None to record nothing.
        progress: Called after each batch or round.
        budget: Limits for searchers that work in trials; those that work in rounds end by themselves.
        stopping: Called between batches or rounds; the search stops if it returns True.

    Returns:
        The result of the search.

    Raises:
        PromptSearchError: The record cannot be written or does not fit the search, or nothing was scored.
        KeyboardInterrupt: It was stopped before anything was scored.
    """
    prepare(searcher, evaluator)
    ended = "exhausted"
    if not isinstance(searcher, TrialSearcher):
        told, curve, ended = _by_rounds(searcher, evaluator, record, progress, stopping)
        evaluations = curve[-1][0] if curve else 0
    else:
        if record is None or isinstance(record, MemoryRecord):
            ended = _in_memory(searcher, evaluator, budget, progress, stopping)
        else:
            ended = Sharing(searcher, evaluator, record, budget, progress, stopping).run()
        told = dict(searcher.known)
        curve, evaluations = _rising(searcher, told), len(told)
        if isinstance(record, MemoryRecord):
            record.add(told.items(), 0)
    if searcher.best is None and ended == "interrupted":
        raise KeyboardInterrupt
    if searcher.best is None:
        raise PromptSearchError("the search ended before anything was scored; increase --trials or --timeout")
    best, score = searcher.best
    ranked = searcher.ranked(list(told.items()))
    return Outcome((best, score), ranked, evaluations, ended, curve)


def _rising(searcher: Searcher, told: dict[PromptSet, Score]) -> list[tuple[int, Score]]:
    """Return (number of sets, best score) for each set that was better than all before it."""
    curve: list[tuple[int, Score]] = []
    best: tuple[PromptSet, Score] | None = None
    for n, row in enumerate(told.items(), start=1):
        if best is None or searcher.rank_key(*row) < searcher.rank_key(*best):
            best = row
            curve.append((n, row[1]))
    return curve


def prepare(searcher: Searcher, evaluator: Evaluator) -> None:
    """Tell the evaluator which metrics the searcher's objective needs, and the searcher the task's class names.

    Args:
        searcher: The searcher.
        evaluator: The evaluator.

    Raises:
        InputError: The objective needs labels and the pictures have none.
    """
    objective = getattr(searcher, "objective", None)
    if not isinstance(objective, Objective):
        raise InputError(
            f"{type(searcher).__name__}.objective: {objective!r} is no Objective; give that of get_objective(NAME) to "
            "Searcher.__init__"
        )
    if objective.labels and not evaluator.task.labelled:
        raise InputError(f"objective {objective.name!r} needs labelled pictures and this task has none")
    if searcher.bank is not None and searcher.bank.class_names:
        searcher.name_classes(evaluator.task.class_names)
    evaluator.require(objective.needs, () if searcher.bank is None else searcher.bank.templates)


def writing_tools(evaluator: Evaluator, encoder: Encoder, **more: Any) -> Tools:
    """Return the tools of a writing searcher that depend on the CLIP model.

    Args:
        evaluator: Gives class weights.
        encoder: Tells whether a text fits into the model's context.
        **more: Other fields of `Tools`.
    """
    names = evaluator.task.class_names

    def vectors(sets: Sequence[PromptSet]) -> np.ndarray:
        """Return (n, C D) vectors of unit length: the concatenated class weights of n sets."""
        return np.stack([evaluator.class_weights(s).reshape(-1) for s in sets]) / len(names) ** 0.5

    def fits(templates: Sequence[Template]) -> list[bool]:
        return [encoder.fits([t.fill(n) for n in names]) for t in templates]

    return Tools(class_names=names, vectors=vectors, fits=fits, **more)


def _asked(searcher: Searcher) -> list[PromptSet]:
    """Return the next batch of a searcher, which may be anybody's.

    Raises:
        InputError: It contains something else than prompt sets.
    """
    batch = list(searcher.ask() or [])
    if odd := [s for s in batch if not isinstance(s, PromptSet)]:
        raise InputError(f"{type(searcher).__name__}.ask: gives {odd[0]!r}, which is no PromptSet; return these")
    return batch


def _in_memory(
    searcher: TrialSearcher, evaluator: Evaluator, budget: Budget, progress: Progress, stopping: Callable[[], bool]
) -> str:
    searcher.total = budget.trials
    started = time.monotonic()
    while budget.trials is None or searcher.trials < budget.trials:
        batch = _asked(searcher)
        if not batch:
            return "exhausted"
        batch = batch[: None if budget.trials is None else budget.trials - searcher.trials]
        fresh = [s for s in batch if s not in searcher.known]
        scores = {**searcher.known, **dict(zip(fresh, evaluator.score(fresh) if fresh else [], strict=True))}
        searcher.tell([(s, scores[s]) for s in batch])
        progress(searcher.trials, budget.trials or 0, best_so_far(searcher, evaluator.task.labelled))
        if stopping():
            return "interrupted"
        if budget.timeout is not None and time.monotonic() - started >= budget.timeout:
            return "timeout"
    return "trials"


def _by_rounds(
    searcher: Searcher,
    evaluator: Evaluator,
    record: Record | None,
    progress: Progress,
    stopping: Callable[[], bool],
) -> tuple[dict[PromptSet, Score], list[tuple[int, Score]], str]:
    """Run a searcher that works in rounds and records a part of each.

    Returns:
        The recorded sets and scores, (number of sets scored, best score) after each round, and why the search ended.
    """
    recorded = record.trials() if record else []
    known = dict(recorded)
    written = evaluations = 0
    told: dict[PromptSet, Score] = {}
    curve: list[tuple[int, Score]] = []
    step = scored = 0
    started = time.monotonic()
    while batch := _asked(searcher):
        fresh = [s for s in batch if s not in known] if known else batch
        scores = iter(evaluator.score(fresh))
        results = [(s, known.get(s) or next(scores)) for s in batch] if known else list(zip(batch, scores, strict=True))
        searcher.tell(results)
        evaluations, scored = evaluations + len(batch), scored + len(fresh)
        if searcher.best is None:
            raise InputError(f"{type(searcher).__name__}.tell: sets no `best`; keep the best set and its score there")
        curve.append((evaluations, searcher.best[1]))
        answered = dict(results)
        recording = list(searcher.record() or [])
        if others := [s for s in recording if s not in answered]:
            raise InputError(f"{type(searcher).__name__}.record: {others[0]!r} was not asked for in this round")
        keep = [(s, answered[s]) for s in recording]
        for (s, _), (old, _) in zip(keep, recorded[written:], strict=False):
            if s != old:
                raise PromptSearchError(
                    f"trial {written} of run {record.name if record else ''!r} is not the one that this search "
                    "proposes, so the record was changed; start a new run with another --study"
                )
        if record:
            record.add(keep[max(0, len(recorded) - written) :], step, evaluations)
        written += len(keep)
        told.update(keep)
        step += 1
        log.debug("round %d: %d sets scored, %d kept, best %s", step, len(batch), len(keep), keep[0][0] if keep else "")
        rate = scored / max(time.monotonic() - started, 1e-9)
        figures = best_so_far(searcher, evaluator.task.labelled)
        progress(step, searcher.rounds or 0, f"{figures}; {rate:.0f} sets/s")
        if stopping():
            return told, curve, "interrupted"
    return told, curve, "exhausted"
