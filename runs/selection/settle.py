"""Chooses the winner with its estimate: how many phrases, and whether the hand-written prompt is kept."""

from __future__ import annotations

from dataclasses import replace

from promptsearch.evaluators import Evaluator
from promptsearch.runs.selection.nested_cv import Estimate, Steps, judge, nested_each
from promptsearch.runs.selection.phrase_choice import MORE_PHRASES
from promptsearch.runs.selection.rerun import Found, Repeat
from promptsearch.runs.selection.select import Selected, Selection

#: Accuracy that more phrases must be worth by the estimate; cross-entropy must be better too.
WORTH = 0.003


def settle(
    selection: Selection, repeat: Repeat, found: Found, progress: Steps | None = None
) -> tuple[Selected, Estimate | None]:
    """Choose the winner, estimate its accuracy, and keep the hand-written prompt where choosing does worse.

    A class has a few phrases, or up to `MORE_PHRASES` if the estimate says that these are worth `WORTH` more.

    Args:
        selection: The selection method.
        repeat: Repeats the search.
        found: The sets that the search recorded, best first.
        progress: Called after each fold of the estimate.

    Returns:
        What is kept, and the estimate of its accuracy; None without labels.
    """
    evaluator = repeat.evaluator
    templates = selection.templates(evaluator, found, repeat)
    chosen = selection.named(templates, evaluator)
    if not evaluator.task.labelled:
        return chosen, None
    if selection.bank.phrases is None or selection.method == "none":
        return guard(selection, evaluator, chosen, judge(selection, repeat, chosen, progress))
    wider = replace(selection, phrases=MORE_PHRASES)
    more = wider.named(templates, evaluator)
    few, many = nested_each([selection, wider], repeat, [chosen.score.accuracy, more.score.accuracy], progress)
    assert few.gain is not None and many.gain is not None  # both were just measured
    if many.accuracy.value >= few.accuracy.value + WORTH and many.gain[0] > few.gain[0]:
        return guard(wider, evaluator, more, many)
    return guard(selection, evaluator, chosen, few)


def guard(
    selection: Selection, evaluator: Evaluator, chosen: Selected, expected: Estimate
) -> tuple[Selected, Estimate]:
    """Return what was chosen, or the hand-written prompt where choosing does worse than that on pictures outside.

    A search must not make things worse: few pictures of many classes may mislead it, whatever it scores on them.

    Args:
        selection: The selection method.
        evaluator: Scores the hand-written prompt.
        chosen: What was chosen.
        expected: The estimate of its accuracy.

    Returns:
        What is kept, and the estimate of its accuracy.
    """
    if not expected.worse or selection.method == "none":
        return chosen, expected
    plain, score = selection.baseline(evaluator)
    kept = replace(chosen, prompt_set=plain, score=score, shares={}, refused=chosen.prompt_set)
    return kept, expected.of_hand_written(score.accuracy)
