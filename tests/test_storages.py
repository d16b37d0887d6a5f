"""Storages that are not there, may not be written, or belong to something else: one line, and nothing is harmed."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from trial_runs import DROP, PROBLEM, document, prepare, recorded, run, start

from promptsearch.runs import default_storage, open_storage


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[object]]:
    bank = prepare(tmp_path)

    def build(storage: object, trials: int = 4, study: str = "r") -> list[object]:
        options = ["--bank", bank, "--storage", storage, "--study", study, "--trials", trials]
        return ["random", *PROBLEM, *options]

    return build


def test_an_unreachable_server_is_said_in_one_line(command) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as closed:  # a port at which nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret@127.0.0.1:{closed.getsockname()[1]}/runs"
        error = run(*command(url), code=1).stderr
    assert "cannot be opened" in error and "127.0.0.1" in error and "secret" not in error
    assert "sqlite:///runs.db" in error


def test_a_driver_that_is_not_installed_is_named(command) -> None:
    assert "driver is not installed" in run(*command("mysql+asyncmy://127.0.0.1/runs"), code=2).stderr


def test_urls_that_are_none(command, tmp_path: Path) -> None:
    for url in ("nonsense://x", "sqlite:/runs.db", "postgresql://host:port/x", "://"):
        assert "sqlite:///runs.db" in run(*command(url), code=2).stderr


def test_a_file_that_may_only_be_read_can_be_listed_and_not_written(command, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    db = folder / "runs.db"
    document(*command(db))
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        process = start(*command(db, 8), first=DROP)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1 and "readonly" in err.replace("-", "").replace(" ", ""), err
        assert len(err.strip().splitlines()) == 1 and not out
        page = tmp_path / "report.html"
        others = (["report", "r", "-o", page], ["export", "r", "--to", "bank"])
        for args in (["runs", "list"], ["runs", "best", "r"], *others):
            reading = start(*args, "--storage", db, first=DROP)
            out, err = reading.communicate(timeout=60)
            assert reading.returncode == 0 and out and not err, (args, err)
    finally:
        folder.chmod(0o755)
    assert len(recorded("r", db)) == 4 and "the {} in the snow." in page.read_text()


def test_a_server_that_may_only_be_read(command, postgres: str) -> None:
    document(*command(postgres))
    url = f"{postgres}?options=-c%20default_transaction_read_only%3Don"
    error = run(*command(url, 8), code=1).stderr
    assert "read-only transaction" in error
    assert document("runs", "list", "--storage", url)[0]["trials"] == 4
    assert len(recorded("r", postgres)) == 4


def test_a_folder_that_cannot_be_made(command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be created" in run(*command(tmp_path / "file" / "runs.db"), code=2).stderr


def test_an_empty_file_becomes_a_storage(command, tmp_path: Path) -> None:
    (tmp_path / "empty.db").write_text("")
    assert document(*command(tmp_path / "empty.db"))["run"]["trials"] == 4


def test_a_study_of_another_program_is_left_alone(command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    study = optuna.create_study(storage=url, study_name="r")
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    empty = optuna.create_study(storage=url, study_name="empty")
    empty.set_user_attr("whose", "theirs")
    for name in ("r", "empty"):
        assert "was not made by promptsearch" in run(*command(url, study=name), code=2).stderr
    for args in (["show", "r"], ["best", "r"], ["delete", "r", "--yes"], ["export", "r"], ["resume", "r"]):
        assert "was not made by promptsearch" in run("runs", *args, "--storage", url, code=2).stderr
    assert "was not made by promptsearch" in run("worker", "--study", "r", "--storage", url, code=2).stderr
    assert len(optuna.load_study(storage=url, study_name="r").trials) == 3
    assert document("runs", "list", "--storage", url) == []
    assert document(*command(url, study="ours"))["run"]["trials"] == 4  # beside them there is room


def test_tables_of_another_optuna_are_refused(command, tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    document(*command(db))
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    before = db.read_bytes()
    for args in (command(db), ["runs", "list", "--storage", db], ["worker", "--study", "r", "--storage", db]):
        error = run(*args, code=1).stderr
        assert "another version of Optuna" in error and "optuna storage upgrade" in error
    assert db.read_bytes() == before


def test_a_database_of_something_else(command, tmp_path: Path) -> None:
    db = tmp_path / "photos.db"
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    (tmp_path / "text.db").write_text("no database at all, but more than sixteen bytes")
    assert "not a SQLite database" in run(*command(tmp_path / "text.db"), code=2).stderr


def test_a_file_whose_maker_was_killed_is_rolled_back(command, tmp_path: Path) -> None:
    """As after SIGKILL in the midst of making tables: a file with half a change, and the journal that undoes it."""
    made, db = tmp_path / "made.db", tmp_path / "runs.db"
    connection = sqlite3.connect(made, isolation_level=None)
    connection.execute("CREATE TABLE x (a BLOB)")
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    for _ in range(50):
        connection.execute("INSERT INTO x VALUES (zeroblob(5000))")
    connection.execute("DELETE FROM x WHERE rowid < 20")
    for suffix in ("", "-journal"):
        Path(f"{db}{suffix}").write_bytes(Path(f"{made}{suffix}").read_bytes())
    connection.close()
    open_storage(str(db))
    assert not Path(f"{db}-journal").exists()


def test_where_runs_are_kept_by_default(command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_storage() == f"sqlite:///{tmp_path / 'home' / 'runs.db'}"
    monkeypatch.delenv("PROMPTSEARCH_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_storage() == f"sqlite:///{tmp_path / 'data' / 'promptsearch' / 'runs.db'}"


def test_two_processes_may_make_the_same_storage(tmp_path: Path, command, postgres: str) -> None:
    for storage in (tmp_path / "runs.db", postgres):
        both = [start(*command(storage, study=f"r{i}"), "--json") for i in range(2)]
        outputs = [p.communicate(timeout=120) for p in both]
        assert [p.returncode for p in both] == [0, 0], outputs


def test_sqlite_is_opened_write_ahead(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "runs.db"))
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
