"""Choosing the winner: parts of a support set, ways to choose, the estimate, the paired comparison, the guard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_problem import make_problem
from scipy.stats import binomtest

from promptsearch.banks import BASELINE, Bank, PromptSet, Template
from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Evaluator, Split, Task
from promptsearch.evaluators.intervals import compare_paired, mcnemar
from promptsearch.runs import SELECTIONS, Budget, Repeat, Selection, nested, search
from promptsearch.runs.selection.nested_cv import by_vote, out_of_bag, settle
from promptsearch.runs.selection.select import bootstraps, folds, refilled
from promptsearch.search import (
    AskClimb,
    BeamSearch,
    EvolveSearch,
    HillClimb,
    RandomSearch,
    Searcher,
    Space,
    TpeSearch,
    get_objective,
)

CLASSES, DIM = 4, 12
BANK = Bank.of("made", [BASELINE, *(f"wording {i} of a {{}}." for i in range(12))])


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def never() -> Split:
    raise AssertionError("the test split was touched")


def evaluator(shots: int = 4, good: str = "wording 3 of a {}.", seed: int = 0, noise: float = 0.7) -> Evaluator:
    """Pictures that one template describes best; the others are that one with more noise."""
    rng = np.random.default_rng(7)
    centres = unit(rng.normal(size=(CLASSES, DIM)))
    draw = np.random.default_rng([seed, 1])
    labels = np.repeat(np.arange(CLASSES), shots)
    features = unit(centres[labels] + noise * draw.normal(size=(len(labels), DIM)) / math.sqrt(DIM) * 2)

    def encode(texts: Any) -> np.ndarray:
        rows = []
        for t in texts:
            c = int(t.replace(".", "").split("class")[1][0])
            spread = 0.01 if t.startswith(good.split("{}")[0]) else 1.0
            own = np.random.default_rng(list(t.encode())).normal(size=DIM) / math.sqrt(DIM)
            rows.append(centres[c] + spread * own)
        return unit(np.array(rows))

    names = tuple(f"class{c}" for c in range(CLASSES))
    support = Split(features, labels, np.arange(len(labels)))
    return Evaluator(Task("made", names, shots, seed, support, support, never), encode, 20.0)


def beam(bank: Bank = BANK) -> BeamSearch:
    return BeamSearch(bank, get_objective("xent"), width=3, depth=3)


def test_a_part_scores_as_a_task_of_its_own_pictures_does() -> None:
    whole = evaluator()
    sets = [PromptSet.of(t) for t in BANK] + [PromptSet.of(*BANK.templates[2:5])]
    whole.score(sets)
    at = np.array([15, 0, 3, 3, 9])
    part = whole.part(at)
    own = Evaluator(part.task, whole._text_vectors, 20.0)
    for ours, theirs in zip(part.score(sets), own.score(sets), strict=True):
        assert ours.accuracy == theirs.accuracy and ours.xent == pytest.approx(theirs.xent, rel=1e-5)
    part.score([PromptSet.of("something new of a {}.")])  # a template more, in the part alone
    whole.score([PromptSet.of("something else of a {}.")])
    assert part.score(sets) == whole.part(at).score(sets)
    with pytest.raises(PromptSearchError, match="has no test split"):
        part.task.open_test()


@pytest.mark.parametrize(("shots", "k"), [(1, 10), (4, 5), (16, 5), (3, 2)])
def test_folds_are_disjoint_even_and_cover_all(shots: int, k: int) -> None:
    labels = np.repeat(np.arange(10), shots)
    parts = folds(labels, k, seed=1, repeats=2)
    for inside, outside in parts:
        assert not set(inside) & set(outside) and len(inside) + len(outside) == len(labels)
    sizes = [len(outside) for _, outside in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([o for _, o in parts[:k]])) == list(range(len(labels)))
    again = folds(labels, k, seed=1, repeats=2)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(parts, again, strict=True))
    if shots % k == 0:  # stratified
        assert all((np.bincount(labels[o], minlength=10) == shots // k).all() for _, o in parts)


def test_bootstraps_keep_the_classes_and_what_is_outside_was_not_drawn() -> None:
    labels = np.repeat(np.arange(5), 4)
    for inside, outside in bootstraps(labels, 8, seed=0):
        assert (np.bincount(labels[inside]) == 4).all()
        assert set(inside) | set(outside) == set(range(20)) and not set(inside) & set(outside)


@pytest.mark.parametrize(("shots", "k"), [(4, 10), (16, 5), (2, 10), (1, 10)])
def test_a_refilled_fold_has_as_many_pictures_of_every_class_as_the_support_set(shots: int, k: int) -> None:
    labels = np.repeat(np.arange(10), shots)
    for part in folds(labels, k, seed=3):
        inside, outside = refilled(part, labels, seed=3)
        assert np.array_equal(outside, part[1]) and set(inside) == set(part[0])
        left = np.isin(np.arange(10), labels[part[0]])  # with one shot, classes outside have no picture inside
        assert np.array_equal(np.bincount(labels[inside], minlength=10), np.where(left, shots, 0))
        assert np.array_equal(refilled(part, labels, seed=3)[0], inside)


@pytest.mark.parametrize("method", SELECTIONS)
def test_every_method_finds_a_template_that_is_far_better(method: str) -> None:
    ev = evaluator(shots=8)
    found = search(beam(), ev).ranked
    selection = Selection(method, BANK, get_objective("xent"), whole=True)
    chosen = selection.choose(ev, found, Repeat(beam, BANK, ev))
    if method != "zpe":  # which reads no labels
        assert "wording 3 of a {}." in chosen.prompt_set.templates
    assert chosen.score == ev.score([chosen.prompt_set])[0]
    again = selection.choose(evaluator(shots=8), found, Repeat(beam, BANK, ev))
    assert again.prompt_set == chosen.prompt_set  # the same seed, the same choice


def test_a_better_class_name_is_found_and_a_worse_one_is_not_taken() -> None:
    """Vectors of names: "good" describes class 2 as its own name does not; "bad" describes nothing."""
    ev = evaluator(shots=8)
    honest = ev._text_vectors

    def encode(texts: Any) -> np.ndarray:
        plain = honest([t.replace("good", "class2").replace("bad", "class0") for t in texts])
        noise = unit(np.random.default_rng(3).normal(size=(1, DIM)))
        wrong = ["class2" in t or "bad" in t for t in texts]
        return unit(np.where(np.array(wrong)[:, None], noise, plain))

    bank = Bank("named", BANK.templates, class_names={"class2": ("good",), "class0": ("bad",)})
    named = Evaluator(ev.task, encode, 20.0)
    found = search(BeamSearch(bank, get_objective("xent"), width=2, depth=2), named).ranked
    chosen = Selection("posterior", bank, get_objective("xent"), whole=True).choose(named, found)
    assert chosen.prompt_set.class_names == ("class0", "class1", "good", "class3")
    assert chosen.score.xent < named.score([PromptSet(chosen.prompt_set.templates)])[0].xent


def test_with_little_evidence_the_posterior_stays_with_the_hand_written_prompt() -> None:
    """All templates say nearly the same: the prior decides, and the hand-written prompt has the largest share."""
    ev = evaluator(shots=1, good="{}")
    found = search(beam(), ev).ranked
    chosen = Selection("posterior", BANK, get_objective("xent"), whole=True).choose(ev, found)
    best = max(chosen.shares, key=chosen.shares.__getitem__)
    assert str(best) == BASELINE


def test_the_posterior_is_prior_times_likelihood() -> None:
    ev = evaluator(shots=2)
    singles = [PromptSet.of(t) for t in BANK]
    scores = ev.score(singles)
    logs = [math.log(0.2) if str(t) == BASELINE else math.log(0.8 / len(BANK)) for t in BANK] - len(
        ev.task.support
    ) * np.array([s.xent for s in scores])
    expected = np.exp(logs - logs.max())
    expected /= expected.sum()
    chosen = Selection("posterior", BANK, get_objective("xent"), whole=True).choose(ev, [(singles[0], scores[0])])
    for t, p in zip(BANK, expected, strict=True):
        if t in chosen.shares:
            assert chosen.shares[t] == pytest.approx(p, abs=1e-3)
        else:
            assert p < 0.01 or len(chosen.shares) == 12


@pytest.mark.parametrize("make", [RandomSearch, HillClimb])
def test_templates_that_a_search_did_not_score_alone_are_weighed_too(make: Any) -> None:
    """Among a few templates the hand-written prompt's prior would win; the choice scores the others."""
    ev = evaluator(shots=8)
    goal = get_objective("xent")
    found = [r for r in search(make(Space(BANK, 4), goal), ev, budget=Budget(5)).ranked if r[0].size > 1]
    whole = Selection("posterior", BANK, goal, whole=True).choose(ev, found)
    chosen = Selection("posterior", BANK, goal).choose(ev, found)
    assert "wording 3 of a {}." in chosen.prompt_set.templates
    assert chosen.prompt_set == whole.prompt_set and (chosen.scored, whole.scored) == (len(BANK) - 1, 0)


