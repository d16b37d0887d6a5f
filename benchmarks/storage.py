"""What recording costs: TPE trials of six slots, ours against Optuna's SQLite, interleaved in one run.

python benchmarks/storage.py                # 1,000 trials
python benchmarks/storage.py --trials 200   # a shorter one

Three runs take turns, fifty trials at a time, with the same sampler on the same space: Optuna's ask and tell on its
SQLite storage as it opens by default, the same with our pragmas (WAL, synchronous=NORMAL), and ours with all that it
records.  Scoring is free here (a number out of the templates' bytes).
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from promptsearch.banks import Bank, Grammar, PromptSet
from promptsearch.config import RunConfig
from promptsearch.evaluators import Score
from promptsearch.runs import Budget, RunRecord, Sharing, open_storage
from promptsearch.search import Space, TpeSearch, get_objective

SLOTS = {f"s{i}": [f"word{i}{j}" for j in range(8)] for i in range(6)}
CHUNK = 50


class Free:
    """Scores without work."""

    task = SimpleNamespace(labelled=True)

    def score(self, sets: Sequence[PromptSet]) -> list[Score]:
        return [Score(0.5, value(str(s.templates[0]))) for s in sets]


def value(text: str) -> float:
    """Something that TPE can learn: a sum over words."""
    return sum(int(w.strip(".")[-1]) * (1 + int(w[4])) for w in text.split() if w.startswith("word")) / 100


class Optuna:
    """Optuna's own loop, resumable."""

    def __init__(self, storage: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=20, multivariate=True, group=True)
        self.study = optuna.create_study(storage=storage, sampler=sampler)
        self.seconds: list[float] = []

    def run(self, n: int) -> None:
        for _ in range(n):
            start = time.perf_counter()
            trial = self.study.ask()
            words = [trial.suggest_categorical(f"[{s}]", w) for s, w in SLOTS.items()]
            self.study.tell(trial, value(" ".join(words)))
            self.seconds.append(time.perf_counter() - start)


def resume_seconds(folder: Path, bank: Bank, trials: int, batch: int) -> float:
    """From opening the storage to the moment at which a search of so many trials could go on."""
    start = time.perf_counter()
    record = RunRecord.load("ours", str(folder / "ours.db"))
    searcher = TpeSearch(Space(bank), get_objective("xent"), batch=batch)
    Sharing(searcher, Free(), record, Budget(trials)).run()  # type: ignore[arg-type]
    searcher.ask()
    return time.perf_counter() - start


@click.command()
@click.option("--trials", default=1000)
@click.option("--batch", default=1, help="Ours: trials asked for together (Optuna's own loop asks for one).")
def main(trials: int, batch: int) -> None:
    warnings.simplefilter("ignore")
    bank = Bank.expanded("six", Grammar(["a {} " + " ".join(f"[{s}]" for s in SLOTS) + "."], SLOTS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        default = Optuna(f"sqlite:///{folder / 'default.db'}")
        same = Optuna(open_storage(str(folder / "same.db")))
        record = RunRecord.open("ours", str(folder / "ours.db"), RunConfig.from_dict({"objective": "xent"}), {})
        ours: list[float] = []
        last = time.perf_counter()

        def turn(done: int, total: int, what: str) -> None:
            nonlocal last
            took = time.perf_counter() - last
            ours.extend([took / (done - len(ours))] * (done - len(ours)))
            if done % CHUNK < batch or done == trials:
                for other in (default, same):
                    other.run(min(done, trials) - len(other.seconds))
                means = (1000 * np.mean(x[-CHUNK:]) for x in (default.seconds, same.seconds, ours))
                click.echo(
                    "at trial {:4d}: default {:6.1f}, same settings {:5.1f}, ours {:5.1f} ms a trial".format(
                        done, *means
                    )
                )
            last = time.perf_counter()

        searcher = TpeSearch(Space(bank), get_objective("xent"), batch=batch)
        Sharing(searcher, Free(), record, Budget(trials), turn).run()  # type: ignore[arg-type]
        a, b, c = (float(np.sum(x)) for x in (default.seconds, same.seconds, ours))
        click.echo(f"\n{trials} trials of six slots, batch {batch}: Optuna by default {a:.1f} s")
        click.echo(f"Optuna with our pragmas {b:.1f} s, ours {c:.1f} s")
        click.echo(f"throughput against Optuna's default: {a / c:.1f} times")
        tail = [np.mean(x[-2 * CHUNK :]) for x in (same.seconds, ours)]
        click.echo(f"last {2 * CHUNK} trials against Optuna with our pragmas: {100 * (tail[1] / tail[0] - 1):+.0f} %")
        click.echo(f"resuming at trial {trials}: {resume_seconds(folder, bank, trials, batch):.2f} s")


if __name__ == "__main__":
    main()
