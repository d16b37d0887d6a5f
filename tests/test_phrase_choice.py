"""Phrases chosen by the few shots: the table of all phrases, the mixture, the few that are kept, and the guard."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from promptsearch.banks import BASELINE, Bank, PhraseBank, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Interval, Split, Task
from promptsearch.evaluators.encoding.encoder import TooLongError
from promptsearch.evaluators.scoring.evidence import agreement, mutual_information, zpe
from promptsearch.evaluators.scoring.metrics import STATISTICS
from promptsearch.evaluators.scoring.phrase_table import SCALES, SHARE, SPREAD, TRIED, Evidence, PhraseTable, fit_scale
from promptsearch.runs.pipeline import measure_gains
from promptsearch.runs.selection.nested_cv import Folds, guard, nested, settle
from promptsearch.runs.selection.phrase_choice import MORE_PHRASES, by_fluency, choose_phrases, nearest, rounded
from promptsearch.runs.selection.select import Repeat, Selection
from promptsearch.search import get_objective

CLASSES, DIM, SHOTS = 4, 12, 16
NAMES = tuple(f"class {c}" for c in range(CLASSES))


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def problem(seed: int = 0, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, D), labels (N,), and the centres (C, D) that they lie around."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(CLASSES, DIM)))
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    return unit(centres[labels] + noise * rng.normal(size=(len(labels), DIM)) / DIM**0.5), labels, centres


def table(per_class: int = 5, templates: int = 2, seed: int = 0) -> PhraseTable:
    features, labels, centres = problem(seed)
    rng = np.random.default_rng([seed, 1])
    vectors = rng.normal(size=(templates, CLASSES * per_class, DIM))
    vectors[:, 2::per_class] += 6 * centres  # the third phrase of every class is the right one
    return PhraseTable(unit(vectors), np.repeat(np.arange(CLASSES), per_class), features, labels)


def prior(n: int, first: float = 0.5) -> np.ndarray:
    return np.log(np.array([first, *[(1 - first) / (n - 1)] * (n - 1)]))


def test_without_evidence_the_mixture_is_the_prior_and_with_much_it_is_the_right_phrase() -> None:
    t = table()
    priors = prior(2), np.tile(prior(5), CLASSES)
    none = t.mix(*priors, 9.0, temper=0.0)
    assert np.allclose(none.phrases, np.exp(priors[1])) and np.allclose(none.templates, np.exp(priors[0]))
    some = t.mix(*priors, 9.0, temper=0.5)
    assert np.allclose(np.add.reduceat(some.phrases, np.arange(0, 20, 5)), 1) and some.templates.sum() == pytest.approx(
        1
    )
    assert (some.phrases[2::5] > 2 * none.phrases[2::5]).all()
    again = table().mix(*priors, 9.0, temper=0.5)
    assert np.array_equal(again.phrases, some.phrases)  # to the bit


def test_a_mixture_has_no_better_neighbour() -> None:
    t = table()
    priors = prior(2), np.tile(prior(5), CLASSES)

    def objective(a: np.ndarray, b: np.ndarray) -> float:
        logits = 9.0 * t.features @ t.class_weights(a, b).T
        likelihood = (logits[np.arange(len(logits)), t.labels] - np.log(np.exp(logits).sum(axis=1))).sum()
        return float(0.5 * likelihood - (a * (np.log(a) - priors[0])).sum() - (b * (np.log(b) - priors[1])).sum())

    found = t.mix(*priors, 9.0, temper=0.5)
    best = objective(found.templates, found.phrases)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = found.phrases * np.exp(0.1 * rng.normal(size=20))
        other /= np.repeat(np.add.reduceat(other, np.arange(0, 20, 5)), 5)
        assert objective(found.templates, other) < best + 0.01


def test_the_scale_is_small_where_the_model_is_often_wrong() -> None:
    features, labels, centres = problem()
    right = fit_scale(features @ centres.T, labels, 100.0)
    wrong = fit_scale(features @ centres.T, np.random.default_rng(0).permutation(labels), 100.0)
    assert wrong < 15 < right


def test_the_fitted_scale_is_the_best_of_those_tried() -> None:
    features, labels, centres = problem(noise=1.5)
    cosines = (features @ centres.T).astype(np.float32)
    scales = 100.0 * np.geomspace(*SCALES, TRIED)

    def posterior(scale: float) -> float:
        logits = scale * cosines.astype(np.float64)
        likelihood = (logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(axis=1))).sum()
        return float(likelihood - np.log(scale / (SHARE * 100.0)) ** 2 / (2 * SPREAD**2))

    assert fit_scale(cosines, labels, 100.0) == pytest.approx(max(scales, key=posterior))


def test_few_vectors_stand_for_a_sum() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 12))
    target = 0.5 * vectors[3] + 0.3 * vectors[17] + 0.2 * vectors[20]
    places, weights = nearest(vectors @ vectors.T, vectors @ target)
    assert sorted(places) == [3, 17, 20]
    assert dict(zip(places, rounded(weights), strict=True)) == {3: 0.5, 17: 0.3, 20: 0.2}
    alone, _ = nearest(vectors @ vectors.T, vectors @ vectors[5])
    assert alone == [5]


@pytest.mark.parametrize("weights", [[1.0], [0.97, 0.02, 0.01], [1, 1, 1], [0.333, 0.334, 0.333], [5, 4.9]])
def test_weights_are_rounded_to_what_is_printed(weights: list[float]) -> None:
    found = rounded(weights)
    assert sum(found) == pytest.approx(1) and min(found) >= 0.05
    assert all(round(20 * w) == pytest.approx(20 * w) for w in found)


def evaluator(useful: bool = True, limit: int = 1000) -> Evaluator:
    """Own names are far from the pictures; of each class's phrases "good C" is near to them, "bad C" is not."""
    features, labels, centres = problem()

    def encode(texts):
        rows = []
        for text in texts:
            if len(text) > limit:
                raise TooLongError(text, len(text), limit)
            c = next(c for c in range(CLASSES) if str(c) in text)
            noise = np.random.default_rng(list(text.encode())).normal(size=DIM) / DIM**0.5
            near = 2.0 if useful and "good" in text else 0.0 if "bad" in text else 0.7
            rows.append(near * centres[c] + noise)
        return unit(np.array(rows))

    split = Split(features, labels, np.arange(len(labels)))
    found = Evaluator(Task("made", NAMES, SHOTS, 0, split, split, lambda: split), encode, 20.0)
    found.fit_scale()
    return found