def test_of_a_large_bank_only_templates_that_the_search_met_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptsearch.runs.selection.select.WHOLE", 5)
    ev, goal = evaluator(shots=8), get_objective("xent")
    pair = PromptSet.of("wording 1 of a {}.", "wording 3 of a {}.")
    chosen = Selection("posterior", BANK, goal).choose(ev, [(pair, ev.score([pair])[0])])
    assert set(chosen.shares) <= {BASELINE, *pair.templates} and chosen.scored == 2
    assert max(chosen.shares, key=chosen.shares.__getitem__) == "wording 3 of a {}."


@pytest.mark.parametrize("method", ["cv", "bootstrap"])
def test_of_equals_the_more_fluent_set_is_taken(method: str) -> None:
    """Two wordings describe the pictures alike; the language model likes one more, and a bad one best of all."""
    equal = ["wording 3 of a {}.", "wording 3 of a {} indeed."]
    bank = Bank.of("made", [*BANK.templates, "wording 3 of a {} indeed."])

    def make(over: Bank) -> BeamSearch:
        return BeamSearch(over, get_objective("xent"), width=8, depth=1)

    for liked in equal:
        ev = evaluator(shots=8)
        encode = ev._text_vectors
        ev._text_vectors = lambda texts, encode=encode: encode([t.replace(" indeed", "") for t in texts])
        likes = {liked: -1.0, "wording 5 of a {}.": 0.0}
        ev.fluency = lambda sets, likes=likes: [min(likes.get(str(t), -5.0) for t in s.templates) for s in sets]
        selection = Selection(method, bank, get_objective("xent"))
        chosen = selection.choose(ev, search(make(bank), ev).ranked, Repeat(make, bank, ev))
        assert chosen.prompt_set == PromptSet.of(liked)


