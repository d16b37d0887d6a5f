"""Searchers by trials at equal evaluations: which defaults TPE should have, and whether it beats random search.

python benchmarks/searchers.py --tune   # variants, on seeds and pictures that the comparison does not use
python benchmarks/searchers.py          # random, climb and TPE: 10 seeds, 300 evaluations, the test split
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np

from promptsearch.banks import Bank, PromptSet, load_bank
from promptsearch.evaluators import Evaluator, Problem, Split, open_problem
from promptsearch.search import HillClimb, RandomSearch, Space, TpeSearch, TrialSearcher, get_objective

CONDITIONS = ("cifar10-dark", "cifar10-lowres", "cifar10-negative")
Make = Callable[[Space, int], TrialSearcher]


def tpe(**options: object) -> Make:
    return lambda space, seed: TpeSearch(space, get_objective("xent"), seed=seed, **options)  # type: ignore[arg-type]


COMPARED: dict[str, Make] = {
    "random": lambda space, seed: RandomSearch(space, get_objective("xent"), seed=seed, batch=4),
    "climb": lambda space, seed: HillClimb(space, get_objective("xent"), seed=seed, batch=4),
    "tpe": tpe(batch=4),
}
TUNED: dict[str, Make] = {
    "random": COMPARED["random"],
    "tpe --sampler random": tpe(sampler="random", batch=4),
    "climb, batch 1": lambda space, seed: HillClimb(space, get_objective("xent"), seed=seed),
    "climb, batch 4": COMPARED["climb"],
    "tpe: multivariate, group, startup 20, batch 1": tpe(),
    "… batch 4": tpe(batch=4),
    "… batch 8": tpe(batch=8),
    "… startup 10": tpe(startup=10),
    "… startup 40": tpe(startup=40),
    "… without group": tpe(group=False),
    "… not multivariate": tpe(multivariate=False),
    "… not multivariate, batch 4": tpe(multivariate=False, batch=4),
    "… repeats not sampled again": tpe(resample=0),
    "… repeats sampled again up to 20 times": tpe(resample=20),
    "… no repeats (unseen ones instead)": tpe(patience=0),
    "nsga2": tpe(sampler="nsga2", batch=4),
}


def play(searcher: TrialSearcher, evaluator: Evaluator, evaluations: int) -> tuple[int, float]:
    """Search until so many distinct sets are scored: (repeats, seconds spent in the searcher)."""
    repeats, seconds = 0, 0.0
    while len(searcher.known) < evaluations:
        start = time.perf_counter()
        batch = searcher.ask()
        seconds += time.perf_counter() - start
        if not batch:
            break
        batch = batch[: evaluations - len(searcher.known)]
        fresh = [s for s in batch if s not in searcher.known]
        repeats += len(batch) - len(fresh)
        scores = {**searcher.known, **dict(zip(fresh, evaluator.score(fresh) if fresh else [], strict=True))}
        start = time.perf_counter()
        searcher.tell([(s, scores[s]) for s in batch])
        seconds += time.perf_counter() - start
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


def interval(differences: np.ndarray) -> str:
    """Mean of paired differences with its 95 % interval (Student's t)."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.3f} ({differences.mean() - half:+.3f} to {differences.mean() + half:+.3f})"


@click.command()
@click.option("--tune", is_flag=True)
@click.option("--seeds", default=10)
@click.option("--shots", default=16)
@click.option("--evaluations", default=300)
@click.option("--ensemble", default=1)
@click.option("--bank", "bank_spec", default="grammar")
@click.option("--only", multiple=True, help="Only the searchers whose name contains this.")
def main(
    tune: bool, seeds: int, shots: int, evaluations: int, ensemble: int, bank_spec: str, only: tuple[str, ...]
) -> None:
    bank: Bank = load_bank(bank_spec)
    makers = {k: m for k, m in (TUNED if tune else COMPARED).items() if not only or any(o in k for o in only)}
    first = 100 if tune else 0
    space = Space(bank, ensemble)
    accuracy: dict[str, list[float]] = {k: [] for k in makers}
    xent: dict[str, list[float]] = {k: [] for k in makers}
    spent: dict[str, list[float]] = {k: [] for k in makers}
    repeats: dict[str, list[float]] = {k: [] for k in makers}
    best: list[float] = []
    for condition in CONDITIONS:
        problem = open_problem("tiny", condition)
        for seed in range(first, first + seeds):
            evaluator, pictures = held_out(problem, seed, shots, tune)
            if ensemble == 1 and not bank.sampled:
                scores = evaluator.score([PromptSet.of(t) for t in bank])
                best.append(min(s.xent for s in scores))
            for name, make in makers.items():
                searcher = make(space, seed)
                again, seconds = play(searcher, evaluator, evaluations)
                assert searcher.best is not None
                xent[name].append(searcher.best[1].xent)
                accuracy[name].append(100 * evaluator.score_on([searcher.best[0]], pictures)[0].accuracy)
                spent[name].append(1000 * seconds / evaluations)
                repeats[name].append(again / max(1, searcher.trials))
            click.echo(f"{condition} seed {seed}", err=True)
    judged = "held-out training pictures" if tune else "test split"
    click.echo(
        f"{bank.name} ({space.count} sets), {shots} shots, {evaluations} evaluations, "
        f"seeds {first} to {first + seeds - 1}, conditions {', '.join(CONDITIONS)}; accuracy on the {judged}\n"
    )
    click.echo(
        "| searcher | cross-entropy of the winner (few-shot) | accuracy of the winner | against random | repeats "
        "| ms per evaluation |"
    )
    click.echo("|---|---|---|---|---|---|")
    base = next(iter(makers))
    for name in makers:
        against = "" if name == base else interval(np.array(accuracy[name]) - np.array(accuracy[base]))
        click.echo(
            f"| {name} | {np.mean(xent[name]):.4f} | {np.mean(accuracy[name]):.2f} | {against} | "
            f"{np.mean(repeats[name]):.0%} | {np.mean(spent[name]):.1f} |"
        )
    for name in list(makers)[1:]:
        click.echo(f"\n{name} against {base}, cross-entropy: {interval(np.array(xent[name]) - np.array(xent[base]))}")
    if best:
        click.echo(f"\nbest of the whole bank, cross-entropy: {np.mean(best):.4f}")


if __name__ == "__main__":
    main()