PHRASES = PhraseBank("p", {n: tuple(f"{how} {c}" for how in ("bad", "good", "bad old")) for c, n in enumerate(NAMES)})


def test_useful_phrases_are_found_and_few() -> None:
    e = evaluator()
    (found,) = choose_phrases(PromptSet.of("a sketch of a {}."), e, PHRASES)
    assert found.phrases is not None and found.size <= 3
    for c, said in enumerate(found.phrases):
        assert len(said) <= 3 and dict(said)[f"good {c}"] >= 0.2 and min(w for _, w in said) >= 0.05
    plain, chosen = e.score([PromptSet.of(BASELINE), found])
    assert chosen.xent < plain.xent and chosen.accuracy > plain.accuracy


def test_several_numbers_of_phrases_share_their_mixture_and_give_what_each_gives_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e, chosen = evaluator(), PromptSet.of("a sketch of a {}.")
    alone = [choose_phrases(chosen, e, PHRASES, (most,))[0] for most in (1, 3)]
    mixed = []
    whole = PhraseTable.mix
    monkeypatch.setattr(PhraseTable, "mix", lambda self, *a, **kw: mixed.append(self) or whole(self, *a, **kw))
    assert choose_phrases(chosen, e, PHRASES, (1, 3)) == alone
    assert len(mixed) == 3  # all phrases once, and the few of either number


