"""Four starts and four workers of one run at the same instant, one of them killed: is the run whole?

python benchmarks/simultaneous_starts.py                       # 20 studies, a PostgreSQL server of its own
python benchmarks/simultaneous_starts.py --studies 5 --storage postgresql://me@host/empty
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
PROBLEM = ["--model", "zeroshot", "--dataset", "cifar10-dark", "--shots", "4", "--select", "none", "--no-estimate"]
BANK = [
    f"a {how} {what} of a {{}}." for how in ("good", "dark", "small", "new", "clean") for what in ("photo", "drawing")
]


@contextlib.contextmanager
def database(storage: str | None) -> Iterator[str]:
    """The URL of a database: the one that is named, or of a PostgreSQL server that is started for this."""
    if storage is not None:
        yield storage
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres import serve  # type: ignore[import-not-found]

    yield from serve()


def begin(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "promptsearch", *args, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(*args: str) -> Any:
    out, err = (process := begin(*args)).communicate()
    if process.returncode:
        raise click.ClickException(err)
    return json.loads(out)


def attempt(name: str, own: list[str], storage: str, trials: int, rng: random.Random) -> list[str]:
    """What is wrong with one study after all its processes; nothing where it is whole."""
    at = ["--storage", storage, "--study", name]
    starts = [begin("random", *own, *at) for _ in range(4)]
    workers = [begin("worker", *at) for _ in range(4)]
    victim = rng.choice([*starts, *workers])
    time.sleep(rng.uniform(0.5, 8))
    victim.send_signal(signal.SIGKILL)
    wrong = []
    winners = set()
    for process in (*starts, *workers):
        out, err = process.communicate(timeout=600)
        if process.returncode == -signal.SIGKILL and process is victim:
            continue
        if process.returncode or "Traceback" in err:
            wrong.append(f"exit {process.returncode}: {err.strip()[-300:]}")
        elif process in starts:
            winners.add(json.dumps(json.loads(out)["winner"]["templates"]))
    if len(winners) != 1:
        wrong.append(f"{len(winners)} winners")
    try:
        export = done("runs", "export", name, "--storage", storage)["trials"]
    except click.ClickException as e:
        return [*wrong, e.message.strip()]
    if [t["number"] for t in export] != list(range(trials)):
        wrong.append(f"trials {[t['number'] for t in export]}")
    if len({tuple(t["templates"]) for t in export}) != trials:
        wrong.append("a prompt set was scored twice")
    shown = done("runs", "show", name, "--storage", storage)
    if shown.get("run", {}).get("trials") != trials or "winner" not in shown:
        wrong.append("no result")
    return wrong


@click.command()
@click.option("--studies", default=20)
@click.option("--trials", default=8, help="Trials of each study, of a bank of ten templates.")
@click.option("--seed", default=0, help="Of who is killed, and when.")
@click.option("--storage", help="URL of an empty database; by default a PostgreSQL server is started.")
def main(studies: int, trials: int, seed: int, storage: str | None) -> None:
    rng = random.Random(seed)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    whole = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bank = Path(folder) / "bank.txt"
        bank.write_text("\n".join(BANK) + "\n")
        own = [*PROBLEM, "--bank", str(bank), "--trials", str(trials), "--batch", "1"]
        done("random", *own, "--storage", str(Path(folder) / "first.db"))  # texts that are not cached are encoded here
        url = stack.enter_context(database(storage))
        for i in range(studies):
            wrong = attempt(f"s{i}", own, url, trials, rng)
            whole += not wrong
            click.echo(f"study {i}: {'; '.join(wrong) or 'whole'}")
    click.echo(f"\n{whole} of {studies} studies are whole")
    sys.exit(whole != studies)


if __name__ == "__main__":
    main()
