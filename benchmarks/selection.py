"""Which way of choosing the winner generalises best?  Draws x shots x conditions on the shipped feature pack.

    python benchmarks/selection.py --draws 10 --held-out
    python benchmarks/selection.py --draws 10 --methods posterior --width 8 --depth 6
    python benchmarks/selection.py --draws 10 --held-out --methods none,posterior --searcher climb

Prints, per condition and number of shots, the mean accuracy over draws of the winner by each method of --select, less
that of "a photo of a {}.", on the test half; with --held-out on the pool's pictures that were not drawn, which is what
the default was chosen by.  "oracle" is the best single template by the very labels that judge, "ensemble" (on the test
half) the best ensemble of up to six by them: a beam of width 8 by accuracy.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import click
import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet, load_bank
from promptsearch.evaluators import Problem, Split, Task, open_problem
from promptsearch.runs import Budget, Repeat, Selection, search
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

#: By trials, over ensembles of up to six templates.
BY_TRIALS: dict[str, type[TrialSearcher]] = {
    "random": RandomSearch,
    "climb": HillClimb,
    "tpe": TpeSearch,
    "evolve": EvolveSearch,
}


@click.command()
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--datasets", default="cifar100,pacs-photo", show_default=True)
@click.option("--shots", default="1,2,4,8,16", show_default=True)
@click.option("--draws", default=10, show_default=True)
@click.option("--methods", default="none,posterior,bagged,cv,bootstrap", show_default=True)
@click.option("--searcher", type=click.Choice(["beam", *BY_TRIALS]), default="beam", show_default=True)
@click.option("--trials", default=200, show_default=True, help="Of searchers other than beam.")
@click.option("--width", default=2, show_default=True)
@click.option("--depth", default=3, show_default=True)
@click.option("--objective", default="xent", show_default=True)
@click.option("--held-out", is_flag=True, help="Judge by the pool's other training pictures, not by the test half.")
def main(
    bank_spec: str,
    datasets: str,
    shots: str,
    draws: int,
    methods: str,
    searcher: str,
    trials: int,
    width: int,
    depth: int,
    objective: str,
    held_out: bool,
) -> None:
    bank, goal = load_bank(bank_spec), get_objective(objective)
    singles = [PromptSet.of(t) for t in bank.templates]
    names = methods.split(",")
    columns = ["dataset", "shots", "hand-written", *names, "single", "oracle", *([] if held_out else ["ensemble"])]
    click.echo("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))

    def make(seed: int, over: Bank) -> Searcher:
        if searcher == "beam":
            return BeamSearch(over, goal, width=width, depth=depth)
        made = BY_TRIALS[searcher](Space(over, 6), goal, seed=seed, batch=8)
        made.start = (PromptSet.of(BASELINE),)
        return made

    budget = None if searcher == "beam" else trials
    for dataset in datasets.split(","):
        problem = open_problem("zeroshot", dataset)
        ensemble = None if held_out else oracle_ensemble(problem, bank)
        for k in map(int, shots.split(",")):
            found: dict[str, list[float]] = {n: [] for n in columns[2:]}
            for seed in range(draws):
                task = problem.task(k, seed)
                judge = others(problem, task) if held_out else task.open_test()
                evaluator = problem.evaluator(task)
                ranked = search(make(seed, bank), evaluator, budget=Budget(budget)).ranked
                repeat = Repeat(partial(make, seed), bank, evaluator, trials=budget)
                for name in names:
                    chosen = Selection(name, bank, goal, seed, whole=budget is None).choose(evaluator, ranked, repeat)
                    found[name].append(evaluator.hits(chosen.prompt_set, judge).mean())
                best = min(zip(evaluator.score(singles), singles, strict=True), key=lambda r: r[0].xent)[1]
                found["single"].append(evaluator.hits(best, judge).mean())
                found["hand-written"].append(evaluator.hits(PromptSet.of(BASELINE), judge).mean())
                found["oracle"].append(max(evaluator.hits(s, judge).mean() for s in singles))
                if ensemble is not None:
                    found["ensemble"].append(evaluator.hits(ensemble, judge).mean())
            plain = np.mean(found["hand-written"])
            rest = [f"{100 * (np.mean(found[n]) - plain):+.2f}" for n in columns[3:]]
            click.echo(f"| {dataset} | {k} | {100 * plain:.2f} | " + " | ".join(rest) + " |")


def oracle_ensemble(problem: Problem, bank: Bank) -> PromptSet:
    """The best ensemble by the labels of the test half: what no choice on few shots can be asked to beat."""
    task = problem.task(1, 0)
    cheat = problem.evaluator(replace(task, support=task.open_test()))
    return search(BeamSearch(bank, get_objective("accuracy"), width=8, depth=6), cheat).winner[0]


def others(problem: Problem, task: Task) -> Split:
    """The pool's pictures that were not drawn."""
    labels, indices = problem.source.labels("train")
    drawn = np.concatenate([task.support.indices, task.validation.indices])
    rest = np.flatnonzero(~np.isin(indices, drawn))
    return Split(problem.source.features("train", rest), labels[rest], indices[rest])


if __name__ == "__main__":
    main()