def test_a_phrase_that_does_not_fit_is_named_and_a_template_that_does_not_is_left_out() -> None:
    long = Template("a photo of a {} that has so many more words around the class that phrases do not fit.")
    (found,) = choose_phrases(PromptSet([long]), evaluator(limit=40), PHRASES)
    assert found.templates == (BASELINE,)
    with pytest.raises(InputError, match=r"phrase 'bad old 0' as 'a photo of a bad old 0\.' has 23 tokens"):
        choose_phrases(PromptSet.of(BASELINE), evaluator(limit=22), PHRASES)


def test_the_estimate_repeats_the_choice_of_phrases_and_the_guard_refuses_what_does_worse() -> None:
    e = evaluator()
    bank = Bank("b", (BASELINE,), phrases=PHRASES)
    selection = Selection("posterior", bank, get_objective("xent"))
    found = [(PromptSet.of(BASELINE), e.score([PromptSet.of(BASELINE)])[0])]
    chosen = selection.choose(e, found)
    assert chosen.prompt_set.phrases is not None
    expected = nested(selection, Repeat(None, bank, e, (PromptSet.of(BASELINE),)), chosen.score.accuracy)
    assert expected.gain is not None and expected.gain[0] > 0 and not expected.worse
    assert type(expected).from_dict(expected.to_dict()).gain == pytest.approx(expected.gain, abs=1e-6)
    assert guard(selection, e, chosen, expected) == (chosen, expected)
    worse = dataclasses.replace(expected, gain=(-0.3, 0.1))
    kept, estimate = guard(selection, e, chosen, worse)
    assert kept.prompt_set == PromptSet.of(BASELINE) and kept.refused == chosen.prompt_set
    hits = e.hits(PromptSet.of(BASELINE), e.task.support)
    assert estimate is not None and estimate.accuracy.value == pytest.approx(hits.mean())
    assert estimate.naive == kept.score.accuracy


