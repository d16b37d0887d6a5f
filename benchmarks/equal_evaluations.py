"""Every searcher with equally many evaluations: who finds the better winner?

    python benchmarks/equal_evaluations.py --draws 10

Beam search of one set per round and two rounds scores the bank and each of its templates beside the best; the others
get as many trials over the same sets of up to two templates, and begin with the hand-written prompt.  Prints for each
condition
the mean accuracy of the winner on the test half by --select, and beam's difference to each of the others with a 95 %
interval over the draws (Student's t).
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
    Space,
    TpeSearch,
    TrialSearcher,
    get_objective,
)


@click.command()
@click.option("--datasets", default="cifar10,cifar10-dark,cifar10-lowres,cifar10-negative", show_default=True)
@click.option("--shots", default=16, show_default=True)
@click.option("--draws", default=10, show_default=True)
@click.option("--select", default="posterior", show_default=True)
@click.option("--searchers", default="beam,climb,random", show_default=True, help="Also tpe and evolve: slow.")
def main(datasets: str, shots: int, draws: int, select: str, searchers: str) -> None:
    bank, goal = load_bank("templates"), get_objective("xent")
    names = searchers.split(",")
    trials = 2 * len(bank) - 1
    made = {"climb": HillClimb, "random": RandomSearch, "tpe": TpeSearch, "evolve": EvolveSearch}
    click.echo("| dataset | " + " | ".join(names) + " | " + " | ".join(f"beam − {n}" for n in names[1:]) + " |")
    click.echo("|" + "---|" * (2 * len(names)))
    for dataset in datasets.split(","):
        problem = open_problem("tiny", dataset)
        found: dict[str, list[float]] = {n: [] for n in names}
        for seed in range(draws):
            task = problem.task(shots, seed)
            evaluator, test = problem.evaluator(task), task.open_test()
            for name in names:
                if name == "beam":
                    ranked = search(BeamSearch(bank, goal, width=1, depth=2), evaluator).ranked
                else:
                    searcher: TrialSearcher = made[name](Space(bank, 2), goal, seed=seed, batch=8)
                    searcher.start = (PromptSet.of(BASELINE),)
                    ranked = search(searcher, evaluator, budget=Budget(trials)).ranked
                selection = Selection(select, bank, goal, seed, whole=name == "beam")
                chosen = selection.choose(evaluator, ranked)
                found[name].append(float(evaluator.hits(chosen.prompt_set, test).mean()))
        means = [f"{100 * np.mean(found[n]):.2f}" for n in names]
        gaps = [interval(100 * (np.array(found[names[0]]) - np.array(found[n]))) for n in names[1:]]
        click.echo(f"| {dataset} | " + " | ".join([*means, *gaps]) + " |")


def interval(differences: np.ndarray) -> str:
    """Mean and 95 % interval."""
    half = student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.2f} ({differences.mean() - half:+.2f} to {differences.mean() + half:+.2f})"


if __name__ == "__main__":
    main()
