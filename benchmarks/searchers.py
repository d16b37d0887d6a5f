"""Searchers by trials at equal evaluations: which defaults TPE should have, and whether it beats random search.

python benchmarks/searchers.py --tune --out tune.jsonl     # variants, on seeds that the comparison does not use
python benchmarks/searchers.py --out compare.jsonl         # random, climb and TPE: 10 seeds, 300 evaluations
python benchmarks/searchers.py --table tune.jsonl          # the table of what was measured so far

A line is written for every search, and what is written is not measured again: a run that was cut off goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.banks import PromptSet, load_bank
from promptsearch.evaluators import Evaluator, Problem, Split, open_problem
from promptsearch.search import (
    EvolveSearch,
    HillClimb,
    RandomSearch,
    Space,
    TpeSearch,
    TrialSearcher,
    get_objective,
)

CONDITIONS = ("cifar10-dark", "cifar10-lowres", "cifar10-negative")
Make = Callable[[Space, int], TrialSearcher]


def tpe(objective: str = "xent", **options: Any) -> Make:
    return lambda space, seed: TpeSearch(space, get_objective(objective), seed=seed, **options)


def climb(batch: int) -> Make:
    return lambda space, seed: HillClimb(space, get_objective("xent"), seed=seed, batch=batch)


COMPARED: dict[str, Make] = {
    "random": lambda space, seed: RandomSearch(space, get_objective("xent"), seed=seed, batch=4),
    "climb": climb(4),
    "tpe": tpe(batch=4),
}
TUNED: dict[str, Make] = {
    "random": COMPARED["random"],
    "climb, batch 4": climb(4),
    "climb, batch 1": climb(1),
    "evolve, without a language model": lambda space, seed: EvolveSearch(
        space, get_objective("xent"), seed=seed, batch=4
    ),
    "tpe (multivariate, group, startup 20, batch 4, a quarter of the root good, repeats → neighbours)": tpe(batch=4),
    "tpe, startup 10": tpe(batch=4, startup=10),
    "tpe, startup 40": tpe(batch=4, startup=40),
    "tpe, startup 60": tpe(batch=4, startup=60),
    "tpe, batch 1": tpe(batch=1),
    "tpe, batch 8": tpe(batch=8),
    "tpe, by accuracy": tpe("accuracy", batch=4),
    "tpe --sampler nsga2": tpe(sampler="nsga2", batch=4),
}


def play(searcher: TrialSearcher, evaluator: Evaluator, evaluations: int) -> tuple[int, float]:
    """Search until so many distinct sets are scored: (repeats, seconds of processor time spent in the searcher)."""
    repeats, seconds = 0, 0.0
    while len(searcher.known) < evaluations:
        start = time.process_time()
        batch = searcher.ask()
        seconds += time.process_time() - start
        if not batch:
            break
        batch = batch[: evaluations - len(searcher.known)]
        fresh = [s for s in batch if s not in searcher.known]
        repeats += len(batch) - len(fresh)
        scores = {**searcher.known, **dict(zip(fresh, evaluator.score(fresh) if fresh else [], strict=True))}
        start = time.process_time()
        searcher.tell([(s, scores[s]) for s in batch])
        seconds += time.process_time() - start
    return repeats, seconds


def held_out(problem: Problem, seed: int, shots: int, tune: bool) -> tuple[Evaluator, Split]:
    """The few shots, and pictures to judge by: of the training pool what was not drawn, or the test split."""
    task = problem.task(shots, seed)
    evaluator = problem.evaluator(task)
    if not tune:
        return evaluator, task.open_test()
    labels, indices = problem.source.labels("train")
    drawn = set(task.support.indices.tolist()) | set(task.validation.indices.tolist())
    at = np.array([i for i, index in enumerate(indices.tolist()) if index not in drawn])
    return evaluator, Split(problem.source.features("train", at), labels[at], indices[at])


def interval(differences: np.ndarray, digits: int = 2) -> str:
    """Mean of paired differences with its 95 % interval (Student's t)."""
    from scipy import stats

    if len(differences) < 2:
        return f"{differences.mean():+.{digits}f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    low, high = differences.mean() - half, differences.mean() + half
    return f"{differences.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def measure(out: Path, makers: Mapping[str, Make], tune: bool, seeds: range, o: Mapping[str, Any]) -> None:
    """Append a line for every search that has none yet."""
    bank = load_bank(o["bank"])
    space = Space(bank, o["ensemble"])
    text = out.read_text("utf-8") if out.exists() else ""
    done = {(r["condition"], r["seed"], r["searcher"]) for r in map(json.loads, text.splitlines())}
    problems = {c: open_problem("zeroshot", c) for c in CONDITIONS}
    for seed in seeds:
        for condition in CONDITIONS:
            todo = {n: m for n, m in makers.items() if (condition, seed, n) not in done}
            if not todo:
                continue
            evaluator, pictures = held_out(problems[condition], seed, o["shots"], tune)
            optimum = None
            if o["ensemble"] == 1 and not bank.sampled:
                optimum = min(s.xent for s in evaluator.score([PromptSet.of(t) for t in bank]))
            for name, make in todo.items():
                searcher = make(space, seed)
                repeats, seconds = play(searcher, evaluator, o["evaluations"])
                assert searcher.best is not None
                row = {"condition": condition, "seed": seed, "searcher": name, **o, "tune": tune}
                row |= {"xent": searcher.best[1].xent, "optimum": optimum, "repeats": repeats / searcher.trials}
                row["accuracy"] = 100 * float(evaluator.hits(searcher.best[0], pictures).mean())
                row["held_out_xent"] = float(evaluator.losses(searcher.best[0], pictures).mean())
                row["ms"] = 1000 * seconds / len(searcher.known)
                with out.open("a", encoding="utf-8") as f:
                    f.write(json.dumps(row) + "\n")


def table(rows: list[dict[str, Any]]) -> None:
    """Print what was measured: means over the problems that all searchers were measured on, paired with random's."""
    names = list(dict.fromkeys(r["searcher"] for r in rows))
    at = {(r["condition"], r["seed"], r["searcher"]): r for r in rows}
    problems = sorted({(c, s) for c, s, _ in at if all((c, s, n) in at for n in names)})
    first = rows[0]
    seeds = sorted({s for _, s in problems})
    judged = "the training pictures that were not drawn" if first["tune"] else "the test split"
    click.echo(
        f"bank {first['bank']}, ensembles of up to {first['ensemble']}, {first['shots']} shots, {first['evaluations']} "
        f"evaluations, seeds {seeds[0]} to {seeds[-1]}, {', '.join(CONDITIONS)}; held out: {judged}\n"
    )
    click.echo(
        "| searcher | cross-entropy, few-shot | against random | accuracy, held out | against random "
        "| repeats | ms per evaluation |\n|---|---|---|---|---|---|---|"
    )

    def column(name: str, key: str, of: list[tuple[str, int]] = problems) -> np.ndarray:
        return np.array([at[c, s, name][key] for c, s in of])

    for n in names:
        x, a = (interval(column(n, k) - column(names[0], k), d) for k, d in (("xent", 4), ("accuracy", 2)))
        click.echo(
            f"| {n} | {column(n, 'xent').mean():.4f} | {x} | {column(n, 'accuracy').mean():.2f} | {a} "
            f"| {column(n, 'repeats').mean():.0%} | {column(n, 'ms').mean():.1f} |"
        )
    for c in CONDITIONS:
        of = [p for p in problems if p[0] == c]
        shown = [f"{n} {interval(column(n, 'accuracy', of) - column(names[0], 'accuracy', of))}" for n in names[1:]]
        click.echo(f"\n{c}, accuracy against {names[0]}: " + "; ".join(shown))
    if first["optimum"] is not None:
        click.echo(f"\nbest of the whole bank, cross-entropy: {column(names[0], 'optimum').mean():.4f}")


@click.command()
@click.option("--tune", is_flag=True)
@click.option("--first", type=int, help="The first seed: 0, or 100 with --tune.")
@click.option("--seeds", default=10)
@click.option("--shots", default=16)
@click.option("--evaluations", default=300)
@click.option("--ensemble", default=1)
@click.option("--bank", default="grammar")
@click.option("--only", multiple=True, help="Only the searchers whose name contains this.")
@click.option("--out", type=click.Path(path_type=Path), default="searchers.jsonl")
@click.option("--table", "tables", multiple=True, type=click.Path(path_type=Path, exists=True))
def main(
    tune: bool, first: int | None, seeds: int, only: tuple[str, ...], out: Path, tables: tuple[Path, ...], **o: Any
) -> None:
    if not tables:
        makers = {k: m for k, m in (TUNED if tune else COMPARED).items() if not only or any(w in k for w in only)}
        start = (100 if tune else 0) if first is None else first
        measure(out, makers, tune, range(start, start + seeds), o)
    table([json.loads(line) for path in tables or (out,) for line in path.read_text("utf-8").splitlines()])


if __name__ == "__main__":
    main()
