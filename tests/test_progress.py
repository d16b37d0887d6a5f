"""What a person at a terminal sees while a search runs: the best so far, how fast it goes, how long it will take."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import rich.progress
from trial_runs import PROBLEM, prepare

from promptsearch.cli import main

PICTURES = ["--model", "zeroshot", "--dataset", "pacs-photo"]
SEARCHES = {
    "tpe": ["--trials", "40", "--startup", "5"],
    "climb": ["--trials", "40"],
    "random": ["--trials", "40"],
    "evolve": ["--trials", "40", "--proposer", "grammar", "--crowding", "1"],
    "beam": ["--depth", "5", "--width", "4", "--patience", "5"],
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch):
    """Run a command at a terminal of a width: the lines that were drawn, one for every update."""
    update = rich.progress.Progress.update
    monkeypatch.setattr(rich.progress.Progress, "update", lambda *a, **kw: update(*a, **{**kw, "refresh": True}))

    def run(args: list[str], columns: int = 100) -> list[str]:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "30"}.items():
            monkeypatch.setenv(name, value)
        main.main(args, standalone_mode=False)
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
        return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]

    return run


@pytest.mark.parametrize("command", SEARCHES)
def test_best_so_far_speed_and_time_left(command: str, frames, tmp_path: Path) -> None:
    args = [command, *PROBLEM, "--bank", prepare(tmp_path), *SEARCHES[command]]
    unit, total = ("sets", 5) if command == "beam" else ("trials", 40)
    shown = re.compile(rf"best \d+\.\d %, \d\.\d{{4}}; [\d.]+ {unit}/s[ ;].* (\d+)/{total} (-:--:--|\d:\d\d:\d\d)")
    drawn = [m for line in frames(args) if (m := shown.search(line))]
    done = [int(m[1]) for m in drawn]
    assert done == sorted(done) and done[-1] == total
    assert any(m[2].startswith("0:") for m in drawn)  # known from the second update on


def test_a_narrow_terminal_shows_the_figures_whole(frames, tmp_path: Path) -> None:
    args = ["random", *PROBLEM, "--bank", prepare(tmp_path), "--trials", "40"]
    assert any(re.search(r"best \d+\.\d %, \d\.\d{4}; [\d.]+ trials/s .*/40 0:", line) for line in frames(args, 80))


def test_a_comparison_shows_the_epochs_of_a_training(frames) -> None:
    args = ["compare", *PICTURES, "--methods", "coop", "--shots", "1", "--seeds", "1"]
    shown = re.compile(r"coop on .*, 1 shots, seed 0: training, loss \d\.\d+, \d+ of 50 .* 0/1 ")
    assert any(map(shown.search, frames(args, 140)))


def test_quiet_shows_nothing(frames, tmp_path: Path) -> None:
    assert not frames(["random", *PROBLEM, "--bank", prepare(tmp_path), "--trials", "8", "--quiet"])


def test_a_log_file_gets_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptsearch.commands.terminal import _lines, progress_bar

    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    times = iter([0.0, 10.0, 29.9, 30.0, 30.0, 59.0, 61.0, 61.0])
    show = _lines(lambda: next(times))
    for done in range(1, 6):
        show(done, 9, "best 80.0 %")
    lines = log.getvalue().splitlines()
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]
    assert said == ["best 80.0 % (3 of 9)", "best 80.0 % (5 of 9)"]
    with progress_bar(False) as show:  # what is over before half a minute says nothing
        show(1, 2, "encoding")
    with progress_bar(True) as show:
        show(1, 2, "encoding")
    assert log.getvalue().splitlines() == lines
