"""What strangers hand over: databases, rows, plug-ins, names. One line each, and nothing of theirs is obeyed."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from faulty_server import faulty_server
from hypothesis import given
from hypothesis import strategies as st
from trial_runs import PROBLEM, document, prepare, run

from promptsearch import plugins
from promptsearch.cli import main
from promptsearch.reports.comparison import COLUMNS, no_formula, to_csv


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A storage with two runs."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PROMPTSEARCH_CACHE", str(folder / "cache"))
        bank = prepare(folder)
        for name in ("one", "two"):
            options = ["--bank", bank, "--storage", str(folder / "runs.db"), "--study", name, "--trials", "4"]
            result = CliRunner().invoke(main, ["random", *PROBLEM, *options])
            assert result.exit_code == 0, result.output
    with sqlite3.connect(folder / "runs.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (folder / "runs.db").read_bytes()


COMMANDS = [
    ["list"],
    ["show", "one"],
    ["best", "one"],
    ["export", "one"],
    ["resume", "one"],
    ["delete", "one", "--yes"],
]


def _ends(result: Result) -> None:
    """A result, or one line and no traceback."""
    assert result.exit_code in (0, 1, 2), result.exception
    if result.exit_code:
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and errors[0].isprintable() and len(errors[0]) < 1500, result.stderr
    assert "Traceback" not in result.output and "\x1b" not in result.output


def zeroed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(4096) + data[at + 4096 :]


DATABASES = {
    "empty": lambda d: b"",
    "text": lambda d: b"no database at all, but more than sixteen bytes",
    "a header alone": lambda d: d[:100],
    "half": lambda d: d[: len(d) // 2],
    "cut within a page": lambda d: d[:-1000],
    "zeros": lambda d: bytes(len(d)),
    "a zeroed first page": lambda d: zeroed(d, 0),
    "a zeroed second page": lambda d: zeroed(d, 4096),
    "noise": lambda d: random.Random(0).randbytes(20_000),
    "noise behind a header": lambda d: d[:100] + random.Random(0).randbytes(len(d) - 100),
    "a web page": lambda d: b"<!doctype html><html>" + b" " * 5000,
}


@pytest.mark.parametrize("damage", DATABASES.values(), ids=DATABASES)
def test_a_damaged_database_is_one_line(whole: bytes, tmp_path: Path, damage) -> None:
    db = tmp_path / "runs.db"
    for command in (["list"], ["show", "one"]):
        db.write_bytes(damage(whole))
        result = CliRunner().invoke(main, ["runs", *command, "--storage", str(db)])
        _ends(result)
        assert not result.exit_code or str(db) in result.stderr
        assert result.exit_code or len(db.read_bytes()) > len(whole) // 2  # a free page may be cut


def test_flipped_bytes_of_a_database_are_one_line(whole: bytes, tmp_path: Path) -> None:
    rng = random.Random(1)
    for i in range(25):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 20, 400])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        db = tmp_path / f"{i}.db"
        db.write_bytes(data)
        for command in (["list"], ["show", "one"], ["export", "two"]):
            _ends(CliRunner().invoke(main, ["runs", *command, "--storage", str(db)]))


def test_a_foreign_database_is_left_as_it_is(tmp_path: Path) -> None:
    db = tmp_path / "photos.db"
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = db.read_bytes()
    for command in (["runs", "list"], ["runs", "show", "x"], ["worker", "--study", "x", "--wait", "0"]):
        assert "no runs are saved in" in run(*command, "--storage", db, code=2).stderr
    assert db.read_bytes() == before


def test_a_foreign_postgresql_database_is_left_as_it_is(postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("CREATE TABLE photos (name TEXT)")
        assert "no runs are saved in" in run("runs", "list", "--storage", postgres, code=2).stderr
        assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


DEEP = '{"a":' * 20_000
VALUES = ["", "{", "null", "3", "[]", "{}", '"x"', "[1]", '{"run": 3}', DEEP, "1e999", '{"command": "beam"}', "\x00"]
VALUES += [
    '{"winner": {"test": {"accuracy": "x"}}, "run": {}}',
    '"\\u001b[2J"',
    '{"templates": ["\\u001b]0;x\\u0007 {}"]}',
]


@pytest.mark.parametrize("key", ["config", "about", "result", "bank", "budget", "start", "draw"])
def test_tampered_attributes_of_a_run_are_one_line(whole: bytes, tmp_path: Path, key: str) -> None:
    db = tmp_path / "runs.db"
    for value in VALUES:
        db.write_bytes(whole)
        with sqlite3.connect(db) as connection:
            where = "WHERE key = ? AND study_id = (SELECT study_id FROM studies WHERE study_name = 'one')"
            connection.execute(f"UPDATE study_user_attributes SET value_json = ? {where}", (value, key))
        connection.close()
        for command in COMMANDS:
            _ends(CliRunner().invoke(main, ["runs", *command, "--storage", str(db)]))
        listed = CliRunner().invoke(main, ["runs", "list", "--json", "--storage", str(db)])
        assert "two" in [r["study"] for r in json.loads(listed.stdout)]  # the other run is whole


@pytest.mark.parametrize("key", ["prompt_set", "templates", "accuracy", "xent", "step", "worker", "owner"])
def test_tampered_trials_are_one_line(whole: bytes, tmp_path: Path, key: str) -> None:
    db = tmp_path / "runs.db"
    for value in VALUES:
        db.write_bytes(whole)
        with sqlite3.connect(db) as connection:
            connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = ?", (value, key))
            connection.execute("UPDATE study_user_attributes SET value_json = 'null' WHERE key = 'result'")
        connection.close()
        for command in COMMANDS[1:]:
            _ends(CliRunner().invoke(main, ["runs", *command, "--storage", str(db)]))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE trials SET state = 'WEIRD'",
        "UPDATE trials SET number = NULL",
        "UPDATE trials SET datetime_start = 'yesterday'",
        "UPDATE studies SET study_name = char(27) || '[2Jone' WHERE study_name = 'one'",
        "UPDATE study_directions SET direction = 'UP'",
        "UPDATE trial_values SET value = 'x'",
        "DROP TABLE trials",
        "DROP TABLE study_user_attributes",
        "UPDATE alembic_version SET version_num = 'v99'",
        "UPDATE trial_params SET distribution_json = '{'",
    ],
)
def test_tampered_tables_are_one_line(whole: bytes, tmp_path: Path, sql: str) -> None:
    db = tmp_path / "runs.db"
    for command in COMMANDS:
        db.write_bytes(whole)
        with sqlite3.connect(db) as connection:
            connection.execute(sql)
        connection.close()
        _ends(CliRunner().invoke(main, ["runs", *command, "--storage", str(db)]))


FORMULAS = [
    "=1+1 {}",
    "+1 {}",
    "-1 {}",
    "@SUM(1) {}",
    "＝1 {}",
    "a {};=1+1",
    "a {},=1+1",
    " =1 {}",
    '"=1 {}',
    "a {}\t=1",
    "\t{}",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_a_formula(text: str) -> None:
    cell = no_formula(text)
    for separator in "\0;,\t":
        for part in cell.split(separator):
            assert part.strip(' "\t')[:1] not in tuple("=+-@＝＋－＠"), cell


@given(st.text(st.sampled_from("=+-@;, \t\r\n\"'a{}＝"), max_size=12))
def test_nothing_becomes_a_formula(text: str) -> None:
    cell = no_formula(text)
    assert cell[:1] not in tuple("=+-@\t\r＝＋－＠") and cell.replace("'", "") == text.replace("'", "")


def test_numbers_stay_numbers() -> None:
    assert [no_formula(c) for c in (-0.5, 3, None, "a photo of a {}.", "a-b {} + c")] == [
        *(-0.5, 3, None),
        "a photo of a {}.",
        "a-b {} + c",
    ]


def test_a_comparison_holds_no_escapes_and_no_formula() -> None:
    cell = dict.fromkeys(COLUMNS) | {"dataset": "pets\x1b[2J\n=1", "templates": ["a \x9b2J{}"], "support_accuracy": 0.5}
    row = next(csv.DictReader(io.StringIO(to_csv({"cells": [cell]}))))
    assert row["dataset"].isprintable() and row["templates"].isprintable() and float(row["support_accuracy"]) == 0.5


def test_an_exported_run_has_no_formula(tmp_path: Path) -> None:
    from made_problem import make_problem

    from promptsearch.banks import load_bank

    bank = tmp_path / "bank.txt"
    bank.write_text("=HYPERLINK(1) {}\n+1 {}\n-1 {}\n@x {}\n")
    make_problem(Path(os.environ["PROMPTSEARCH_CACHE"]), load_bank(str(bank)).templates)
    run("random", *PROBLEM, "--bank", bank, "--trials", "5", "--study", "r")
    rows = list(csv.reader(io.StringIO(run("runs", "export", "r").stdout)))
    assert len(rows) == 6 and all(row[-1][0] not in "=+-@" for row in rows)
    assert {t for r in document("runs", "export", "r")["trials"] for t in r["templates"]} >= {"+1 {}", "-1 {}"}


BODIES = {
    "exits": "raise SystemExit(0)",
    "exits with a word": "raise SystemExit('bye')",
    "sys.exit": "import sys; sys.exit(0)",
    "raises": "raise ValueError('two\\nlines \\x1b[2J')",
    "raises oddly": "raise BaseException('x')",
    "recurs": "f = lambda: f(); f()",
    "asserts": "assert False",
    "is interrupted by itself": "raise StopIteration",
    "leaves": "raise GeneratorExit",
}


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with a bank, a data set, an objective and a searcher, whose body a test writes."""
    site = tmp_path / "site"
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    points = "".join(f"[promptsearch.{kind}]\nodd-one = odd_one:{kind}\n" for kind in plugins.KINDS)
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(site))
    plugins.found.cache_clear()
    yield site / "odd_one.py"
    plugins.found.cache_clear()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("kind", ["banks", "datasets", "objectives", "searchers", "the module"])
