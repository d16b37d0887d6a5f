"""Scores the prompts that a person types into the page of `promptsearch explore`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.banks import BASELINE, PromptSet
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Problem, Split, Task, paired_difference, wilson
from promptsearch.runs.pipeline import build_details, confusion_matrix

#: Largest number of templates in one request, and of changed pictures in the answer.
MOST, FLIPPED = 64, 24


class Explorer:
    """Scores ensembles on the support set and on other training pictures, never on the test split.

        explorer = Explorer(problem, shots=16, seed=0, held_out=500)
        print(explorer.look(["a sketch of a {}."])["held_out"]["accuracy"])

    Args:
        problem: Model and data set.
        shots: Labelled pictures per class in the support set.
        seed: Seed of the draw.
        held_out: Number of training pictures outside the support and validation sets to score on. They are encoded
            here if their features are not cached.

    Raises:
        InputError: A class has fewer pictures than `shots`.
    """

    def __init__(self, problem: Problem, shots: int, seed: int, held_out: int) -> None:
        self.problem = problem
        self.task: Task = problem.task(shots, seed)
        self.evaluator: Evaluator = problem.evaluator(self.task)
        self.held_out = _left(problem, self.task, held_out, seed)
        self._lock = threading.Lock()

    def look(
        self,
        templates: Sequence[str],
        against: Sequence[str] = (BASELINE,),
        phrases: Mapping[str, Sequence[str]] | None = None,
        against_phrases: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        """Score one ensemble and compare it with another.

        Args:
            templates: The ensemble to score.
            against: The ensemble to compare it with.
            phrases: For some classes, phrases to use instead of the name; several have equal weights.
            against_phrases: The same for the other ensemble.

        Returns:
            A JSON-serialisable dict with the scores on the support set (`support`, `support_against`), the held-out
            accuracies and their difference as [value, low, high] of a 95 % interval (`held_out`), the accuracy of
            each class (`classes`) and the pictures whose prediction changes (`flips`).

        Raises:
            InputError: There is no template, there are more than `MOST`, one is invalid, or phrases are for a class
                that the data set does not have.
        """
        started = time.perf_counter()
        ours, theirs = self._said(_ensemble(templates), phrases), self._said(_ensemble(against), against_phrases)
        with self._lock:  # one thread at a time, because the evaluator stores every new template
            score, old = self.evaluator.score([ours, theirs])
            found: dict[str, Any] = {
                "templates": list(ours.templates),
                "against": list(theirs.templates),
                "support": score.to_dict(),
                "support_against": old.to_dict(),
                "pictures": {"support": len(self.task.support), "held_out": len(self.held_out)},
            }
            split = self.held_out if len(self.held_out) else self.task.support
            after, before = (self.evaluator.predictions(s, split) for s in (ours, theirs))
        hits, was = after == split.labels, before == split.labels
        found["held_out"] = {
            "accuracy": _interval(wilson(int(hits.sum()), len(split))),
            "against": _interval(wilson(int(was.sum()), len(split))),
            "difference": _interval(paired_difference(hits, was)),
        }
        details = build_details(self.task.class_names, split, before, after)
        found["classes"] = _classes(details)
        found["flips"] = {
            k: {"count": v["count"], "pictures": v["pictures"][:FLIPPED]} for k, v in details["flips"].items()
        }
        found["names"] = details["classes"]
        found["milliseconds"] = round(1000 * (time.perf_counter() - started), 1)
        return found

    def _said(self, prompts: PromptSet, phrases: Mapping[str, Sequence[str]] | None) -> PromptSet:
        """Return the ensemble of some templates, with phrases for some classes."""
        given = {name: phrases[name] for name in phrases or {} if phrases and phrases[name]}
        names = self.task.class_names
        if unknown := next((name for name in given if name not in names), None):
            raise InputError(f"no class {shorten(unknown)}; there are {', '.join(names[:10])}")
        if any(len(of_class) > MOST for of_class in given.values()):
            raise InputError(f"enter at most {MOST} phrases for a class")
        return prompts.saying([given.get(name, [name]) for name in names]) if given else prompts


def _ensemble(templates: Sequence[str]) -> PromptSet:
    if len(templates) > MOST:
        raise InputError(f"{len(templates)} templates in one ensemble; enter at most {MOST}")
    return PromptSet(templates)


def _left(problem: Problem, task: Task, count: int, seed: int) -> Split:
    """Draw training pictures that are neither in the support nor in the validation set."""
    labels, indices = problem.source.labels("train")
    drawn = np.concatenate([task.support.indices, task.validation.indices])
    left = np.flatnonzero(~np.isin(indices, drawn))
    at = np.sort(np.random.default_rng([seed, 1]).permutation(left)[:count])
    features = problem.source.features("train", at) if len(at) else task.support.features[:0]
    return Split(features, labels[at], indices[at])


def _classes(details: dict[str, Any]) -> list[dict[str, Any]]:
    before, after = (confusion_matrix(details, w) for w in ("before", "after"))
    rows = []
    for c, name in enumerate(details["classes"]):
        n = int(after[c].sum())
        if n:
            rows.append({"name": name, "pictures": n, "before": before[c, c] / n, "after": after[c, c] / n})
    return rows


def _interval(interval: Any) -> list[float]:
    return [round(float(x), 6) for x in (interval.value, interval.low, interval.high)]
