"""What each change from the hand-written prompt gained: the accuracy lost if that change alone is undone."""

from __future__ import annotations

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Split
from promptsearch.runs.result import Gains


def measure_gains(evaluator: Evaluator, winner: PromptSet, split: Split, where: str) -> Gains | None:
    """Undo one change of the winner at a time, and measure what that costs.

    Args:
        evaluator: Encodes the texts.
        winner: The chosen prompt set.
        split: The pictures to measure on.
        where: Which these are, as the result says.

    Returns:
        The gains, or None for a single template with the classes' own names.
    """
    if winner.size == 1 and winner.phrases is None:
        return None
    now = float(evaluator.hits(winner, split).mean())
    templates: tuple[float, ...] = ()
    if winner.size > 1:
        without = [float(evaluator.hits(winner.remove(t), split).mean()) for t in winner.templates]
        templates = tuple(round(now - hits, 6) for hits in without)
    classes: tuple[float | None, ...] = ()
    if winner.phrases is not None:
        own = tuple(((name, 1.0),) for name in evaluator.task.class_names)
        renamed = _hits_without(evaluator, winner, split).mean(axis=0)  # (C,)
        classes = tuple(
            None if said == name else round(now - float(hits), 6)
            for said, name, hits in zip(winner.phrases, own, renamed, strict=True)
        )
    return Gains(where, templates, classes)


def _hits_without(evaluator: Evaluator, winner: PromptSet, split: Split) -> np.ndarray:
    """(N, C) whether each picture is a hit if class c is called by its own name alone: one column of logits changes."""
    logits = split.features @ evaluator.class_weights(winner).T  # (N, C)
    plain = split.features @ evaluator.class_weights(winner.saying(None)).T  # (N, C)
    pictures, labels = np.arange(len(split)), split.labels
    true = logits[pictures, labels]
    # The largest logit of the classes that are neither the true one nor c is among the three largest.
    most = min(3, logits.shape[1])
    top = np.argpartition(-logits, most - 1, axis=1)[:, :most]  # (N, 3)
    of_top = np.where(top == labels[:, None], -np.inf, np.take_along_axis(logits, top, 1))  # (N, 3)
    hits = np.empty(logits.shape, bool)
    for c in range(logits.shape[1]):
        rival = np.where(top == c, -np.inf, of_top).max(axis=1)  # (N,)
        rival = np.where(labels == c, rival, np.maximum(rival, plain[:, c]))
        hits[:, c] = np.where(labels == c, plain[:, c], true) > rival
    return hits
