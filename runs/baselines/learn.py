"""Train a gradient baseline on a problem, and score the class weights that it learnt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.banks import BASELINE, PromptSet
from promptsearch.errors import InputError
from promptsearch.evaluators import Problem, Progress, Score, Split, no_progress, wilson
from promptsearch.evaluators.fluency import LogLikelihood
from promptsearch.evaluators.intervals import compare_paired
from promptsearch.evaluators.scoring.metrics import measure, predict, score_weights
from promptsearch.runs.baselines.training_context import Row as Learnt
from promptsearch.runs.baselines.training_context import Setting, TextTools, Trained, filled
from promptsearch.runs.open_run import study_name
from promptsearch.runs.pipeline import build_details, drawn, headline, lead, open_test
from promptsearch.runs.result import Row, RunResult
from promptsearch.runs.store.record import RunRecord

#: Largest number of losses in a result.
LOSSES = 200

#: Trains a baseline on the few shots of a setting.
Train = Callable[[Setting], Trained]


def run_training(
    problem: Problem,
    train: Train,
    record: RunRecord,
    file: Path,
    *,
    rate: LogLikelihood | None = None,
    progress: Progress = no_progress,
    again: bool = False,
) -> RunResult:
    """Train a gradient baseline, test it once, and record the result.

    An interrupted training resumes from its checkpoint next to `file`. If another process trains the same run, this one
    waits, and then returns its result or resumes its training.

    Args:
        problem: The model and the pictures.
        train: The method.
        record: The run, with its configuration.
        file: The safetensors file to which the learnt vectors are written.
        rate: Returns the log-likelihoods of decoded texts; None to measure no fluency.
        progress: Called during long work.
        again: Whether to train a finished run again if `file` is missing or damaged.

    Returns:
            The result, which is also stored in `record`.

    Raises:
            InputError: The method refuses an option; a new run is then not stored.
    """
    started = time.perf_counter()
    with lead(record, progress):
        known = record.result
        if known is not None and not (again and not _whole(file)):
            return RunResult.from_dict(known)
        return _train(problem, train, record, file, known, rate=rate, progress=progress, started=started)


def _train(
    problem: Problem,
    train: Train,
    record: RunRecord,
    file: Path,
    known: dict[str, Any] | None,
    *,
    rate: LogLikelihood | None,
    progress: Progress,
    started: float,
) -> RunResult:
    """Train; unless the run has a result already (`known`), also test what was learnt and record the result."""
    from promptsearch.search.gradient import Checkpoint

    config = record.config
    task = problem.task(config.search.shots, config.search.seed)
    new = record.get("draw") is None
    record.set("draw", drawn(task))
    checkpoint = Checkpoint(file.with_suffix(".pt"), study_name(config))
    start = config.search.options.get("start")
    setting = Setting(problem, task, problem.evaluator(task), TextTools(problem.encoder), progress, checkpoint, start)
    try:
        trained = train(setting)
    except InputError:  # an option is wrong and nothing was trained, so do not keep the run
        if new and not checkpoint.path.exists():
            record.delete()
        raise
    stored = config.to_dict()
    trained.learned.save(file, {k: v for k, v in stored.items() if k not in config.search.options})
    if known is None:
        result = test_learnt(record, setting, trained, rate, started)
        record.finish(result.to_dict())
    else:
        result = RunResult.from_dict(known)
    checkpoint.remove()
    return result


def _whole(file: Path) -> bool:
    """Return whether the file of learnt vectors exists and is intact."""
    from promptsearch.search.gradient import Learned

    try:
        Learned.load(file)
    except InputError:
        return False
    return True


def test_learnt(
    record: RunRecord, setting: Setting, trained: Trained, rate: LogLikelihood | None, started: float
) -> RunResult:
    """Open the test split, and score on it the learnt vectors, the texts decoded from them, and the baselines.

    Args:
        record: The run.
        setting: The input of the training.
        trained: The result of the training.
        rate: Returns the log-likelihoods of decoded texts; None to measure no fluency.
        started: `time.perf_counter()` when the run began.
    """
    test, opened, choices = open_test(record, setting.task, record.config.command, setting.progress)
    features = test.features if trained.test is None else trained.test(test.indices)
    support = setting.support.features if trained.support is None else trained.support
    score = Scorer(setting, test, rate)
    winner, hits = score.learnt(trained.winner, support, features)
    sets = {"hand-written": PromptSet.of(BASELINE), **dict(trained.baselines)}
    baselines = {name: score.prompt_set(name, s) for name, s in sets.items()}
    decoded = tuple(score.learnt(r, setting.support.features, test.features)[0] for r in trained.others)
    before = setting.evaluator.predictions(sets["hand-written"], test)
    after = predict(features @ trained.winner.weights.T, test.labels)
    record.set("details", build_details(setting.class_names, test, before, after))
    return RunResult(
        **headline(record),
        winner=winner,
        baselines=tuple(row for row, _ in baselines.values()),
        paired=compare_paired(hits, baselines["hand-written"][1], setting.task.seed),
        test_pictures=len(test),
        evaluations=1 + len(decoded) + len(baselines),
        seconds=time.perf_counter() - started,
        test_opened=opened,
        test_choices=choices,
        decoded=decoded,
        steps=trained.learned.steps,
        losses=tuple(round(x, 6) for x in thinned(trained.learned.losses)),
        classes=tuple(setting.class_names),
        notes=(*setting.problem.notes, *([few] if (few := setting.task.imbalance()) else []), *trained.notes),
    )


@dataclass(frozen=True)
class Scorer:
    """Scores class weights and prompt sets on the few shots and on the opened test split.

    Attributes:
        setting: The input of the training.
        test: The opened test split.
        rate: Returns the log-likelihoods of decoded texts; None to measure no fluency.
    """

    setting: Setting
    test: Split
    rate: LogLikelihood | None = None

    def learnt(self, row: Learnt, support: np.ndarray, tested: np.ndarray) -> tuple[Row, np.ndarray]:
        """Return the result's row for class weights, and whether each test picture is classified correctly, (N,) bool.

        Args:
            row: The class weights with their texts.
            support: (n, D) features of the few-shot pictures.
            tested: (N, D) features of the test pictures.
        """
        labels, scale = self.setting.support.labels, self.setting.evaluator.logit_scale
        hits, xent = score_weights(row.weights, support, labels, scale)
        test_hits, _ = score_weights(row.weights, tested, self.test.labels, scale)
        figures = {k: round(v, 6) for k, v in Score(float(hits.mean()), xent).to_dict().items()}
        accuracy = wilson(int(test_hits.sum()), len(self.test))
        shown = Row(
            tuple(row.texts),
            figures,
            row.name,
            None if row.shares is None else tuple(row.shares),
            None if row.class_names is None else tuple(row.class_names),
            test=accuracy,
            fluency=self._fluency(row),
            readable=row.readable,
            report=measure(tested @ row.weights.T, self.test.labels, scale),
        )
        return shown, test_hits

    def prompt_set(self, name: str, prompt_set: PromptSet) -> tuple[Row, np.ndarray]:
        """Return the result's row for a baseline, and whether each test picture is classified correctly, (N,) bool."""
        weights = self.setting.evaluator.class_weights(prompt_set)
        row = Learnt(name, weights, [str(t) for t in prompt_set.templates])
        found, hits = self.learnt(row, self.setting.support.features, self.test.features)
        return Row(found.templates, found.support, name, test=found.test, report=found.report), hits

    def _fluency(self, row: Learnt) -> float | None:
        if self.rate is None or not row.texts or row.name in ("hand-written", "whole bank averaged"):
            return None
        likelihood, tokens = self.rate(filled(row.texts, row.class_names or self.setting.class_names)).T
        return round(float((likelihood / tokens).mean()), 4)


def thinned(losses: list[float], most: int = LOSSES) -> list[float]:
    """Return about `most` evenly spaced losses, of which one is the last loss."""
    step = -(-len(losses) // most) or 1
    return losses[::-1][::step][::-1]