def test_plugins_that_exit_or_raise(
    plugged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, body: str
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "odd_one", raising=False)
    code = "".join(f"def {k}(*args, **kw):\n    {body}\n" for k in plugins.KINDS)
    plugged.write_text(code if kind != "the module" else f"{body}\n{code}")
    bank = prepare(tmp_path)
    command = {
        "banks": ["random", *PROBLEM, "--bank", "odd-one"],
        "datasets": ["random", "--model", "tiny", "--dataset", "odd-one", "--bank", bank],
        "objectives": ["random", *PROBLEM, "--bank", bank, "--objective", "odd-one"],
        "searchers": ["search", "odd-one", *PROBLEM, "--bank", bank],
        "the module": ["banks", "show", "odd-one"],
    }[kind]
    result = CliRunner().invoke(main, command)
    _ends(result)
    assert result.exit_code == 1, (result.output, result.exception)


def test_names_cannot_command_the_terminal(plugged: Path) -> None:
    info = plugged.parent / "odd-1.0.dist-info"
    (info / "entry_points.txt").write_text("[promptsearch.banks]\n\x1b[2Jodd = odd_one:banks\n")
    plugged.write_text("def banks():\n    raise ValueError('\\x1b[2J')\n")
    plugins.found.cache_clear()
    for command in (["plugins"], ["banks", "list"]):
        result = CliRunner().invoke(main, command)
        assert "\x1b" not in result.output, result.output


