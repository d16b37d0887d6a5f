"""Runs are cut off by SIGKILL at random instants; each, finished, must be the uninterrupted one.

python benchmarks/kills.py                                     # 15 of each of tpe, climb, random, evolve and beam
python benchmarks/kills.py --kills 4 --seed 1 --bank my.txt
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

OWN = {
    "tpe": ["--trials", "60", "--batch", "2", "--ensemble", "2"],
    "climb": ["--trials", "60", "--batch", "2", "--ensemble", "2"],
    "random": ["--trials", "60", "--batch", "1"],
    "evolve": ["--trials", "60", "--population", "8"],
    "beam": ["--depth", "5", "--width", "6", "--patience", "5"],
}


def command(name: str, bank: str, storage: Path) -> list[str]:
    problem = ["--model", "zeroshot", "--dataset", "cifar10-dark", "--shots", "4", "--bank", bank]
    where = ["--storage", str(storage), "--study", "r", "--json", "--quiet", "--select", "none", "--no-estimate"]
    return [sys.executable, "-m", "promptsearch", name, *problem, *where, *OWN[name]]


def finish(args: list[str]) -> tuple[dict[str, Any], float]:
    start = time.monotonic()
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - start


def trials(storage: Path) -> list[Any]:
    export = ["runs", "export", "r", "--storage", str(storage), "--json"]
    done = subprocess.run([sys.executable, "-m", "promptsearch", *export], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["trials"]


@click.command()
@click.option("--kills", default=15, help="Kills of each searcher.")
@click.option("--seed", default=0, help="Of the instants.")
@click.option("--bank", default="grammar")
@click.option("--only", multiple=True, type=click.Choice(list(OWN)))
def main(kills: int, seed: int, bank: str, only: tuple[str, ...]) -> None:
    rng = random.Random(seed)
    same = cut = total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for searcher in only or OWN:
            whole = folder / f"{searcher}.db"
            finish(command(searcher, bank, whole))  # texts that are not cached are encoded here
            whole.unlink()
            result, seconds = finish(command(searcher, bank, whole))
            expected = trials(whole)
            for i in range(kills):
                storage = folder / f"{searcher}{i}.db"
                victim = subprocess.Popen(
                    command(searcher, bank, storage), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                at = rng.uniform(0.1, 1.0) * seconds
                time.sleep(at)
                victim.send_signal(signal.SIGKILL)
                killed = victim.wait() == -signal.SIGKILL
                final, _ = finish(command(searcher, bank, storage))
                equal = trials(storage) == expected and final["winner"] == result["winner"]
                same, cut, total = same + equal, cut + killed, total + 1
                click.echo(f"{searcher} killed after {at:.2f} of {seconds:.2f} s: {'the same' if equal else 'DIFFERS'}")
    click.echo(f"\n{same} of {total} are the uninterrupted run's trials and winner ({cut} were still running)")
    sys.exit(same != total)


if __name__ == "__main__":
    main()
