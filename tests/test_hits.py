"""A tie is no hit, wherever hits are counted."""

from __future__ import annotations

import numpy as np
import pytest

from promptsearch.banks import BASELINE, PromptSet
from promptsearch.evaluators.evaluator import ClassNameWarning, Evaluator
from promptsearch.evaluators.scoring.metrics import Losses, balanced, predict, score_weights
from promptsearch.evaluators.task import Split, Task

#: One row a picture: (logits, true class, whether it is a hit).
CASES = [
    ([3.0, 1.0, 0.0], 0, True),
    ([1.0, 3.0, 0.0], 0, False),
    ([2.0, 2.0, 0.0], 0, False),  # a tie, for the class that comes first
    ([2.0, 2.0, 0.0], 1, False),  # and for the other
    ([0.0, 2.0, 2.0], 2, False),
    ([1.0, 1.0, 1.0], 1, False),
    ([1.0, 1.0, 2.0], 2, True),  # a tie of the others
    ([np.nextafter(np.float32(2), np.float32(3)), 2.0, 2.0], 0, True),  # by the last bit
]
LOGITS = np.array([c[0] for c in CASES], np.float32)  # (N, C)
LABELS = np.array([c[1] for c in CASES])
HITS = np.array([c[2] for c in CASES])


def test_predictions() -> None:
    found = predict(LOGITS, LABELS)
    assert ((found == LABELS) == HITS).all()
    assert (LOGITS[np.arange(len(LOGITS)), found] >= LOGITS.max(axis=1) - 1e-6).all()  # it is one of the largest


@pytest.mark.parametrize("even", [True, False])
def test_losses_count_as_predictions_do(even: bool) -> None:
    order = np.argsort(LABELS, kind="stable")
    if even:  # as many pictures of every class
        order = np.concatenate([order[LABELS[order] == c][:2] for c in range(3)])
    logits, labels = LOGITS[order], LABELS[order]
    sums = np.ascontiguousarray(logits.T[None])  # (1, C, N)
    accuracy, xent = Losses(labels, 1.0)(1, [(slice(0, 1), sums.copy(), np.ones((1, 3), np.float32))], lambda i: sums)
    assert accuracy[0] == HITS[order].mean()
    right = np.exp(logits)[np.arange(len(labels)), labels] / np.exp(logits).sum(axis=1)
    assert xent[0] == pytest.approx(-np.log(right).mean(), rel=1e-6)
    by_class = [HITS[order][labels == c].mean() for c in range(3)]
    assert balanced(sums, labels, None)[0] == pytest.approx(np.mean(by_class))
    assert sums.tobytes() == np.ascontiguousarray(logits.T[None]).tobytes()


def test_learnt_weights_count_as_predictions_do() -> None:
    hits, _ = score_weights(np.eye(3, dtype=np.float32), LOGITS, LABELS, 1.0)
    assert (hits == HITS).all()


def evaluator_of(vectors: dict[str, list[float]]) -> Evaluator:
    names = tuple(vectors)
    pictures = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    split = Split(pictures, np.array([0, 0, 1, 1]), np.arange(4))
    task = Task("made", names, 2, 0, split, split, lambda: split)
    table = {BASELINE.fill(n): v for n, v in vectors.items()}
    return Evaluator(task, lambda texts: np.array([table[t] for t in texts], np.float32), 10.0)


def test_few_shot_and_test_accuracy_are_one_figure() -> None:
    evaluator = evaluator_of({"cat": [0.6, 0.8], "dog": [0.8, 0.6]})
    s = PromptSet((BASELINE,))
    assert evaluator.score([s])[0].accuracy == evaluator.hits(s, evaluator.task.support).mean() == 0.5


def test_classes_that_the_model_does_not_tell_apart_are_said() -> None:
    evaluator = evaluator_of({"cat": [0.6, 0.8], "feline": [0.6, 0.8]})
    with pytest.warns(ClassNameWarning, match="does not tell classes 'cat' and 'feline' apart.*rename one"):
        assert evaluator.score([PromptSet((BASELINE,))])[0].accuracy == 0
