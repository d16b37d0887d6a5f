"""Evolution: who survives, what is asked of the proposer, and that a killed run asks nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from promptsearch.banks import Bank, PromptSet, Template
from promptsearch.cli import main
from promptsearch.config import RunConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Score
from promptsearch.runs import Budget, RunRecord, search
from promptsearch.runs.store.record import StudyJournal
from promptsearch.search import AskClimb, EvolveSearch, Space, Survival, Tools, WritingSearcher, get_objective
from promptsearch.search.evolve import whole_numbers
from promptsearch.search.proposers import KINDS, Request

BANK = Bank("made", tuple(Template(f"wording {i} of a {{}}.") for i in range(40)))


class Evaluator:
    """Made-up scores, counted; `while_scoring` is called in the midst of them."""

    def __init__(self, while_scoring: Callable[[], None] = lambda: None) -> None:
        self.scored: list[PromptSet] = []
        self.task = SimpleNamespace(labelled=True)
        self.while_scoring = while_scoring

    def require(self, figures: Sequence[str], templates: Sequence[str]) -> None:
        """All there are."""

    def score(self, sets: Sequence[PromptSet]) -> list[Score]:
        self.while_scoring()
        self.scored += sets
        return [Score(int(s.key, 16) % 101 / 101, int(s.key[:8], 16) % 1000 / 1000) for s in sets]


class Writer:
    """A proposer that says something new each time, so that a second asking shows."""

    def __init__(self, replies: Callable[[Request, int], str] | None = None) -> None:
        self.calls = 0
        self.asked: list[Request] = []
        self.replies = replies or (lambda request, n: f"{request.kind} number {n} of a {{}}.")

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        self.calls += 1
        first = len(self.asked)
        self.asked += requests
        return [self.replies(r, first + i) for i, r in enumerate(requests)]


def evolve(ensemble: int = 1, tools: Tools | None = None, bank: Bank = BANK, **kw: Any) -> EvolveSearch:
    survival = Survival(**{k: kw.pop(k) for k in ("elite", "crowding") if k in kw})
    options = {"batch": 4, "population": 6, "survival": survival, **kw}
    searcher = EvolveSearch(Space(bank, ensemble), get_objective("xent"), **options)
    searcher.equip(tools or Tools())
    return searcher


def play(searcher: WritingSearcher, trials: int, evaluator: Evaluator | None = None) -> list[PromptSet]:
    evaluator = evaluator or Evaluator()
    searcher.total = trials
    while searcher.trials < trials and (batch := searcher.ask()):
        batch = batch[: trials - searcher.trials]
        searcher.tell(list(zip(batch, evaluator.score(batch), strict=True)))
    return evaluator.scored


def record(name: str = "run") -> RunRecord:
    return RunRecord.open(name, None, RunConfig.from_dict({"command": "evolve", "objective": "xent"}), {})


def test_every_kind_of_request_is_made_and_history_shows_the_best_last() -> None:
    writer = Writer()
    play(evolve(tools=Tools(writer)), 300)
    assert {r.kind for r in writer.asked} == set(KINDS) - {"better"}
    for request in writer.asked:
        if request.kind == "history":
            scores = [n for n, _ in request.scores]
            assert scores == sorted(scores) and len(scores) > 2
        else:
            assert len(request.parents) == (2 if request.kind == "crossover" else 1)


def test_history_of_ensembles_shows_each_template_once_in_the_place_of_its_best_set() -> None:
    writer = Writer()
    play(evolve(3, Tools(writer), population=12), 300)
    histories = [r.scores for r in writer.asked if r.kind == "history"]
    assert histories
    for scores in histories:
        assert [n for n, _ in scores] == sorted(n for n, _ in scores) and len({t for _, t in scores}) == len(scores)


def test_scores_are_shown_as_whole_numbers_in_order() -> None:
    assert whole_numbers([-2.0, -0.5, 0.0]) == [14, 61, 100]
    assert whole_numbers([0.25, 0.5]) == [25, 50]
    assert whole_numbers([-1.0, 1.0, 3.0]) == [0, 50, 99]
    assert whole_numbers([2.0, 2.0]) == [0, 0]


def test_ensembles_grow_shrink_and_stay_within_bounds() -> None:
    sizes = {s.size for s in play(evolve(3, Tools(Writer())), 200)}
    assert sizes == {1, 2, 3}


def test_written_sets_may_lie_outside_the_bank_and_the_rest_comes_from_it() -> None:
    scored = play(evolve(tools=Tools(Writer(lambda r, n: "no place for the name"))), 40)
    assert len(scored) == 40 and {t for s in scored for t in s.templates} == set(BANK.templates)
    assert len(set(play(evolve(tools=Tools(Writer())), 120))) == 120


def test_rejects_are_counted_by_reason() -> None:
    replies = ["nothing", "a {} and a {}.", "a dog and a {}.", "wording 3 of a {}.", "a word too much of a {}."]
    searcher = evolve(
        tools=Tools(
            Writer(lambda r, n: replies[n % len(replies)]),
            class_names=["dog"],
            fits=lambda templates: ["too much" not in t for t in templates],
        )
    )
    play(searcher, 60)
    reported = searcher.reported()
    assert reported["rejected"].keys() == {
        "no {}", "more than one {}", "names a class", "seen before", "too many tokens for the model",
    }  # fmt: skip
    assert sum(reported["rejected"].values()) <= reported["proposed"]


def test_near_duplicates_do_not_crowd_out_the_population() -> None:
    axes = np.eye(8)

    def vectors(sets: Sequence[PromptSet]) -> np.ndarray:
        rows = [axes[len(s.templates[0]) % 8] for s in sets]
        return np.array(rows)

    crowded = evolve(tools=Tools(Writer(lambda r, n: f"{'x' * (n % 20)} {n} {{}}"), vectors=vectors), elite=2)
    play(crowded, 150)
    best = crowded._now.best
    assert len({len(s.templates[0]) % 8 for s, _ in best}) >= len(best) - 1 > 2  # one axis each, but for the elite
    assert best[0][0] == crowded.best[0]  # type: ignore[index]


def test_the_next_templates_are_written_while_these_are_scored() -> None:
    written = threading.Event()

    def reply(request: Request, n: int) -> str:
        written.set()
        return f"number {n} of a {{}}."

    searcher = evolve(tools=Tools(Writer(reply)))
    play(searcher, 8)
    written.clear()
    waits: list[bool] = []

    def wait() -> None:
        if searcher.trials < 36:  # nothing is written for a step that the budget has no room for
            waits.append(written.wait(20))
            written.clear()

    play(searcher, 40, Evaluator(wait))
    assert waits and all(waits)


def climb(ensemble: int = 1, tools: Tools | None = None, bank: Bank = BANK, **kw: Any) -> AskClimb:
    searcher = AskClimb(Space(bank, ensemble), get_objective("xent"), **{"pool": 6, "patience": 3, **kw})
    searcher.equip(tools or Tools())
    return searcher


ONE = Bank("one", (Template("a photo of a {}."),))


@pytest.mark.parametrize("make", [evolve, climb])
def test_a_bank_of_one_is_enough_to_begin_with(make: Callable[..., WritingSearcher]) -> None:
    writer = Writer()
    scored = play(make(tools=Tools(writer), bank=ONE), 24)
    assert len(set(scored)) == 24 and len(writer.asked) < 36
    assert len(play(make(bank=ONE), 24)) == 1  # edits by the words of one template are that template


@pytest.mark.parametrize(
    ("make", "bank", "cut"),
    [(evolve, BANK, 9), (evolve, BANK, 14), (evolve, BANK, 20), (evolve, ONE, 2), (climb, BANK, 14), (climb, ONE, 2)],
)
def test_a_killed_run_asks_nothing_twice_and_ends_as_if_never_killed(
    make: Callable[..., WritingSearcher], bank: Bank, cut: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("promptsearch.runs.store.trial_claims.is_dead", lambda owner: True)  # its worker died

    class Killed(BaseException):
        pass

    def run(name: str, kill_after: int | None = None) -> tuple[Writer, list]:
        kept = record(name)
        writer = Writer(lambda r, n: f"{r.kind} of {zlib.crc32(repr(r).encode()) % 97} {{}}")
        evaluator = Evaluator()

        def killing() -> None:
            if kill_after is not None and len(evaluator.scored) >= kill_after:
                raise Killed

        evaluator.while_scoring = killing
        searcher = make(2, Tools(writer, journal=StudyJournal(kept)), bank)
        try:
            search(searcher, evaluator, kept, budget=Budget(32))  # type: ignore[arg-type]
        except Killed:
            searcher.finish()
        return writer, kept.trials()

    whole_writer, whole = run("whole")
    first, part = run("cut", cut)
    assert len(part) < 32
    second, again = run("cut")
    assert again == whole
    finished = len(StudyJournal(record("whole")).keys())  # type: ignore[arg-type]
    assert len(StudyJournal(record("cut")).keys()) == finished  # type: ignore[arg-type]
    assert second.calls <= whole_writer.calls - max(0, first.calls - 1)  # but for the one that was being written


def test_raw_replies_and_origins_are_kept_with_the_trials() -> None:
    kept = record()
    search(evolve(tools=Tools(Writer(), journal=StudyJournal(kept))), Evaluator(), kept, budget=Budget(40))  # type: ignore[arg-type]
    again = record()
    origins = [t.user_attrs["origin"] for t in again.study.trials if "origin" in t.user_attrs]
    assert origins and all(o.keys() == {"kind", "parents", "reply"} for o in origins)
    journal = StudyJournal(again)
    replies = [r for key in journal.keys() for asked in journal.get(key)["replies"] for r in asked]  # noqa: SIM118
    assert {o["reply"] for o in origins} <= set(replies)


def test_a_proposer_that_fails_ends_the_run_and_loses_nothing() -> None:
    def fail(request: Request, n: int) -> str:
        if n > 20:
            raise PromptSearchError("the model is gone")
        return f"number {n} of a {{}}."

    kept = record()
    with pytest.raises(PromptSearchError, match="the model is gone"):
        search(evolve(tools=Tools(Writer(fail), journal=StudyJournal(kept))), Evaluator(), kept, budget=Budget(90))  # type: ignore[arg-type]
    done = len(kept.trials())
    assert done > 10
    outcome = search(evolve(tools=Tools(Writer(), journal=StudyJournal(kept))), Evaluator(), kept, budget=Budget(90))  # type: ignore[arg-type]
    assert outcome.evaluations == 90 > done


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("population", 1, "--population 1: must be at least 2"),
        ("elite", 0, "--elite 0: must be from 1"),
        ("elite", 9, "--elite 9"),
        ("crowding", 0.0, "--crowding 0.0"),
        ("crowding", 1.5, "--crowding 1.5"),
        ("immigrants", -0.1, "--immigrants -0.1: must be a share"),
        ("immigrants", float("nan"), "--immigrants nan"),
        ("batch", 0, "must be at least 1"),
    ],
)
def test_bad_options(option: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evolve(**{option: value})


@pytest.mark.parametrize(("share", "drawn"), [(0.0, 0), (1.0, 30)])
def test_immigrants_are_a_share_of_the_offspring(share: float, drawn: int) -> None:
    scored = play(evolve(tools=Tools(Writer()), immigrants=share), 30)
    offspring = [s for s in scored[12:] if s.templates[0].startswith("wording")]
    assert len(offspring) == max(0, drawn - 12)


GRAMMAR = ["evolve", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "2", "--trials", "24", "--no-estimate"]
GRAMMAR += ["--population", "6", "--bank", "templates", "--proposer", "grammar", "--json"]


def test_the_command_finds_resumes_and_reports(tmp_path: Path) -> None:
    def run(*args: str) -> dict[str, Any]:
        result = CliRunner().invoke(main, list(args))
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    whole = run(*GRAMMAR, "--study", "whole")
    assert whole["evaluations"] == 24 and whole["proposals"]["proposed"] > 5
    run(*GRAMMAR, "--study", "part", "--trials", "15")
    more = run("runs", "resume", "part", "--trials", "24", "--json")
    assert (more["winner"], more["runners_up"]) == (whole["winner"], whole["runners_up"])
    code = (
        "import sys\nfrom promptsearch.cli import main\n"
        f"main({[*GRAMMAR, '--study', 'again']!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'datasets') if m in sys.modules])"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    env = {**os.environ, "PYTHONPATH": path, "PROMPTSEARCH_HOME": str(tmp_path / "other")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr  # all is cached: no torch without a language model
    shown = CliRunner().invoke(main, [a for a in GRAMMAR if a != "--json"] + ["--study", "whole"])
    table = shown.stdout
    assert shown.exit_code == 0, (shown.stderr, shown.exception)
    counted = whole["proposals"]
    assert f"{counted['proposed']} prompts proposed, {counted['accepted']} accepted, rejected: " in table
    assert counted["proposed"] == counted["accepted"] + counted["spare"] + sum(counted["rejected"].values())


def test_generations_are_a_total_as_trials_are() -> None:
    args = [a for a in GRAMMAR if a not in ("--trials", "24")] + ["--offspring", "3", "--study", "counted"]

    def trials(*more: str) -> int:
        result = CliRunner().invoke(main, [*args, *more])
        assert result.exit_code == 0, (result.output, result.exception)
        return int(json.loads(result.stdout)["run"]["trials"])

    assert trials("--generations", "2") == 12
    assert trials("--generations", "4") == 18
    assert trials("--generations", "6", "--trials", "20") == 20  # what ends first
    assert trials("--generations", "5", "--trials", "100") == 21


def test_climbing_shows_the_best_last_and_the_worst_without_scores() -> None:
    writer = Writer()
    searcher = climb(tools=Tools(writer), shown=2)
    play(searcher, 16)
    request = writer.asked[0]
    assert request.kind == "better" and not request.scores
    assert len(request.good) == len(request.bad) == 2 and not set(request.good) & set(request.bad)
    scores = {t: Evaluator().score([PromptSet.of(t)])[0].xent for t in (*request.good, *request.bad)}
    good, bad = [scores[t] for t in request.good], [scores[t] for t in request.bad]
    assert good == sorted(good, reverse=True) and min(bad) >= max(good)


def test_climbing_begins_again_with_a_new_pool() -> None:
    writer = Writer()
    scored = play(climb(tools=Tools(writer), patience=2), 120)
    drawn = [i for i, s in enumerate(scored) if s.templates[0].startswith("wording")]
    assert len(drawn) > 12 and max(drawn) > 40  # not only the first pool comes from the bank
    assert {s.size for s in play(climb(3, Tools(Writer())), 120)} == {1, 2, 3}


@pytest.mark.parametrize(("option", "value"), [("pool", 0), ("shown", 0), ("patience", 0), ("shown", 7)])
def test_bad_options_of_climbing(option: str, value: int) -> None:
    with pytest.raises(InputError, match=f"--{option} {value}"):
        climb(**{option: value})
