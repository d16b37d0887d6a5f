"""Runs that are cut off: by SIGKILL at any instant, by Ctrl-C, by a full disk.  `benchmarks/kills.py` has sixty."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trial_runs import PROBLEM, document, prepare, recorded, run, start, wait_for_trials

CUT = {
    "tpe": ["--trials", "24", "--batch", "2", "--startup", "8", "--ensemble", "2"],
    "random": ["--trials", "24", "--batch", "1"],
    "climb": ["--trials", "24", "--batch", "3", "--ensemble", "2"],
    "beam": ["--depth", "4", "--width", "3", "--patience", "4"],
}


@pytest.fixture
def bank(tmp_path: Path) -> str:
    return prepare(tmp_path)


def given(command: str, bank: str, db: Path, study: str) -> list[str]:
    return [command, *PROBLEM, "--bank", bank, "--storage", str(db), "--study", study, *CUT[command]]


@pytest.mark.parametrize(("command", "at"), [("tpe", 5), ("random", 9), ("climb", 13), ("beam", 4)])
def test_killed_and_finished_equals_never_killed(command: str, at: int, bank: str, tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    whole = document(*given(command, bank, tmp_path / "whole.db", "r"))
    victim = start(*given(command, bank, db, "r"))
    wait_for_trials(db, at, victim)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=240)
    finished = document(*given(command, bank, db, "r"))
    assert recorded("r", db) == recorded("r", tmp_path / "whole.db")
    assert finished["winner"] == whole["winner"]


def test_ctrl_c_ends_after_the_trial_in_hand_and_says_how_to_resume(bank: str, tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    args = ["random", *PROBLEM, "--bank", bank, "--storage", db, "--study", "r", "--batch", "1", "--trials"]
    process = start(*args, 5000, "--ensemble", "3")
    wait_for_trials(db, 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert out == "" and "Traceback" not in err
    assert "of 5000 trials of run r; to resume, run the same command again or: promptsearch runs resume r" in err
    done = len(recorded("r", db))
    assert 3 <= done < 5000 and f"interrupted after {done} of" in err
    assert document(*args, done + 2, "--ensemble", "3")["run"]["trials"] == done + 2


def test_ctrl_c_in_a_worker_and_in_a_beam(bank: str, tmp_path: Path) -> None:
    from promptsearch.runs import RunRecord

    db = tmp_path / "runs.db"
    document(*given("random", bank, db, "r"))
    RunRecord.load("r", str(db)).set("budget", {"trials": 5000})
    process = start("worker", "--study", "r", "--storage", db)
    wait_for_trials(db, 28, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "runs resume r" in err

    beam = start(*given("beam", bank, tmp_path / "beam.db", "b"), "--depth", "60", "--patience", "60", "--width", "30")
    wait_for_trials(tmp_path / "beam.db", 30, beam)
    beam.send_signal(signal.SIGINT)
    _, err = beam.communicate(timeout=60)
    assert beam.returncode == 130 and "run the same command again" in err and "Traceback" not in err


def test_a_file_that_may_not_grow_stops_the_run_and_nothing_is_lost(bank: str, tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    args = ["random", *PROBLEM, "--bank", bank, "--storage", db, "--study", "r", "--batch", "2", "--trials", "60"]
    document(*args[:-1], 4)

    limit = db.stat().st_size + 40_000
    small = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    process = start(*args, first=small)
    _, err = process.communicate(timeout=120)
    check_stopped(process, err, db)
    document(*args)
    assert [n for n, _, _ in recorded("r", db)] == list(range(60))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("no file system of 320 kB can be mounted here: not root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("command", ["random", "beam"])
def test_a_full_disk_stops_the_run_and_nothing_is_lost(
    command: str, bank: str, tmp_path: Path, small_disk: Path
) -> None:
    db = small_disk / "runs.db"
    args = [command, *PROBLEM, "--bank", bank, "--storage", db, "--study", "r"]
    args += (
        ["--trials", "300", "--ensemble", "3"]
        if command == "random"
        else ["--depth", "6", "--width", "30", "--patience", "6"]
    )
    process = start(*args)
    _, err = process.communicate(timeout=120)
    check_stopped(process, err, db)
    before = recorded("r", db)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    document(*args)
    assert recorded("r", db)[: len(before)] == before and len(recorded("r", db)) > len(before)


def check_stopped(process: subprocess.Popen[str], err: str, db: Path) -> None:
    """Exit code 1 and one line, which names the last trial that is safe; and that one is there."""
    assert process.returncode == 1, err
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in err, err
    assert "cannot be recorded" in errors[0] and "run the same command again to resume" in errors[0]
    safe = int(errors[0].partition("; trial ")[2].split()[0])
    numbers = [n for n, _, _ in recorded("r", db)]
    assert numbers == list(range(safe + 1)), (safe, numbers)


def test_a_second_process_at_the_same_command_shares_the_work(bank: str, tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    both = [start(*given("random", bank, db, "r"), "--json") for _ in range(2)]
    outputs = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    docs = [json.loads(out) for out, _ in outputs]
    assert docs[0]["winner"] == docs[1]["winner"]
    assert [n for n, _, _ in recorded("r", db)] == list(range(24))
    assert "finished" in run("runs", "list", "--storage", db).stdout
