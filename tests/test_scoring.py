"""Scores equal those of the plain formula, whatever the batch, and say what open_clip's ensembles would say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Evaluator, Split, Task, mid_p, paired_difference, wilson
from promptsearch.evaluators.intervals import binomial_cdf
from promptsearch.score import Score


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_task(seed: int, n: int, classes: int, dim: int) -> Task:
    rng = np.random.default_rng(seed)

    def split(k: int) -> Split:
        return Split(unit(rng.normal(size=(k, dim))).astype(np.float32), np.arange(k) % classes, np.arange(k))

    return Task("made", tuple(f"class{c}" for c in range(classes)), 1, 0, split(n), split(n), lambda: split(n))


def text_vectors(dim: int):
    def encode(texts):
        rows = [np.random.default_rng(list(t.encode())).normal(size=dim) for t in texts]
        return unit(np.array(rows)).astype(np.float32)

    return encode


def plain_score(task: Task, dim: int, templates, weights, scale: float) -> tuple[float, float]:
    """The formula of the field, one set at a time, in float64."""
    encode = text_vectors(dim)
    w = np.array([encode([t.replace("{}", n) for t in templates]).astype(float) for n in task.class_names])
    mean = unit(np.einsum("ctd,t->cd", w, np.array(weights, float)))
    logits = scale * task.support.features.astype(float) @ mean.T
    shifted = logits - logits.max(1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    y = task.support.labels
    return float((logits.argmax(1) == y).mean()), float(-logp[np.arange(len(y)), y].mean())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(2, 7),
    n=st.integers(2, 40),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    scale=st.sampled_from([1.0, 30.0, 100.0]),
    weighted=st.booleans(),
)
def test_scores_equal_the_plain_formula(seed, classes, n, sizes, scale, weighted) -> None:
    task = make_task(seed, max(n, classes), classes, 12)
    rng = np.random.default_rng(seed)
    pool = [Template(f"number {i} of {{}}.") for i in range(75)]
    sets = []
    for size in sizes:
        chosen = [pool[i] for i in rng.choice(len(pool), size, replace=False)]
        weights = tuple(rng.uniform(0.1, 3, size).tolist()) if weighted else None
        sets.append(PromptSet(tuple(chosen), weights=weights))
    evaluator = Evaluator(task, text_vectors(12), scale)
    for s, score in zip(sets, evaluator.score(sets), strict=True):
        accuracy, xent = plain_score(task, 12, s.templates, s.weights or [1] * s.size, scale)
        assert score.accuracy == pytest.approx(accuracy, abs=1e-9)
        assert score.xent == pytest.approx(xent, rel=1e-4, abs=1e-4)
        assert evaluator.hits(s, task.support).mean() == pytest.approx(accuracy)
        assert evaluator.losses(s, task.support).mean() == pytest.approx(xent, rel=1e-4, abs=1e-4)


def test_scores_do_not_depend_on_the_batch() -> None:
    task = make_task(0, 60, 5, 16)
    pool = [Template(f"number {i} of {{}}.") for i in range(40)]
    rng = np.random.default_rng(0)
    sets = [PromptSet(tuple(pool[i] for i in rng.choice(40, 1 + k % 5, replace=False))) for k in range(200)]
    together = Evaluator(task, text_vectors(16), 100.0).score(sets)
    alone = Evaluator(task, text_vectors(16), 100.0)
    backwards = [alone.score([s])[0] for s in reversed(sets)][::-1]
    assert together == backwards  # to the bit: a resumed run scores in other batches


def test_class_names_of_a_set_are_used() -> None:
    task = make_task(1, 20, 3, 8)
    evaluator = Evaluator(task, text_vectors(8), 10.0)
    plain = PromptSet.of("a {}.")
    named = PromptSet((Template("a {}."),), class_names=("one", "two", "three"))
    assert not np.allclose(evaluator.class_weights(plain), evaluator.class_weights(named))
    assert evaluator.score([plain])[0] != evaluator.score([named])[0]


def test_phrases_and_templates_are_averaged_by_their_weights() -> None:
    task = make_task(1, 20, 3, 8)
    encode = text_vectors(8)
    evaluator = Evaluator(task, encode, 10.0)
    phrases = [{"one": 0.75, "uno": 0.25}, ["two"], {"Three is a number.": 0.5, "three": 0.5}]
    prompts = PromptSet(["a {}.", "the {}."], [2, 1], phrases=phrases)
    first = 2 * (0.75 * encode(["a one."]) + 0.25 * encode(["a uno."])) + (
        0.75 * encode(["the one."]) + 0.25 * encode(["the uno."])
    )
    third = 1.5 * encode(["Three is a number."]) + encode(["a three."]) + 0.5 * encode(["the three."])
    weights = evaluator.class_weights(prompts)
    for c, mean in ((0, first), (2, third)):
        assert np.allclose(weights[c], mean[0] / np.linalg.norm(mean), atol=1e-5)
    logits = 10.0 * task.support.features @ weights.T
    xent = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), task.support.labels]
    (score,) = evaluator.score([prompts])
    assert score.xent == pytest.approx(xent.mean(), abs=1e-5)
    assert score.accuracy == (logits.argmax(axis=1) == task.support.labels).mean()
    assert evaluator.score([PromptSet.of("a {}."), prompts])[1] == score  # to the bit, in any batch


def test_each_text_is_encoded_once() -> None:
    task = make_task(2, 20, 3, 8)
    asked: list[str] = []

    def encode(texts):
        asked.extend(texts)
        return text_vectors(8)(texts)

    evaluator = Evaluator(task, encode, 10.0)
    a, b = PromptSet.of("a {}."), PromptSet.of("b {}.")
    evaluator.score([a, b])
    evaluator.score([PromptSet.of("a {}.", "b {}."), a])
    evaluator.hits(b, task.validation)
    assert sorted(asked) == sorted(f"{x} {n}." for x in "ab" for n in task.class_names)


def test_the_test_split_opens_once() -> None:
    task = make_task(3, 20, 3, 8)
    assert task.test_opened == 0
    task.open_test()
    with pytest.raises(PromptSearchError, match="opened before"):
        task.open_test()


@pytest.mark.parametrize("n", [1, 7, 160, 10_000])
def test_the_binomial_distribution_is_scipys(n: int) -> None:
    for k in {-1, 0, n // 3, n - 1, n}:
        for p in (1e-9, 0.1, 0.5, 0.999):
            expected = float(binom.cdf(k, n, p))
            assert binomial_cdf(k, n, p) == pytest.approx(expected, abs=1e-9)


def test_the_mid_p_interval_holds_the_accuracy_about_as_often_as_it_says() -> None:
    """By the probabilities of all outcomes; it ends where half the observed probability and the tail make 2.5 %."""
    n = 40
    found = [mid_p(h, n) for h in range(n + 1)]
    assert found[0].low == 0 and found[n].high == 1 and found[31].value == 31 / 40
    for p in np.linspace(0.3, 0.95, 14):
        chances = binom.pmf(np.arange(n + 1), n, p)
        held = sum(c for c, i in zip(chances, found, strict=True) if i.low <= p <= i.high)
        assert 0.93 < held < 0.99
    low = found[31].low
    assert binom.sf(31, n, low) + binom.pmf(31, n, low) / 2 == pytest.approx(0.025, abs=1e-6)


def test_intervals() -> None:
    known = wilson(81, 100)  # the textbook value
    assert (known.value, round(known.low, 3), round(known.high, 3)) == (0.81, 0.722, 0.875)
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == pytest.approx(1)
    ours, theirs = np.array([1, 1, 1, 0, 0, 1] * 50, bool), np.array([1, 0, 1, 1, 0, 0] * 50, bool)
    d = paired_difference(ours, theirs)
    assert d.value == pytest.approx(1 / 6) and d.low < d.value < d.high
    back = paired_difference(theirs, ours)
    assert (back.value, back.low, back.high) == pytest.approx((-d.value, -d.high, -d.low))
    same = paired_difference(ours, ours)
    assert same.value == 0 and same.low < 0 < same.high


def test_a_score_made_fast_is_the_score() -> None:
    fast, score = Score.of(0.5, 1.25), Score(0.5, 1.25)
    assert fast == score and hash(fast) == hash(score) and repr(fast) == repr(score)
    assert fast.to_dict() == score.to_dict() == {"accuracy": 0.5, "xent": 1.25} and fast.fluency is None
    with pytest.raises(AttributeError):
        fast.accuracy = 1.0  # type: ignore[misc]