@pytest.mark.parametrize(
    ("accuracy", "gain", "kept"), [(0.004, 0.1, "many"), (0.002, 0.1, "few"), (0.004, -0.1, "few")]
)
def test_more_phrases_are_kept_where_the_estimate_says_that_they_are_worth_it(
    accuracy: float, gain: float, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = evaluator()
    bank = Bank("b", (BASELINE,), phrases=PHRASES)
    selection = Selection("posterior", bank, get_objective("xent"), phrases=1)
    wider = dataclasses.replace(selection, phrases=MORE_PHRASES)
    plain = PromptSet.of(BASELINE)
    found, repeat = [(plain, e.score([plain])[0])], Repeat(None, bank, e, (plain,))
    chosen = {"few": selection.choose(e, found), "many": wider.choose(e, found)}
    sizes = {how: max(map(len, c.prompt_set.phrases or ())) for how, c in chosen.items()}
    assert sizes["few"] == 1 < sizes["many"] <= MORE_PHRASES
    with Folds([selection, wider], repeat) as folds:
        both = folds.estimates([0.5, 0.6])
    assert both == [nested(selection, repeat, 0.5), nested(wider, repeat, 0.6)]
    few = dataclasses.replace(both[0], accuracy=Interval(0.5, 0.4, 0.6), gain=(1.0, 0.1))
    many = dataclasses.replace(few, accuracy=Interval(0.5 + accuracy, 0.4, 0.6), gain=(1.0 + gain, 0.1))
    monkeypatch.setattr(Folds, "estimates", lambda *_: [few, many])
    assert settle(selection, repeat, found) == (chosen[kept], {"few": few, "many": many}[kept])


@pytest.mark.parametrize("objective", ["mutual-information", "zpe", "agreement"])
def test_without_labels_phrases_are_weighted_by_the_objective(objective: str) -> None:
    labelled = evaluator()
    support = labelled.task.support
    bare = Split(support.features, np.full(len(support), -1), support.indices)
    task = dataclasses.replace(labelled.task, support=bare, shots=0)
    e = Evaluator(task, labelled._text_vectors, labelled.model_scale)
    goal = get_objective(objective)
    e.require(goal.needs, (BASELINE, Template("a sketch of a {}.")))
    bank = Bank("b", (BASELINE,), phrases=PHRASES)
    plain = PromptSet.of(BASELINE)
    chosen = Selection("none", bank, goal).choose(e, [(plain, e.score([plain])[0])]).prompt_set
    assert chosen.phrases is not None and max(map(len, chosen.phrases)) <= 3
    before, after = e.score([plain, chosen])
    assert goal(after) > goal(before)
    if objective == "mutual-information":
        assert e.hits(chosen, support).mean() > e.hits(plain, support).mean()


@pytest.mark.parametrize("figure", ["mutual_information", "zpe", "agreement"])
def test_evidence_without_labels_is_the_metric_and_has_its_derivatives(figure: str) -> None:
    rng = np.random.default_rng(0)
    logits, consensus = rng.normal(size=(7, 4)), rng.integers(0, 4, 7)
    says: Evidence = {"mutual_information": mutual_information, "zpe": zpe}.get(
        figure, lambda logits: agreement(logits, consensus)
    )
    value, slope = says(logits)
    (metric,) = STATISTICS[figure](np.array(logits.T[None]), consensus, consensus)
    assert value == pytest.approx(7 * metric, rel=1e-5)
    for at in np.ndindex(7, 4):
        step = np.zeros((7, 4))
        step[at] = 1e-6
        assert slope[at] == pytest.approx((says(logits + step)[0] - says(logits - step)[0]) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("templates", [(BASELINE,), (BASELINE, Template("a sketch of a {}."))])
def test_what_a_change_gained_is_what_is_lost_without_it(templates: tuple[Template, ...]) -> None:
    e = evaluator()
    said = [{f"good {c}": 0.6, name: 0.4} if c != 1 else {name: 1.0} for c, name in enumerate(NAMES)]
    winner = PromptSet(templates, None, phrases=said)
    split = e.task.support
    gains = measure_gains(e, winner, split, "few-shot")
    assert gains is not None and gains.classes[1] is None
    now = e.hits(winner, split).mean()
    for c, gain in enumerate(gains.classes):
        if gain is not None:
            undone = winner.saying([*said[:c], {NAMES[c]: 1.0}, *said[c + 1 :]])
            assert gain == pytest.approx(now - e.hits(undone, split).mean(), abs=1e-6)
    alone = [now - e.hits(winner.remove(t), split).mean() for t in templates] if len(templates) > 1 else []
    assert gains.templates == pytest.approx(alone, abs=1e-6)
    assert type(gains).from_dict(gains.to_dict()) == gains
    assert measure_gains(e, PromptSet.of(BASELINE), split, "few-shot") is None


def test_of_phrases_that_are_alike_the_first_is_taken_and_a_language_model_may_order_them() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(6, DIM)))
    vectors[4] = unit(vectors[2] + 0.01 * vectors[0])  # nearly the same
    assert nearest(vectors @ vectors.T, vectors @ vectors[4], 1)[0] == [2]
    e = evaluator()
    own = PHRASES.of_classes(NAMES)
    assert by_fluency(own, e) == own
    e.fluency = lambda sets: [-float(len(s.phrases[0][0][0])) if s.phrases else 0.0 for s in sets]  # short is fluent
    ordered = by_fluency(own, e)
    assert ordered[0] == ("class 0", "bad 0", "good 0", "bad old 0") and sorted(ordered[1]) == sorted(own[1])


def test_a_bank_with_phrases_is_another_bank_and_is_stored_whole() -> None:
    from promptsearch.runs.store.record import bank_from_dict, bank_to_dict

    plain = Bank.of("b", ["a {}."])
    bank = dataclasses.replace(plain, phrases=PHRASES)
    assert bank.hash != plain.hash
    assert bank_from_dict(bank_to_dict(bank)).hash == bank.hash
    assert bank_from_dict(bank_to_dict(plain)).hash == plain.hash
