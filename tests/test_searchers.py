"""The contract of every searcher: one suite, run over each of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from promptsearch.banks import Bank, Grammar, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.search import (
    AskClimb,
    BeamSearch,
    EvolveSearch,
    HillClimb,
    RandomSearch,
    Searcher,
    Space,
    TpeSearch,
    TrialSearcher,
    get_objective,
)
from promptsearch.search.tpe import few_good


@dataclass(frozen=True)
class FakeScore:
    accuracy: float
    xent: float


def made_up(s: PromptSet) -> FakeScore:
    """A fixed score per set that nobody can guess, with many equal accuracies."""
    h = int(s.key, 16)
    return FakeScore((h % 7) / 7, ((h >> 8) % 1000) / 1000)


def bank_of(n: int) -> Bank:
    return Bank("made", tuple(Template(f"wording {i} of a {{}}.") for i in range(n)))


def play(searcher: Searcher, score: Callable[[PromptSet], FakeScore] = made_up, limit: int = 10_000) -> list:
    """All batches that a searcher asks for, until it ends."""
    batches, asked = [], 0
    while batch := searcher.ask():
        batches.append(batch)
        asked += len(batch)
        assert asked <= limit, "the search does not end"
        searcher.tell([(s, score(s)) for s in batch])
    return batches


def by_trials(kind: type[TrialSearcher], **given) -> Callable[..., Searcher]:
    def build(bank: Bank, objective: str = "xent", ensemble: int = 2, **kw) -> Searcher:
        return kind(Space(bank, ensemble), get_objective(objective), **{**given, **kw})

    return build


SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "beam": lambda bank, objective="xent", **kw: BeamSearch(bank, get_objective(objective), **kw),
    "random": by_trials(RandomSearch),
    "random in batches": by_trials(RandomSearch, batch=5),
    "climb": by_trials(HillClimb),
    "climb in batches": by_trials(HillClimb, batch=5),
    "evolve": by_trials(EvolveSearch, batch=3, population=4),
    "evolve one by one": by_trials(EvolveSearch, batch=1, population=2),
    "climb by asking": by_trials(AskClimb, batch=2, pool=3, shown=2, patience=2),
    "tpe": by_trials(TpeSearch, startup=5),
    "tpe in batches": by_trials(TpeSearch, startup=5, batch=4),
    "nsga2": by_trials(TpeSearch, sampler="nsga2"),
    "qmc": by_trials(TpeSearch, sampler="qmc"),
    "cmaes": by_trials(TpeSearch, sampler="cmaes", startup=5),
}


@pytest.fixture(params=SEARCHERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Searcher]:
    return SEARCHERS[request.param]


def test_same_seed_same_asks(make) -> None:
    assert play(make(bank_of(12))) == play(make(bank_of(12)))


@functools.cache
def whole_search(name: str) -> list:
    return play(SEARCHERS[name](bank_of(10)))


@pytest.mark.parametrize("cut", range(6))
def test_replaying_what_was_told_continues_as_if_never_cut(make, cut: int, request: pytest.FixtureRequest) -> None:
    whole = whole_search(request.node.callspec.params["make"])
    first = make(bank_of(10))
    for _ in range(min(cut, len(whole))):
        first.tell([(s, made_up(s)) for s in first.ask()])
    second = make(bank_of(10))  # what was cut is told again to a fresh one
    for batch in whole[:cut]:
        assert second.ask() == batch
        second.tell([(s, made_up(s)) for s in batch])
    assert play(second) == whole[cut:]


def test_asking_twice_gives_the_same_batch(make) -> None:
    searcher = make(bank_of(8))
    assert searcher.ask() == searcher.ask()


def test_a_batch_has_no_repeats_and_an_exhausted_space_ends(make) -> None:
    for batch in play(make(bank_of(4))):
        assert batch and len(set(batch)) == len(batch)


def test_the_best_is_the_best_that_was_told(make) -> None:
    for objective in ("xent", "accuracy"):
        searcher = make(bank_of(12), objective)
        sets = [s for batch in play(searcher) for s in batch]
        key = get_objective(objective)
        assert searcher.best is not None
        assert key(searcher.best[1]) == max(key(made_up(s)) for s in sets)


def test_ties_are_broken_the_same_way_whatever_the_banks_order(make) -> None:
    def same(_: PromptSet) -> FakeScore:
        return FakeScore(0.5, 1.0)

    templates = bank_of(9).templates
    one, other = make(Bank("a", templates)), make(Bank("b", templates[::-1]))
    play(one, same)
    play(other, same)
    assert one.best == other.best
    assert one.best is not None and one.best[0].size == 1  # the smaller set wins a tie


def test_a_bank_of_one(make) -> None:
    searcher = make(bank_of(1))
    assert play(searcher) == [[PromptSet.of("wording 0 of a {}.")]]
    assert searcher.best is not None


def test_a_budget_of_one(make) -> None:
    searcher = make(bank_of(6))
    first = searcher.ask()[0]
    searcher.tell([(first, made_up(first))])
    assert searcher.best == (first, made_up(first)) and searcher.record() == [first]


TRIALS = [name for name in SEARCHERS if name not in ("beam",)]


@pytest.mark.parametrize("name", TRIALS)
def test_a_set_that_is_told_again_is_a_trial_and_nothing_more(name: str) -> None:
    searcher = SEARCHERS[name](bank_of(8))
    assert isinstance(searcher, TrialSearcher)
    for _ in range(2):
        searcher.tell([(s, made_up(s)) for s in searcher.ask()])
    again, best, known, trials = next(iter(searcher.known)), searcher.best, dict(searcher.known), searcher.trials
    searcher.tell([(again, made_up(again))])
    assert (searcher.best, searcher.known, searcher.trials) == (best, known, trials + 1)


@pytest.mark.parametrize("name", TRIALS)
def test_exhausted_means_that_every_set_was_scored(name: str) -> None:
    searcher = SEARCHERS[name](bank_of(5))
    play(searcher)
    assert isinstance(searcher, TrialSearcher)
    assert set(searcher.known) == set(searcher.space.sets()) and len(searcher.known) == 15


@pytest.mark.parametrize("name", TRIALS)
def test_telling_without_asking_resumes(name: str) -> None:
    """What a worker does with the trials that it finds in a run."""
    first = SEARCHERS[name](bank_of(9))
    told = []
    for _ in range(4):
        batch = [(s, made_up(s)) for s in first.ask()]
        first.tell(batch)
        told.append(batch)
    second = SEARCHERS[name](bank_of(9))
    for batch in told:
        second.tell(batch)
    assert second.ask() == first.ask() and second.best == first.best


@pytest.mark.parametrize("name", TRIALS)
def test_what_others_score_now_is_not_proposed(name: str) -> None:
    searcher = SEARCHERS[name](bank_of(8))
    assert isinstance(searcher, TrialSearcher)
    for _ in range(3):
        searcher.tell([(s, made_up(s)) for s in searcher.ask()])
    in_hand = [s for s in searcher.space.sets() if s not in searcher.known][:12]
    asked = searcher.ask(in_hand)
    assert asked and not set(asked) & set(in_hand)


@pytest.mark.parametrize("name", TRIALS)
def test_starting_points_come_first_and_may_be_from_outside(name: str) -> None:
    searcher = SEARCHERS[name](bank_of(6))
    assert isinstance(searcher, TrialSearcher)
    searcher.start = (PromptSet.of("a photo of a {}."), PromptSet.of(bank_of(6).templates[2]))
    asked = [s for batch in play(searcher) for s in batch]
    assert tuple(asked[:2]) == searcher.start
    assert set(searcher.known) >= {*searcher.space.sets(), searcher.start[0]}


def test_workers_of_one_run_draw_differently() -> None:
    asked = []
    for worker in (0, 1, 2):
        searcher = RandomSearch(Space(bank_of(50)), get_objective("xent"), seed=0, batch=5)
        searcher.worker = worker
        asked.append(tuple(searcher.ask()))
    assert len(set(asked)) == 3


GRAMMAR = Grammar(["[det] [quality] photo of a {}.", "[det] {}."], {"det": ["a", "the", "my"], "quality": ["", "dark"]})


@pytest.mark.parametrize("ensemble", [1, 3])
@pytest.mark.parametrize("name", ["climb", "tpe", "tpe in batches", "nsga2"])
def test_slots_of_a_grammar_are_what_is_searched(name: str, ensemble: int) -> None:
    bank = Bank.expanded("grammar", GRAMMAR, {Template("a {} indoors."): None})
    searcher = SEARCHERS[name](bank, ensemble=ensemble)
    assert isinstance(searcher, TrialSearcher)
    while searcher.trials < 40 and (batch := searcher.ask()):
        searcher.tell([(s, made_up(s)) for s in batch])
    assert searcher.best is not None and all(t in bank.templates for s in searcher.known for t in s.templates)
    for s in searcher.known:
        params = searcher.params(s)
        assert ("size" in params) == (ensemble > 1)
        assert searcher.encoding.recall(params) == s


def test_the_groups_of_slots_are_those_that_optuna_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are updated trial by trial, its own made anew each time: the same proposals."""
    from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace

    from promptsearch.search import tpe

    def proposals() -> list[PromptSet]:
        searcher = TpeSearch(Space(Bank.expanded("grammar", GRAMMAR), 3), get_objective("xent"), batch=2, startup=5)
        while searcher.trials < 30 and (batch := searcher.ask()):
            searcher.tell([(s, made_up(s)) for s in batch])
        return list(searcher.known)

    ours = proposals()
    monkeypatch.setattr(tpe, "_Groups", lambda: _GroupDecomposedSearchSpace(True))
    assert proposals() == ours