def test_an_estimate_judges_only_by_pictures_outside() -> None:
    """Labels drawn at random: the naive accuracy is high by luck, the nested one is not."""
    naive, honest = [], []
    for seed in range(6):
        ev = evaluator(shots=4, seed=seed, noise=50.0)
        selection = Selection("none", BANK, get_objective("accuracy"), seed=seed)
        found = search(BeamSearch(BANK, get_objective("accuracy"), width=3, depth=2), ev).ranked
        best = selection.choose(ev, found)
        repeat = Repeat(lambda bank: BeamSearch(bank, get_objective("accuracy"), width=3, depth=2), BANK, ev)
        e = nested(selection, repeat, best.score.accuracy)
        assert e.accuracy.low <= e.accuracy.value <= e.accuracy.high and e.against.pictures == 16
        naive.append(e.naive)
        honest.append(e.accuracy.value)
    assert np.mean(naive) > np.mean(honest) + 0.1


@pytest.mark.parametrize("method", SELECTIONS)
@pytest.mark.parametrize("pictures", [2, 3])
@pytest.mark.filterwarnings("error")
def test_one_picture_of_two_classes_is_enough(method: str, pictures: int) -> None:
    """A fold of the estimate leaves one or two pictures, which leave none or one in a fold of the choice."""
    whole = evaluator(shots=1)
    few = whole.part(np.arange(pictures))
    repeat = Repeat(beam, BANK, few)
    chosen, expected = settle(Selection(method, BANK, get_objective("xent")), repeat, search(beam(), few).ranked)
    assert math.isfinite(chosen.score.xent) and expected is not None
    assert 0 <= expected.accuracy.low <= expected.accuracy.value <= expected.accuracy.high <= 1
    one = whole.part(np.arange(1))
    if method in ("cv", "bootstrap"):
        alone = Selection(method, BANK, get_objective("xent")).choose(one, search(beam(), one).ranked, repeat)
        assert alone.prompt_set == PromptSet.of(BASELINE)


