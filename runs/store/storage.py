"""Opens the Optuna storage of runs, by default a SQLite file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.errors import InputError, PromptSearchError

if TYPE_CHECKING:
    import optuna


class NoSuchRun(InputError):
    """There is no run of this name, or it does not exist yet."""


#: Seconds between two heartbeats of a worker, and seconds without a heartbeat after which others retry its trials.
HEARTBEAT, GRACE = 15, 60
#: First key of the advisory lock that the leader of a study holds, and seconds between two attempts to get it.
LEAD, LOOK = 1886544244, 0.5
#: Seconds to wait for a SQLite file while another process writes to it.
PATIENCE = 120


def default_storage() -> str:
    """Return the URL of a SQLite file in `$PROMPTSEARCH_HOME`, or else in the user's data folder on this system."""
    if named := os.environ.get("PROMPTSEARCH_HOME"):
        folder = Path(named)
    else:
        import platformdirs

        folder = Path(platformdirs.user_data_dir("promptsearch"))
    return f"sqlite:///{folder / 'runs.db'}"


def learnt_folder() -> Path:
    """Return the folder of checkpoints and learnt vectors, next to the user's runs."""
    return Path(default_storage().removeprefix("sqlite:///")).parent / "learnt"


def open_storage(url: str | None = None, *, create: bool = True) -> optuna.storages.RDBStorage:
    """Open a storage, and create it if it does not exist.

    Args:
        url: Database URL or the path of a SQLite file; by default `default_storage()`.
        create: Whether a SQLite file may be created.

    Returns:
        The storage.

    Raises:
        InputError: The URL is malformed, its driver is not installed, or the file does not exist and `create` is False.
        PromptSearchError: The database cannot be opened or written, or belongs to another version of Optuna.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    url = _database_url(url or default_storage())
    sqlite = url.startswith("sqlite:///")
    if sqlite:
        _prepare_file(Path(url.removeprefix("sqlite:///")), create)
    kwargs: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if sqlite else {"pool_pre_ping": True}
    if url.startswith("postgresql+psycopg://"):
        kwargs["connect_args"] = {"connect_timeout": 15}
    with _plain_errors(url), _one_at_a_time(url, kwargs):
        if not create and not _has_runs(url, kwargs):
            raise NoSuchRun(f"no runs are saved in {masked(url)}; a search such as `promptsearch beam` saves its run")
        storage = _connect(url, kwargs)
    if sqlite:
        _write_ahead(storage.engine)
    return storage


def _database_url(url: str) -> str:
    """Return a URL for SQLAlchemy: of a file's path, and with the PostgreSQL driver that is installed."""
    if url.startswith(("sqlite:", "postgres")) and "://" not in url or url.startswith(":"):
        raise InputError(f"--storage {url}: not a database URL, e.g. sqlite:///runs.db")
    if "://" not in url:
        return f"sqlite:///{url}"
    if url.startswith(("postgresql://", "postgres://")):  # SQLAlchemy's default driver is not the one installed
        return f"postgresql+psycopg://{url.partition('://')[2]}"
    return url


@contextlib.contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """Raise what SQLAlchemy and Optuna raise while a database is opened as errors of one line."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except ImportError as e:
        extra = "pip install 'promptsearch[postgresql]'" if url.startswith("postgresql") else "install it"
        raise InputError(f"--storage {masked(url)}: its driver is not installed ({e}); {extra}") from e
    except NoSuchRun:
        raise
    except (sqlalchemy.exc.ArgumentError, ValueError, KeyError, IndexError) as e:  # Optuna calls str.format on the URL
        raise InputError(f"--storage {url}: not a database URL, e.g. sqlite:///runs.db") from e
    except RuntimeError as e:
        raise PromptSearchError(
            f"--storage {masked(url)}: its tables are of another version of Optuna than the installed "
            f"{optuna.__version__}; run `optuna storage upgrade --storage URL` if they are older, or name another"
        ) from e
    except sqlalchemy.exc.SQLAlchemyError as e:
        raise PromptSearchError(
            f"--storage {masked(url)} cannot be opened ({reason_of(e)}); name another, e.g. sqlite:///runs.db"
        ) from e


def _has_runs(url: str, engine_kwargs: dict[str, Any]) -> bool:
    """Return whether a database has Optuna's tables; reading another program's database must not add them."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **engine_kwargs)
    return bool(sqlalchemy.inspect(engine).has_table("studies"))