def test_a_set_is_never_proposed_again_and_the_whole_bank_is_found() -> None:
    """On a small bank TPE soon samples known sets; sets that were not scored replace them until none is left."""
    for seed in range(6):
        searcher = TpeSearch(Space(bank_of(8)), get_objective("xent"), seed=seed, startup=2)
        proposed = [s for batch in play(searcher) for s in batch]
        assert len(proposed) == len(set(proposed))
        assert set(proposed) == {PromptSet.of(t) for t in bank_of(8)}


def test_tpe_begins_with_single_templates_and_then_changes_a_member_of_a_good_ensemble() -> None:
    searcher = TpeSearch(Space(bank_of(30), 4), get_objective("xent"), batch=3, startup=9)
    near, sizes = [], set()
    while searcher.trials < 60:
        ranked = searcher.ranked(list(searcher.known.items()))
        good = [set(s.templates) for s, _ in ranked[: few_good(len(ranked))]]
        batch = searcher.ask()
        if len(searcher.known) < 9:
            assert all(s.size == 1 for s in batch)
        else:  # one member more, less or another; of a repeat a neighbour
            near += [min(len(set(s.templates) ^ g) for g in good) for s in batch]
            sizes |= {s.size for s in batch}
        searcher.tell([(s, made_up(s)) for s in batch])
    assert max(near) <= 4 and sum(n <= 2 for n in near) > 0.8 * len(near) and sizes == {1, 2, 3, 4}


