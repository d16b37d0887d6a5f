"""Whatever a console, a disk, a signal or a library does: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from forked import Forked
from hypothesis import given
from hypothesis import strategies as st
from trial_runs import DROP, PROBLEM, document, prepare, start

from promptsearch.cli import main
from promptsearch.commands.terminal import after_interrupt, describe, write_anything

ENCODINGS = ["utf-8", "latin-1", "ascii", "cp1252", "cp437", "cp932", "koi8-r", "utf-16", "euc-kr", "mac-roman"]


def process(*args: object, shell: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own; `shell` redirects its streams."""
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path, **env}
    command = [sys.executable, "-m", "promptsearch", *map(str, args)]
    if shell:
        return subprocess.run(["sh", "-c", f'"$@" {shell}', "sh", *command], env=environment, capture_output=True)
    return subprocess.run(command, env=environment, capture_output=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a run of a name that few encodings have."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PROMPTSEARCH_CACHE", str(folder / "cache"))
        bank = prepare(folder)
        options = ["--bank", bank, "--storage", str(folder / "runs.db"), "--study", "猫–ü🙂", "--trials", "4"]
        result = CliRunner().invoke(main, ["random", *PROBLEM, *options])
    assert result.exit_code == 0, result.output
    return folder / "runs.db"


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "show", "猫–ü🙂", "--storage"],
        ["runs", "show", "猫–ü🙂", "--json", "--storage"],
        ["runs", "list", "--storage"],
        ["banks", "show", "templates"],
        ["random", *PROBLEM, "--trials", "4", "--study", "猫–ü🙂", "-v", "--storage"],
        ["beam", "--help"],
        ["doctor"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_reader_of_a_pipe_may_close_it(command: list[str], kept: Path) -> None:
    """As `promptsearch runs list | head -1` does; standard error stays empty but for log messages."""
    storage = [str(kept)] if command[-1] == "--storage" else []
    bank = ["--bank", str(kept.parent / "small.yaml")] if command[0] == "random" else []
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PROMPTSEARCH_CACHE": str(kept.parent / "cache")}
    ended = Forked([*command, *storage, *bank], env=env, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, said = ended.communicate(timeout=120)
    assert ended.returncode in (0, 1), said
    assert not [line for line in said.splitlines() if "Error" in line or "Traceback" in line], said


@pytest.mark.parametrize(
    ("encoding", "command"),
    [
        ("latin-1", "show"),
        ("cp1252", "list"),
        ("ascii", "best"),
        ("latin-1", "list --json"),
        ("cp932", "show --json --quiet"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(kept: Path, command: str, encoding: str) -> None:
    name, *json_option = command.split()
    named = [] if name == "list" else ["猫–ü🙂"]
    args = ["runs", name, *named, *json_option, "--storage", str(kept)]
    shown = CliRunner(charset=encoding).invoke(main, args)  # its streams refuse what their encoding lacks, as a console
    assert shown.exit_code == 0 and shown.stdout_bytes and not shown.stderr_bytes, shown.stderr_bytes
    text = shown.stdout_bytes.decode(encoding)
    if command == "show":
        done = process(*args, PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and done.stdout == shown.stdout_bytes and not done.stderr, done.stderr
    if json_option:
        document = json.loads(text)  # escapes are those of JSON: nothing is lost
        assert (document[0]["study"] if name == "list" else document["run"]["study"]) == "猫–ü🙂"
    elif name == "list":
        assert "\\u732b" in text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_can_be_written(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    write_anything()
    print("猫 – ü 🙂 \ud800 │ ±", flush=True)
    assert raw.getvalue().decode(encoding).count("\\ud800") == 1


@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=20))
def test_any_text_can_be_written_as_ascii_and_read_back_as_json(text: str) -> None:
    write_anything()
    written = json.dumps(text, ensure_ascii=False).encode("ascii", "promptsearch.escapes").decode("ascii")
    assert json.loads(written).encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("command", "shell"),
    [("--help", ">/dev/full"), ("banks list", ">/dev/full"), ("banks list --json", ">/dev/full 2>/dev/full")],
)
def test_a_full_disk_at_the_output(command: str, shell: str) -> None:
    done = process(*command.split(), shell=shell)
    assert done.returncode == 1
    if "2>" not in shell:
        assert done.stderr.startswith(b"Error: ") and b"No space left" in done.stderr
    assert done.stderr.count(b"\n") == ("2>" not in shell)


@pytest.mark.parametrize(
    ("command", "shell"),
    [
        ("--help", ">&-"),
        ("banks list", "<&- >&- 2>&-"),
        ("banks list", "| true"),
        ("banks show templates", "| head -1"),
    ],
)
def test_closed_streams_are_no_error(command: str, shell: str) -> None:
    done = process(*command.split(), shell=shell)
    assert done.returncode == 0 and not done.stderr


def _raise(error: BaseException) -> Any:
    raise error


class Odd(Exception):
    """Says nothing that may be shown as it is."""

    def __str__(self) -> str:
        return "two\nlines \x1b[2J" + "x" * 5000


ERRORS = {
    "a library's": ValueError("bad"),
    "a name": KeyError("x"),
    "nothing said": RuntimeError(),
    "an assertion": AssertionError("x"),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "odd": Odd(),
    "memory": MemoryError(),
    "a disk": OSError(28, "No space left on device", "/some/file"),
    "a permission": PermissionError(13, "Permission denied", "/some/file"),
    "encoding": UnicodeEncodeError("ascii", "猫", 0, 1, "ordinal not in range"),
    "decoding": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "a plug-in that stops": StopIteration(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_that_nobody_foresaw_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(main.commands["doctor"], "callback", lambda **_: _raise(error))
    monkeypatch.setenv("PROMPTSEARCH_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1 and result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1 and result.stderr.strip().isprintable() and len(result.stderr) < 800
    log = tmp_path / "home" / "errors.log"
    assert str(log) in result.stderr and "Traceback" in log.read_text() and type(error).__name__ in log.read_text()


def test_the_log_goes_elsewhere_where_home_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("PROMPTSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert str(tmp_path / f"promptsearch-{os.getuid()}" / "errors.log") in describe(ValueError("x"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "home"))
    assert "could not be written anywhere" in describe(ValueError("x"))


def test_usage_stays_click_s() -> None:
    result = CliRunner().invoke(main, ["beam", "--nonsense"])
    assert result.exit_code == 2 and "No such option" in result.stderr
    with pytest.raises(click.UsageError):
        main(["--nonsense"], standalone_mode=False)


def test_an_import_that_ctrl_c_cut_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(**_: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as e:
            raise ImportError("numpy's C extensions failed") from e

    monkeypatch.setattr(main.commands["doctor"], "callback", cut)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 130 and result.stderr == "interrupted; run the same command again to resume\n"
    assert not after_interrupt(ValueError("x"))


def test_ctrl_c_from_the_first_instant_on() -> None:
    """From when Python itself is up: what it prints before is its own."""
    path = os.pathsep.join(p for p in sys.path if p)
    for tenth in range(10):
        begun = (
            "import signal, threading, time, os, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"def interrupt(): time.sleep({0.015 * tenth}); os.kill(os.getpid(), signal.SIGINT)\n"
            "threading.Thread(target=interrupt, daemon=True).start(); sys.argv = ['promptsearch', 'banks', 'list']\n"
            "from promptsearch.cli import main; main()"
        )
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", begun], env=environment, capture_output=True)
        if b"Traceback" in done.stderr and b"cli.py" not in done.stderr:
            continue  # in Python's own import, before a line of this package was run
        assert done.returncode in (0, 130, -signal.SIGINT), (tenth, done.stderr)
        assert b"Traceback" not in done.stderr and b"Aborted" not in done.stderr, (tenth, done.stderr)


def test_ctrl_c_that_python_ignores_comes_again() -> None:
    """In a weak reference's callback Python prints and ignores it."""
    begun = (
        "import signal, time, weakref, sys; from promptsearch.cli import main\n"
        "class Thing: pass\n"
        "def cut(_): signal.raise_signal(signal.SIGINT)\n"
        "def work(**_): thing = Thing(); ref = weakref.ref(thing, cut); del thing; time.sleep(20); print('went on')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "main.commands['doctor'].callback = work; sys.argv = ['promptsearch', 'doctor']; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", begun], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 130 and not done.stdout, done.stderr
    assert done.stderr == "interrupted; run the same command again to resume\n"


def test_ctrl_c_while_it_works(tmp_path: Path) -> None:
    bank = prepare(tmp_path)
    for seconds in (0.4, 1.2):
        running = start("random", *PROBLEM, "--bank", bank, "--ensemble", "3", "--trials", "100000")
        time.sleep(seconds)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        assert running.returncode in (130, -signal.SIGINT) and "Traceback" not in err, err


def test_a_run_into_a_full_console_keeps_its_result(tmp_path: Path) -> None:
    bank = prepare(tmp_path)
    options = [*PROBLEM, "--bank", bank, "--trials", "4", "--study", "r"]
    done = process("random", *options, shell=">/dev/full")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"No space left" in done.stderr
    assert document("runs", "show", "r")["run"]["trials"] == 4


def test_folders_that_may_not_be_written_are_one_line(tmp_path: Path) -> None:
    bank = prepare(tmp_path)
    home = tmp_path / "shut"
    home.mkdir(mode=0o555)
    running = start("random", *PROBLEM, "--bank", bank, "--trials", "4", first=DROP, PROMPTSEARCH_HOME=str(home / "x"))
    out, err = running.communicate(timeout=60)
    assert running.returncode == 2 and err.count("Error: ") == 1 and "Traceback" not in err and str(home) in err, err


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 120])
def test_words_are_whole_in_terminals_of_any_width(kept: Path, width: int) -> None:
    from rich.console import Console

    from promptsearch.reports.table import print_result
    from promptsearch.runs import RunRecord, RunResult

    result = RunRecord.load("猫–ü🙂", str(kept)).result
    assert result is not None
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_result(RunResult.from_dict(result), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    words = {w for t in result["winner"]["templates"] for w in t.split()}
    assert words and all(word in printed for word in words)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, ("1000", "4")),
        ({"GOMP_SPINCOUNT": "7", "OPENBLAS_THREAD_TIMEOUT": "9"}, ("7", "9")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("None", "4")),
    ],
)
def test_waiting_threads_sleep_soon_unless_their_user_says_otherwise(
    own: dict[str, str], expected: tuple[str, str]
) -> None:
    names = ("GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT")
    env = {k: v for k, v in os.environ.items() if k not in (*names, "OMP_WAIT_POLICY")} | own
    code = f"import promptsearch.cli, os, sys; print(*map(os.environ.get, {names!r}), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split()[:2] == list(expected), done.stderr


def test_log_messages_hold_no_escape_sequence() -> None:
    def work(**_: Any) -> None:
        logging.getLogger("promptsearch.x").info("pictures of %s", "a\x1b[31m\nb")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main.commands["doctor"], "callback", work)
        result = CliRunner().invoke(main, ["-v", "doctor"])
    assert result.exit_code == 0 and "promptsearch.x: pictures of a" in result.stderr
    assert "\x1b" not in result.stderr and result.stderr.count("\n") == 1, result.stderr