def test_out_of_bag_no_search_sees_the_picture_it_judges() -> None:
    """Labels drawn at random: the naive accuracy is high by luck, that of votes on pictures never seen is not."""
    naive, honest = [], []
    for seed in range(6):
        ev, goal = evaluator(shots=4, seed=seed, noise=50.0), get_objective("accuracy")
        repeat = Repeat(lambda bank, goal=goal: BeamSearch(bank, goal, width=3, depth=2), BANK, ev)
        selection = Selection("bagged", BANK, goal, seed=seed)
        chosen = selection.choose(ev, [], repeat)
        assert by_vote(selection)
        e = out_of_bag(selection, repeat, chosen)
        assert (e.way, e.folds, e.repeated) == ("out-of-bag", 20, True) and e.against.pictures <= 16
        assert e.accuracy.low <= e.accuracy.value <= e.accuracy.high
        assert set(e.kept) == {t for _, s in chosen.bags for t in s.templates} and max(e.kept.values()) <= 20
        naive.append(e.naive)
        honest.append(e.accuracy.value)
    assert np.mean(naive) > np.mean(honest) + 0.05


def test_resampled_searches_go_among_the_templates_that_are_best_alone() -> None:
    ev = evaluator(shots=8)
    seen: list[Bank] = []

    def fresh(bank: Bank) -> Searcher:
        seen.append(bank)
        return beam(bank)

    part, found = Repeat(fresh, BANK, ev).on(np.arange(0, 32, 2), among=4)
    scores = part.score([PromptSet.of(t) for t in BANK])
    best = sorted(range(len(BANK)), key=lambda i: (scores[i].xent, BANK.templates[i]))[:4]
    assert set(seen[-1].templates) == {BANK.templates[i] for i in best}
    assert all(set(s.templates) <= set(seen[-1].templates) for s, _ in found)


def test_a_search_that_cannot_be_repeated_chooses_again_among_what_it_found() -> None:
    ev = evaluator(shots=4)
    found = search(beam(), ev).ranked
    repeat = Repeat(None, BANK, ev, tuple(s for s, _ in found))
    e = nested(Selection("posterior", BANK, get_objective("xent")), repeat, 1.0)
    assert not e.repeated and sum(e.kept.values()) >= e.folds


