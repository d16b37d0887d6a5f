"""Runs of the made-up problem: a small grammar, commands in this process and in others, and what they recorded."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from forked import BASE, Forked
from made_problem import make_problem

from promptsearch.banks import load_bank
from promptsearch.cli import main

GRAMMAR = """\
name: small
patterns:
  - a [quality] [medium] of a {}[context].
  - "[det] {}[context]."
slots:
  quality: ["", good, bad, dark, blurry]
  medium: [photo, picture, drawing, painting]
  det: [the, my, one]
  context: ["", " in the snow", " at night", " in a city"]
"""  # 92 templates
PROBLEM = ["--model", "tiny", "--dataset", "made", "--shots", "4", "--select", "none", "--no-estimate"]


def prepare(folder: Path) -> str:
    """Fill the cache of this test, and write the grammar: its path."""
    bank = folder / "small.yaml"
    bank.write_text(GRAMMAR, "utf-8")
    make_problem(Path(os.environ["PROMPTSEARCH_CACHE"]), load_bank(str(bank)).templates)
    return str(bank)


def run(*args: object, code: int = 0) -> Result:
    """A command in this process: its exit code is checked, and that an error is one line."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    if code:
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.stderr
    return result


def document(*args: object) -> Any:
    return json.loads(run(*args, "--json").stdout)


#: What the process of a command begins with: a shell's background jobs ignore Ctrl-C. A program of its own and not
#: `preexec_fn`, which forks a process with threads and may hang for ever.
FIRST = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)"
COMMAND = "os.execv(sys.executable, [sys.executable, '-m', 'promptsearch', *sys.argv[1:]])"


#: Root may write what its permissions forbid; a process without DAC_OVERRIDE and DAC_READ_SEARCH may not, like
#: everybody else. `capset` drops them from all three sets of this process: effective, permitted and inheritable.
DROP = """
import ctypes
c, head, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert c.capget(head, sets) == 0
for i in range(3):
    sets[i] &= ~0b110
assert c.capset(head, sets) == 0
"""


def start(*args: object, first: str = "pass", imports: str = BASE, **env: str) -> subprocess.Popen[str]:
    """A command in a process of its own, which runs the code `first` before: DROP in the process itself."""
    if first in ("pass", DROP):
        code = None if first == "pass" else f"{first}\nfrom promptsearch.cli import main; main()"
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**os.environ, "OMP_NUM_THREADS": "1", **env}
        return Forked([*map(str, args)], code=code, imports=imports, env=env, **streams)
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-c", f"{FIRST}; {first}; {COMMAND}", *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_trials(storage: Path, n: int, process: subprocess.Popen[str] | None = None, seconds: float = 60) -> int:
    """Wait until so many trials are finished in a SQLite file, or the process has ended: how many there are."""
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        try:
            with sqlite3.connect(f"file:{storage}?mode=rw", uri=True, timeout=10) as db:
                count = db.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]
        except sqlite3.OperationalError:  # not there yet
            count = 0
        if count >= n or (process is not None and process.poll() is not None):
            return count
        time.sleep(0.005)
    raise AssertionError(f"{count} of {n} trials after {seconds} s")


def recorded(name: str, storage: object) -> list[tuple[int, tuple[str, ...], float]]:
    """The trials of a run: number, templates, cross-entropy."""
    rows = document("runs", "export", name, "--storage", storage)["trials"]
    return [(r["number"], tuple(r["templates"]), r["xent"]) for r in rows]