def _connect(url: str, engine_kwargs: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open the storage, and create its tables if there are none."""
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
            if not tries_left:  # another process may be creating the same tables: try again
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _one_at_a_time(url: str, engine_kwargs: dict[str, Any]) -> Iterator[None]:
    """Let only one process at a time create the tables of a database."""
    import filelock

    if url.startswith("postgresql"):
        import sqlalchemy

        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **engine_kwargs)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(1886544245)"))
            yield
        return
    lock = None
    if url.startswith("sqlite:///"):
        lock = filelock.FileLock(f"{url.removeprefix('sqlite:///')}.lock")
        try:
            lock.acquire()
        except OSError:  # the folder is read-only, so nothing can be created in it
            lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def masked(url: str) -> str:
    """Return the URL with its password hidden."""
    import sqlalchemy

    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # e.g. a port that is not a number
        return url


def reason_of(error: BaseException) -> str:
    """Return the first line of the database's own error message."""
    cause: BaseException = error
    while cause.__cause__ is not None and getattr(cause, "orig", None) is None:
        cause = cause.__cause__
    text = str(getattr(cause, "orig", None) or cause).strip()
    return (text.splitlines() or [type(cause).__name__])[0]


@contextlib.contextmanager
def sound(what: str) -> Iterator[None]:
    """Context manager that turns the errors of a damaged or changed row into one error that says so.

    Args:
        what: What is being read, for the message.

    Raises:
        PromptSearchError: The row is not what promptsearch writes.
    """
    try:
        yield
    except PromptSearchError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        if is_deletion(e):
            raise deleted(what) from e
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:120]
        raise PromptSearchError(
            f"{what} is damaged, or was changed by something else ({reason}); restore the storage from a copy, or "
            "delete the run and start it again"
        ) from e


def is_deletion(error: BaseException) -> bool:
    """Return whether an error of Optuna means that a study was deleted."""
    return isinstance(error, KeyError) and error.args == ("Record does not exist.",)


def deleted(what: str) -> PromptSearchError:
    """Return the error about a run that another process deleted."""
    return PromptSearchError(f"{what} was deleted while this process used it; run the same command again")


@contextlib.contextmanager
def alone(storage: optuna.storages.RDBStorage) -> Iterator[None]:
    """Hold the storage's lock, so that only one of the processes that share the storage runs the `with` block.

    It is a file lock for SQLite and an advisory lock for PostgreSQL; both are released if the process dies.
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


@contextlib.contextmanager
def leading(storage: optuna.storages.RDBStorage, study_id: int) -> Iterator[bool]:
    """Context manager that tries to lead a study; at most one process leads it, and no longer if that process dies.

    The lead is an advisory lock of the session in PostgreSQL, and a lock among this machine's processes for SQLite.

    Args:
        storage: The study's storage.
        study_id: The study.

    Yields:
        Whether this process has the lead.
    """
    import sqlalchemy

    if storage.engine.name == "sqlite":
        import filelock

        lock = filelock.FileLock(_lead_file(str(storage.engine.url.database), study_id))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
    elif storage.engine.name == "postgresql":
        keys = {"kind": LEAD, "study": study_id}
        with storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            ask = sqlalchemy.text("SELECT pg_try_advisory_lock(:kind, :study)")
            ours = bool(connection.execute(ask, keys).scalar())
            try:
                yield ours
            finally:
                if ours:
                    # the lock is released anyway if the connection is lost
                    with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                        connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:kind, :study)"), keys)
    else:
        yield True


def _lead_file(database: str, study_id: int) -> str:
    """Return the path of a lock file, in this user's temporary folder so that no folder of runs fills with locks."""
    name = hashlib.sha256(f"{Path(database).resolve()}#{study_id}".encode()).hexdigest()[:24]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"promptsearch-{user}" / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder / name)


def _prepare_file(path: Path, create: bool) -> None:
    if path.is_dir():
        raise InputError(f"--storage {path}: is a folder; name a file in it, e.g. {path / 'runs.db'}")
    if not path.exists() and not create:
        raise NoSuchRun(f"{path} does not exist; a search such as `promptsearch beam` creates it and saves its run")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--storage {path}: its folder cannot be created ({e.strerror}); name another") from e
    if path.exists() and path.stat().st_size:
        _check_file(path)


def _check_file(path: Path) -> None:
    """Check that a file is a SQLite database.

    SQLite itself opens it, because opening and closing the file here would drop the locks that this process holds on
    it, and another process could delete its write-ahead log. It is opened for writing if possible, because a process
    that was killed while it created the tables leaves a journal to roll back.
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
    """Use a write-ahead log and normal synchronisation: six times as many trials per second, and still crash-safe."""
    import sqlite3

    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # the runs in a read-only file can still be listed
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()