def test_tpe_learns_of_a_member_whatever_its_place() -> None:
    """Where every member has a worth of its own, the best ensembles are found that chance does not find."""
    worth = {t: int(hashlib.sha256(t.encode()).hexdigest(), 16) % 1000 for t in bank_of(60).templates}

    def additive(s: PromptSet) -> FakeScore:
        return FakeScore(0.0, 3000.0 - sum(worth[t] for t in s.templates))

    def best_of(kind: type[TrialSearcher], seed: int) -> float:
        searcher = kind(Space(bank_of(60), 3), get_objective("xent"), seed=seed, batch=4)
        while searcher.trials < 80:
            searcher.tell([(s, additive(s)) for s in searcher.ask()])
        assert searcher.best is not None
        return searcher.best[1].xent

    gains = [best_of(RandomSearch, seed) - best_of(TpeSearch, seed) for seed in range(4)]
    assert min(gains) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "annealing"}, "--sampler annealing: choose from tpe"),
        ({"startup": 0}, "--startup 0: must be at least 1"),
        ({"batch": 0}, "--batch 0: must be at least 1"),
        ({"seed": -1}, "--seed -1: must be 0 or larger"),
        ({"sampler": "gp"}, "a Gaussian process needs the same slots"),
    ],
)
def test_tpe_refuses(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TpeSearch(Space(bank_of(3), 2), get_objective("xent"), **options)


def test_samplers_of_numbers_refuse_a_large_bank() -> None:
    for sampler in ("qmc", "cmaes"):
        with pytest.raises(InputError, match="300 templates are too many"):
            TpeSearch(Space(bank_of(300)), get_objective("xent"), sampler=sampler)


def test_climbing_ends_on_the_summit_of_a_smooth_hill() -> None:
    worth = {"a": 0, "the": 2, "my": 1, "": 0, "dark": 3}

    def hill(s: PromptSet) -> FakeScore:
        return FakeScore(0.0, -float(sum(worth.get(w, 0) for w in str(s.templates[0]).split())))

    bank = Bank.expanded("grammar", GRAMMAR)
    searcher = HillClimb(Space(bank), get_objective("xent"), seed=3)
    while searcher.trials < len(bank) - 1 and (batch := searcher.ask()):
        searcher.tell([(s, hill(s)) for s in batch])
    assert searcher.best is not None and str(searcher.best[0].templates[0]) == "the dark photo of a(n) {}."


def test_told_lists_are_left_as_they_are(make) -> None:
    searcher = make(bank_of(6))
    told = [(s, made_up(s)) for s in searcher.ask()]
    before = list(told)
    searcher.tell(told)
    assert told == before


def test_the_record_is_a_part_of_what_was_told(make) -> None:
    searcher = make(bank_of(8))
    while batch := searcher.ask():
        searcher.tell([(s, made_up(s)) for s in batch])
        kept = searcher.record()
        assert kept and set(kept) <= set(batch)


def test_beam_finds_the_best_pair_when_scores_add_up() -> None:
    worth = {t: int(hashlib.sha256(t.encode()).hexdigest(), 16) % 1000 for t in bank_of(20).templates}

    def additive(s: PromptSet) -> FakeScore:
        return FakeScore(0.0, -sum(worth[t] for t in s.templates))

    searcher = BeamSearch(bank_of(20), get_objective("xent"), width=2, depth=3)
    play(searcher, additive)
    top = sorted(worth, key=worth.__getitem__)[-3:]
    assert searcher.best is not None and set(searcher.best[0].templates) == set(top)


def test_beam_ranks_only_what_may_lead_and_finds_the_same_leaders() -> None:
    searcher = BeamSearch(bank_of(40), get_objective("xent"), width=5)
    sets = searcher.ask()
    rng = np.random.default_rng(0)
    for values in (rng.integers(0, 4, 40), rng.integers(0, 40, 40), np.zeros(40), np.full(40, np.nan)):
        told = [(s, FakeScore(0.5, float(v))) for s, v in zip(sets, values, strict=True)]
        leading = searcher._leading(told)
        assert searcher.ranked(leading)[:5] == searcher.ranked(told)[:5]
    assert len(searcher._leading([(s, FakeScore(0.5, float(i))) for i, s in enumerate(sets)])) == 5


def test_beam_stops_after_patience() -> None:
    def smaller_is_better(s: PromptSet) -> FakeScore:
        return FakeScore(0.0, float(s.size))

    batches = play(BeamSearch(bank_of(9), get_objective("xent"), depth=8, patience=2), smaller_is_better)
    assert [b[0].size for b in batches] == [1, 2, 3]


@pytest.mark.parametrize("option", ["width", "depth", "patience"])
def test_beam_refuses_options_below_one(option: str) -> None:
    with pytest.raises(InputError, match=f"--{option} 0: must be at least 1"):
        BeamSearch(bank_of(3), get_objective("xent"), **{option: 0})


def test_an_unknown_objective_names_those_there_are() -> None:
    with pytest.raises(InputError, match="'f1' is not known; choose from accuracy, xent"):
        get_objective("f1")


NAMED = ["beam", "climb", "climb in batches", "tpe", "tpe in batches", "nsga2", "evolve", "evolve one by one"]
OWN = ("automobile", "cat", "airplane")


def with_names(name: str, n: int = 6) -> Searcher:
    names = {"automobile": ("car", "vehicle"), "airplane": ("plane",), "truck": ("lorry",)}
    searcher = SEARCHERS[name](Bank("named", bank_of(n).templates, class_names=names))
    searcher.name_classes(OWN)
    return searcher


def drive(searcher: Searcher, score: Callable[[PromptSet], FakeScore] = made_up, batches: int = 60) -> list:
    asked = []
    while len(asked) < batches and (batch := searcher.ask()):
        assert batch == searcher.ask() and len(set(batch)) == len(batch)
        asked.append(batch)
        searcher.tell([(s, score(s)) for s in batch])
    return asked


def by_name(s: PromptSet) -> FakeScore:
    """One template and one name are better than the others."""
    names = s.class_names or OWN
    worth = 2.0 * (names[0] == "car") + ("wording 3 of a {}." in s.templates) - 0.1 * s.size - (names[2] != "airplane")
    return FakeScore(0.5, -worth)


@pytest.mark.parametrize("name", NAMED)
def test_other_names_for_classes_are_moves(name: str) -> None:
    searcher = with_names(name)
    asked = [s for batch in drive(searcher, by_name, 200) for s in batch]
    assert searcher.best is not None and searcher.best[0].class_names is not None
    assert searcher.best[0].class_names[0] == "car" and searcher.best[0].class_names[2] == "airplane"
    named = {s.class_names for s in asked} - {None}
    assert OWN not in named  # the task's own names are no names: equal sets are one
    assert all(n[0] in ("automobile", "car", "vehicle") and n[1] == "cat" for n in named)


@pytest.mark.parametrize("cut", [1, 4, 9])
@pytest.mark.parametrize("name", NAMED)
def test_searches_with_names_are_replayed_and_resumed(name: str, cut: int) -> None:
    first = with_names(name)
    whole = drive(first)
    second = with_names(name)
    for batch in whole[:cut]:
        if not isinstance(second, TrialSearcher):
            assert second.ask() == batch
        second.tell([(s, made_up(s)) for s in batch])  # by trials: told without asking
    assert drive(second, batches=60 - min(cut, len(whole))) == whole[cut:]
    assert second.best == first.best


def test_names_are_parameters_of_a_trial() -> None:
    searcher = with_names("tpe")
    assert isinstance(searcher, TrialSearcher)
    s = PromptSet(bank_of(6).templates[:2], class_names=("car", "cat", "airplane"))
    params = searcher.params(s)
    assert params["name of automobile"] == "car" and params["name of airplane"] == "airplane"
    assert searcher.encoding.recall(params) == s
    assert searcher.params(PromptSet(s.templates, class_names=("dog", "cat", "airplane"))) == {}


def test_a_bank_without_names_for_these_classes_has_no_such_move() -> None:
    searcher = SEARCHERS["beam"](Bank("named", bank_of(5).templates, class_names={"truck": ("lorry",)}))
    searcher.name_classes(OWN)
    assert searcher.names is None and play(searcher) == play(SEARCHERS["beam"](bank_of(5)))