def test_no_searcher_and_no_choice_touches_the_test_split() -> None:
    """The task's test split raises when it is touched."""
    xent = get_objective("xent")
    makers: list[Any] = [
        beam,
        lambda bank: RandomSearch(Space(bank, 2), xent),
        lambda bank: HillClimb(Space(bank, 2), xent),
        lambda bank: TpeSearch(Space(bank, 2), xent, startup=5),
        lambda bank: EvolveSearch(Space(bank, 2), xent, batch=3, population=4),
        lambda bank: AskClimb(Space(bank, 2), xent, batch=2, pool=3, shown=2),
    ]
    for make in makers:
        ev = evaluator()
        outcome = search(make(BANK), ev, budget=Budget(12))
        for method in SELECTIONS:
            selection = Selection(method, BANK, xent)
            repeat = Repeat(make, BANK, ev, (), 12)
            selection.choose(ev, outcome.ranked, repeat)
        nested(selection, repeat, 0.5)
        assert ev.task.test_opened == 0
    with pytest.raises(AssertionError, match="was touched"):
        ev.task.open_test()


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for gained, lost in ((0, 0), (5, 0), (3, 9), (40, 22), (1200, 1100)):
        expected = binomtest(min(gained, lost), gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(gained, lost) == pytest.approx(expected)


def test_verdicts() -> None:
    ours, theirs = np.zeros(400, bool), np.zeros(400, bool)
    ours[:60] = True
    theirs[40:60] = True
    better, worse, same = compare_paired(ours, theirs), compare_paired(theirs, ours), compare_paired(ours, ours)
    assert (better.verdict, worse.verdict) == ("it is better", "it is worse")
    assert same.verdict == "no evidence that it is better" and same.mcnemar == 1.0
    assert better.bootstrap.low == pytest.approx(better.difference.low, abs=0.01)
    assert better.bootstrap.high == pytest.approx(better.difference.high, abs=0.01)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(InputError, match="--select best: choose from none, posterior"):
        Selection("best", BANK, get_objective("xent"))


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    templates = [Template(f"wording {i} of a {{}}.") for i in range(9)]
    # What evolution makes of the words of these and of the hand-written prompt has to be in the cache, too.
    mixed = [Template("wording photo of a {}."), *(Template(f"a {i} of a {{}}.") for i in range(9))]
    make_problem(tmp_path / "cache", [*templates, *mixed])
    bank = tmp_path / "bank.txt"
    bank.write_text("".join(f"{t}\n" for t in templates))
    return ["--model", "tiny", "--dataset", "made", "--bank", str(bank), "--storage", str(tmp_path / "runs.db")]


def run(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.mark.parametrize("method", SELECTIONS)
def test_every_method_through_the_command_line(made: list[str], method: str) -> None:
    doc = json.loads(run("beam", *made, "--depth", "2", "--shots", "4", "--select", method, "--json").stdout)
    assert doc["selection"]["method"] == method
    e = doc["estimate"]
    assert e["low"] <= e["accuracy"] <= e["high"] and e["search_repeated"]
    assert (e["way"], e["folds"]) == (("out-of-bag", 20) if method == "bagged" else ("nested", 10))
    assert {"mcnemar", "bootstrap", "verdict", "difference", "low", "high"} <= doc["paired"].keys()


def test_evolution_by_the_banks_words_is_repeated_in_the_folds_and_its_own_record_left_alone(made: list[str]) -> None:
    options = ["evolve", *made, "--proposer", "grammar", "--population", "3", "--offspring", "2", "--ensemble", "2"]
    options += ["--trials", "14", "--shots", "3", "--json"]
    doc = json.loads(run(*options, "--study", "estimated").stdout)
    assert doc["estimate"]["search_repeated"] and doc["estimate"]["folds"] == 10
    plain = json.loads(run(*options, "--study", "plain", "--no-estimate").stdout)
    for key in ("winner", "runners_up", "proposals", "evaluations"):
        assert doc[key] == plain[key]
    bagged = json.loads(run(*options, "--study", "bagged", "--select", "bagged").stdout)
    assert bagged["estimate"]["search_repeated"] and bagged["estimate"]["way"] == "out-of-bag"


def test_weights_are_learnt_with_a_prior_towards_equal_ones() -> None:
    from scipy.optimize import minimize

    from promptsearch.runs.selection.select import learn_weights

    ev = evaluator(shots=8)
    sets = PromptSet.of(*BANK.templates[1:4], "wording 3 of a {}.")
    n = len(ev.task.support)

    def cost(weights: Any, prior: float) -> float:
        w = np.asarray(weights) / np.sum(weights)
        xent = ev.score([PromptSet(sets.templates, w.tolist())])[0].xent
        return float(n * xent - prior * np.log(len(w) * w).mean())

    equal = [1 / sets.size] * sets.size
    for prior in (1.0, 30.0):
        learnt = learn_weights(sets, ev, lambda s: s.xent, prior)
        assert learnt.weights is not None and learnt == learn_weights(sets, ev, lambda s: s.xent, prior)
        best = minimize(lambda z, p: cost(np.exp(z), p), np.zeros(sets.size), (prior,), method="Nelder-Mead")
        assert cost(learnt.weights, prior) <= best.fun + 0.01 < cost(equal, prior)
        of = dict(zip(learnt.templates, learnt.weights, strict=True))
        assert max(of, key=of.__getitem__) == "wording 3 of a {}."
    near = learn_weights(sets, ev, lambda s: s.xent, 1e6)
    assert near.weights == pytest.approx(equal, abs=0.01)
    one = PromptSet.of("wording 3 of a {}.")
    assert learn_weights(one, ev, lambda s: s.xent) == one
    found = search(beam(), ev).ranked
    chosen = Selection("weighted", BANK, get_objective("xent")).choose(ev, found)
    assert chosen.prompt_set == learn_weights(found[0][0], ev, lambda s: s.xent)
    assert set(chosen.shares) == set(found[0][0].templates)


def test_the_table_says_how_the_winner_was_chosen(made: list[str]) -> None:
    options = ["climb", *made, "--trials", "12", "--shots", "2"]
    doc = json.loads(run(*options, "--json").stdout)
    text = run(*options).stdout
    assert text.splitlines()[0].endswith(f": {doc['paired']['verdict']}.")
    assert f"{100 * doc['winner']['test']['accuracy']:.2f} % of {doc['test_pictures']} test" in text.splitlines()[0]
    assert "Estimate before the test" in text and "chosen by posterior" not in text and "runner-up" not in text
    text = run(*options, "-v").stdout
    for part in ("chosen by posterior", "Estimate before the test", "runner-up", "McNemar p", "Saved in "):
        assert part in text
    text = run("tpe", *made, "--trials", "12", "--shots", "2", "--no-estimate").stdout
    assert "Estimate before" not in text


def test_opening_the_test_split_for_a_second_choice_warns_and_is_recorded(made: list[str]) -> None:
    options = ["random", *made, "--shots", "2", "--study", "twice", "--select", "none", "--no-estimate"]
    first = run(*options, "--trials", "2", "--json")
    doc = json.loads(first.stdout)
    assert doc["test_opened"] == {"opened": 1, "choices": 1} and "Warning" not in first.stderr
    last = doc
    for trials in ("4", "6", "8", "10"):
        result = run(*options, "--trials", trials, "--json")
        before, last = last, json.loads(result.stdout)
        assert ("for another choice" in result.stderr) == (last["test_opened"]["choices"] > 1)
        assert last["test_opened"]["opened"] == before["test_opened"]["opened"] + 1
    assert last["test_opened"]["choices"] > 1 and last["winner"]["templates"] != doc["winner"]["templates"]
    assert "no unbiased test any more" in run("runs", "show", "twice", "--storage", made[-1]).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--select", "best"], "--select best: choose from none, posterior"),
        (["--select", "cv", "--shots", "0"], "--select cv needs labelled pictures"),
    ],
)
def test_bad_choices(made: list[str], args: list[str], message: str) -> None:
    error = run("beam", *made, "--shots", "2", *args, code=2).stderr
    assert message in error and len(error.strip().splitlines()) == 1


def test_a_run_cut_off_before_its_choice_chooses_the_same(made: list[str]) -> None:
    from promptsearch.runs import RunRecord

    whole = json.loads(run("beam", *made, "--shots", "3", "--study", "whole", "--json").stdout)
    run("beam", *made, "--shots", "3", "--study", "cut", "--json")
    record = RunRecord.load("cut", made[-1])
    record.set("result", None)  # as if it was killed before the result was written
    again = json.loads(run("runs", "resume", "cut", "--storage", made[-1], "--json").stdout)
    for key in ("winner", "selection", "estimate", "paired"):
        assert again[key] == whole[key]


def test_searchers_are_not_told_of_the_choice() -> None:
    """A searcher is a function of what it is told: repeating it leaves the first as it was."""
    ev = evaluator()
    searcher: Searcher = beam()
    outcome = search(searcher, ev)
    before = searcher.best
    nested(Selection("bagged", BANK, get_objective("xent")), Repeat(beam, BANK, ev), 0.5)
    assert searcher.best == before == outcome.winner