def test_a_shared_storage_does_not_choose_which_secret_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changed the address and the key's variable in a run that others join."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    db = tmp_path / "shared.db"
    with faulty_server() as ours, faulty_server() as evil:
        ours.says = lambda body: f"a {len(ours.requests)} photo of a {{}}."
        own = ["evolve", *PROBLEM, "--bank", prepare(tmp_path), "--storage", db, "--study", "r", "--population", 4]
        own += ["--offspring", 4, "--lm-model", "m", "--trials", 16]
        result = CliRunner().invoke(main, [str(a) for a in [*own, "--lm-url", ours.url]])
        assert ours.requests, result.output
        with sqlite3.connect(db) as connection:
            kept = json.loads(
                connection.execute("SELECT value_json FROM study_user_attributes WHERE key = 'lm'").fetchone()[0]
            )
            kept |= {"lm_url": evil.url, "lm_key_env": "AWS_SECRET_ACCESS_KEY"}
            connection.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'lm'", (json.dumps(kept),))
        connection.close()
        for command in (["runs", "resume", "r", "--trials", "24"], ["worker", "--study", "r"]):
            error = run(*command, "--storage", db, code=2).stderr
            assert evil.url in error and "AWS_SECRET_ACCESS_KEY" in error and "--lm-url" in error
        asked = len(ours.requests)
        CliRunner().invoke(main, ["runs", "resume", "r", "--trials", "24", "--storage", str(db), "--lm-url", ours.url])
        assert len(ours.requests) > asked and not evil.requests
        assert not any(key and "very-secret" in key for key in (*ours.keys, *evil.keys))
