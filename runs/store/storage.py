"""Where runs are kept: one Optuna storage, SQLite unless another is named."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.errors import InputError, PromptSearchError

if TYPE_CHECKING:
    import optuna

#: Seconds between two signs of life of a worker, and without one until its trials are given to others.
HEARTBEAT, GRACE = 15, 60
#: Seconds that a SQLite file is waited for while another process writes.
PATIENCE = 120


def default_storage() -> str:
    """SQLite in `$PROMPTSEARCH_HOME`, else in the user's data folder of this system."""
    if named := os.environ.get("PROMPTSEARCH_HOME"):
        folder = Path(named)
    else:
        import platformdirs

        folder = Path(platformdirs.user_data_dir("promptsearch"))
    return f"sqlite:///{folder / 'runs.db'}"


def learnt_folder() -> Path:
    """Where checkpoints and learnt vectors lie: beside the runs of this user."""
    return Path(default_storage().removeprefix("sqlite:///")).parent / "learnt"


def open_storage(url: str | None = None, *, create: bool = True) -> optuna.storages.RDBStorage:
    """Open (and create, where there is none) a storage by its URL; a plain path means a SQLite file.

    Raises:
        InputError: the URL is malformed, its driver is not installed, or there is nothing and `create` is False.
        PromptSearchError: the database cannot be opened or written, or another version of Optuna made it.
    """
    import optuna
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    url = url or default_storage()
    if url.startswith(("sqlite:", "postgres")) and "://" not in url or url.startswith(":"):
        raise InputError(f"--storage {url}: not a database URL, e.g. sqlite:///runs.db")
    if "://" not in url:
        url = f"sqlite:///{url}"
    if url.startswith(("postgresql://", "postgres://")):  # SQLAlchemy's default driver is not the one installed
        url = f"postgresql+psycopg://{url.partition('://')[2]}"
    sqlite = url.startswith("sqlite:///")
    if sqlite:
        _prepare_file(Path(url.removeprefix("sqlite:///")), create)
    try:
        kwargs: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if sqlite else {"pool_pre_ping": True}
        if url.startswith("postgresql+psycopg://"):
            kwargs["connect_args"] = {"connect_timeout": 15}
        with _one_at_a_time(url):
            storage = _connect(url, kwargs)
    except ImportError as e:
        extra = "pip install 'promptsearch[postgresql]'" if url.startswith("postgresql") else "install it"
        raise InputError(f"--storage {masked(url)}: its driver is not installed ({e}); {extra}") from e
    except (sqlalchemy.exc.ArgumentError, ValueError, KeyError, IndexError) as e:  # Optuna formats braces in the URL
        raise InputError(f"--storage {url}: not a database URL, e.g. sqlite:///runs.db") from e
    except RuntimeError as e:
        raise PromptSearchError(
            f"--storage {masked(url)}: its tables were made by another version of Optuna than {optuna.__version__} "
            "here; `optuna storage upgrade --storage URL` brings old ones up to date, or name another"
        ) from e
    except sqlalchemy.exc.SQLAlchemyError as e:
        raise PromptSearchError(
            f"--storage {masked(url)} cannot be opened ({reason_of(e)}); name another, e.g. sqlite:///runs.db"
        ) from e
    if sqlite:
        _write_ahead(storage.engine)
    return storage


def _connect(url: str, engine_kwargs: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open the storage, and make its tables where there are none."""
    import optuna
    import sqlalchemy.exc

    for tries_left in (3, 2, 1, 0):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the heartbeat is experimental
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=engine_kwargs,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
                )
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not tries_left:  # else another process made the same tables at the same instant
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Let one process at a time make the tables of a SQLite file."""
    import filelock

    lock = None
    if url.startswith("sqlite:///"):
        lock = filelock.FileLock(f"{url.removeprefix('sqlite:///')}.lock")
        try:
            lock.acquire()
        except OSError:  # a folder that may only be read: nothing will be made there
            lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def masked(url: str) -> str:
    """The URL without its password."""
    import sqlalchemy

    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # e.g. a port that is no number
        return url


def reason_of(error: BaseException) -> str:
    """The database's own words for what went wrong, in one line."""
    cause: BaseException = error
    while cause.__cause__ is not None and getattr(cause, "orig", None) is None:
        cause = cause.__cause__
    text = str(getattr(cause, "orig", None) or cause).strip()
    return (text.splitlines() or [type(cause).__name__])[0]


@contextlib.contextmanager
def alone(storage: optuna.storages.RDBStorage) -> Iterator[None]:
    """Hold the storage's lock: of all processes that share it, one at a time gets past here.

    A file lock beside a SQLite file, an advisory lock in PostgreSQL; both go with the process that held them.
    """
    import sqlalchemy

    if storage.engine.name == "sqlite":
        import filelock

        with filelock.FileLock(f"{storage.engine.url.database}.lock"):
            yield
    elif storage.engine.name == "postgresql":
        with storage.engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(1886544243)"))
            yield
    else:
        yield


def _prepare_file(path: Path, create: bool) -> None:
    if path.is_dir():
        raise InputError(f"--storage {path}: is a folder; name a file in it, e.g. {path / 'runs.db'}")
    if not path.exists() and not create:
        raise InputError(f"no runs are kept in {path} yet; a search such as `promptsearch beam` makes one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--storage {path}: its folder cannot be made ({e.strerror}); name another") from e
    if path.exists() and path.stat().st_size:
        _check_file(path)


def _check_file(path: Path) -> None:
    """Refuse what is no SQLite database.

    SQLite itself looks: to open and close the file here would drop the locks that this process holds on it, and
    another process could then take away its write-ahead log.  It may write where it can: a process that was killed
    while it made the tables leaves a journal to be rolled back.
    """
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
            db.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as e:
        raise InputError(f"--storage {path}: cannot be read ({e}); name another") from e
    except sqlite3.DatabaseError as e:
        raise InputError(f"--storage {path}: is a file, but not a SQLite database; name another") from e


def _write_ahead(engine: Any) -> None:
    """Write-ahead log and normal synchronisation: six times as many trials a second, and still safe under a kill."""
    import sqlite3

    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a file that may only be read can still be listed
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()
