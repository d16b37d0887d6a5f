"""Evolution in processes of their own: many at one run, and killed ones, with a language model that counts its calls.

The server writes templates whose vectors are cached, so no process needs torch.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer, faulty_server
from trial_runs import PROBLEM, document, prepare, recorded, start, wait_for_trials

from promptsearch.banks import load_bank
from promptsearch.runs import RunRecord

TOTAL = 40


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


@pytest.fixture
def options(tmp_path: Path, server: FaultyServer) -> list[str]:
    """A bank of a few of the templates that the server knows, and how it is asked."""
    known = load_bank(prepare(tmp_path)).templates
    server.says = lambda body: str(known[body["seed"] % len(known)])
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(known[::4]))
    where = ["--lm-url", server.url, "--lm-model", "m", "--lm-concurrency", "1"]
    return ["evolve", *PROBLEM, "--bank", str(bank), *where, "--population", "6", "--offspring", "3", "--study", "r"]


def replies(storage: object) -> list[str]:
    """What the study keeps of the model's words."""
    attrs = RunRecord.load("r", str(storage)).study.user_attrs
    steps = [v["replies"] for k, v in attrs.items() if k.startswith("replies ")]
    return [reply for step in steps for attempt in step for reply in attempt]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_four_workers_evolve_one_population(
    kind: str, options: list[str], server: FaultyServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    storage = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgres")
    document(*options, "--storage", storage, "--trials", 2)
    RunRecord.load("r", storage).set("budget", {"trials": TOTAL})
    joined = ["worker", "--study", "r", "--storage", storage, "--lm-url", server.url, "--json"]
    workers = [start(*joined) for _ in range(4)]
    outputs = [w.communicate(timeout=240) for w in workers]
    assert [w.returncode for w in workers] == [0] * 4 and all(not err for _, err in outputs), outputs
    trials = recorded("r", storage)
    assert [n for n, _, _ in trials] == list(range(TOTAL))
    assert sum(json.loads(out)["scored"] for out, _ in outputs) == TOTAL - 2
    assert len({t for _, t, _ in trials}) == TOTAL  # whoever proposed it, nothing is scored twice
    doc = document(*options, "--storage", storage, "--trials", TOTAL)
    assert doc["run"]["trials"] == TOTAL and doc["proposals"]["proposed"] > 0
    assert doc["winner"]["support"]["xent"] == pytest.approx(min(x for _, _, x in trials), abs=1e-6)
    assert doc["proposals"]["usage"]["calls"] >= len(replies(storage)) > 0  # those of all workers


def test_a_killed_evolution_asks_the_model_nothing_twice(
    options: list[str], server: FaultyServer, tmp_path: Path
) -> None:
    whole = document(*options, "--storage", tmp_path / "whole.db", "--trials", 24)
    asked_by_whole = [body["seed"] for body in server.requests]
    assert len(set(asked_by_whole)) == len(asked_by_whole)
    server.requests.clear()
    db = tmp_path / "runs.db"
    victim = start(*options, "--storage", db, "--trials", 24)
    wait_for_trials(db, 16, victim)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=240)
    kept, before = len(replies(db)), len(server.requests)
    finished: Any = document(*options, "--storage", db, "--trials", 24)
    assert recorded("r", db) == recorded("r", tmp_path / "whole.db")
    assert finished["winner"] == whole["winner"]
    again = [body["seed"] for body in server.requests[before:]]
    done = asked_by_whole[:kept]  # one call at a time: in the order of the steps
    assert kept > 0 and not set(again) & set(done)
    assert set(done) | set(again) == set(asked_by_whole)
