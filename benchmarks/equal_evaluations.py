"""Every searcher with equally many evaluations: who finds the better winner?

    python benchmarks/equal_evaluations.py --draws 10 --searchers random,climb,tpe,evolve --trials 60
    python benchmarks/equal_evaluations.py --draws 10 --searchers random,climb,tpe,evolve,beam --trials 541
    python benchmarks/equal_evaluations.py --draws 10 --bank grammar --ensemble 1 --trials 300

All search the same sets of up to two templates and begin with the hand-written prompt.  Beam search of one set per
round and two rounds scores the bank (271 templates) and each of its templates beside the best: 541 sets.  Prints for
each condition two rows: the mean accuracy of the winner on the test half by --select, and the mean cross-entropy on the
few shots of the best set found; each searcher's difference to the first with a 95 % interval over the draws
(Student's t); and, with beam, its differences to the others.  The last rows are over all conditions, the mean of a draw
counting once.
"""

from __future__ import annotations

import click
import numpy as np
from scipy.stats import t as student

from promptsearch.banks import BASELINE, PromptSet, load_bank
from promptsearch.evaluators import open_problem
from promptsearch.runs import Budget, Selection, search
from promptsearch.search import (
    BeamSearch,
    EvolveSearch,
    HillClimb,
    RandomSearch,
    Searcher,
    Space,
    TpeSearch,
    TrialSearcher,
    get_objective,
)

BY_TRIALS: dict[str, type[TrialSearcher]] = {
    "climb": HillClimb,
    "random": RandomSearch,
    "tpe": TpeSearch,
    "evolve": EvolveSearch,
}


ACCURACY = "test accuracy"


@click.command()
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--datasets", default="cifar100,pacs-photo", show_default=True)
@click.option("--shots", default=16, show_default=True)
@click.option("--draws", default=10, show_default=True)
@click.option("--select", default="none", show_default=True)
@click.option("--searchers", default="random,climb,tpe,evolve", show_default=True, help="Also beam.")
@click.option("--trials", default=120, show_default=True, help="Of all but beam.")
@click.option("--ensemble", default=2, show_default=True, help="Most templates of a set.")
def main(
    bank_spec: str,
    datasets: str,
    shots: int,
    draws: int,
    select: str,
    searchers: str,
    trials: int,
    ensemble: int,
) -> None:
    bank, goal = load_bank(bank_spec), get_objective("xent")
    names = searchers.split(",")

    def make(name: str, seed: int) -> Searcher:
        if name == "beam":
            return BeamSearch(bank, goal, width=1, depth=ensemble)
        made = BY_TRIALS[name](Space(bank, ensemble), goal, seed=seed, batch=8)
        made.start = (PromptSet.of(BASELINE),)
        return made

    pairs = [(n, names[0]) for n in names[1:]]
    pairs += [("beam", n) for n in names[1:] if "beam" in names[1:] and n != "beam"]
    heads = [*names, *(f"{one} − {other}" for one, other in pairs)]
    click.echo("| dataset | figure | " + " | ".join(heads) + " |\n" + "|---" * (2 + len(heads)) + "|")

    def show(where: str, figures: dict[str, dict[str, np.ndarray]]) -> None:
        for figure, found in figures.items():
            digits = 2 if figure == ACCURACY else 4
            means = [f"{found[n].mean():.{digits}f}" for n in names]
            gaps = [interval(found[one] - found[other], digits) for one, other in pairs]
            click.echo(f"| {where} | {figure} | " + " | ".join([*means, *gaps]) + " |")

    every = []
    for dataset in datasets.split(","):
        problem = open_problem("zeroshot", dataset)
        accuracy: dict[str, list[float]] = {n: [] for n in names}
        xent: dict[str, list[float]] = {n: [] for n in names}
        for seed in range(draws):
            task = problem.task(shots, seed)
            evaluator, test = problem.evaluator(task), task.open_test()
            for name in names:
                outcome = search(make(name, seed), evaluator, budget=Budget(None if name == "beam" else trials))
                chosen = Selection(select, bank, goal, seed, whole=name == "beam").choose(evaluator, outcome.ranked)
                accuracy[name].append(100 * float(evaluator.hits(chosen.prompt_set, test).mean()))
                xent[name].append(outcome.winner[1].xent)
        figures = {ACCURACY: accuracy, "few-shot cross-entropy": xent}
        every.append({f: {n: np.array(found[n]) for n in names} for f, found in figures.items()})
        show(dataset, every[-1])
    if len(every) > 1:
        show("all", {f: {n: np.mean([e[f][n] for e in every], axis=0) for n in names} for f in every[0]})


def interval(differences: np.ndarray, digits: int) -> str:
    """Mean and 95 % interval."""
    half = student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    mean = differences.mean()
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


if __name__ == "__main__":
    main()
