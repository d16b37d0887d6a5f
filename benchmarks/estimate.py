"""Does the nested estimate's 95 % interval cover the winner's accuracy on the test half?

    python benchmarks/estimate.py --draws 200
    python benchmarks/estimate.py --draws 1000 --first 1000 --shots 4 --held-out
    python benchmarks/estimate.py --datasets cifar10 --phrases auto --bank openai-cifar --shots 4

Every draw is a whole run: beam search, choice by --select, and the estimate with search and choice repeated in folds;
with --phrases the choice of phrases too, of how many, and the guard.
Prints per condition and number of shots the bias of the naive accuracy (on the support set) and of the estimate against
the winner's accuracy on the test half, in points, how often the interval holds it, and the interval's mean width; with
--held-out against the accuracy on the pool's pictures that were not drawn, which is what folds and interval were chosen
by.
"""

from __future__ import annotations

import click
import numpy as np
from selection import others  # type: ignore[import-not-found]

from promptsearch.banks import Bank, load_bank
from promptsearch.evaluators import open_problem
from promptsearch.runs import Repeat, Selection, search
from promptsearch.runs.open_run import with_phrases
from promptsearch.runs.selection.nested_cv import settle
from promptsearch.search import BeamSearch, get_objective


@click.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--phrases", default="none", show_default=True, help="As the option of the commands.")
@click.option("--datasets", default="cifar100,pacs-photo", show_default=True)
@click.option("--shots", default="4,16", show_default=True)
@click.option("--draws", default=200, show_default=True)
@click.option("--select", default="posterior", show_default=True)
@click.option("--objective", default="xent", show_default=True)
@click.option("--width", default=2, show_default=True)
@click.option("--depth", default=2, show_default=True)
@click.option("--first", default=0, show_default=True, help="Seed of the first draw.")
@click.option("--held-out", is_flag=True, help="Judge by the pool's other training pictures, not by the test half.")
def main(
    model: str,
    bank_spec: str,
    phrases: str,
    datasets: str,
    shots: str,
    draws: int,
    select: str,
    objective: str,
    width: int,
    depth: int,
    first: int,
    held_out: bool,
) -> None:
    plain, goal = load_bank(bank_spec), get_objective(objective)

    def beam(over: Bank) -> BeamSearch:
        return BeamSearch(over, goal, width=width, depth=depth)

    judges = "pool" if held_out else "test half"
    click.echo(f"| dataset | shots | {judges} | naive bias | estimate's bias | coverage | interval's width |")
    click.echo("|" + "---|" * 7)
    for k in map(int, shots.split(",")):
        for dataset in datasets.split(","):
            problem = open_problem(model, dataset)
            bank, rows = with_phrases(plain, phrases, problem), []
            for seed in range(first, first + draws):
                task = problem.task(k, seed)
                evaluator = problem.evaluator(task)
                selection = Selection(select, bank, goal, seed, whole=True)
                repeat = Repeat(beam, bank, evaluator)
                chosen, e = settle(selection, repeat, search(beam(bank), evaluator).ranked)
                assert e is not None  # with labels there is an estimate
                pictures = others(problem, task) if held_out else task.open_test()
                truth = float(evaluator.hits(chosen.prompt_set, pictures).mean())
                i = e.accuracy
                covered = i.low <= truth <= i.high
                rows.append((truth, e.naive - truth, i.value - truth, covered, i.high - i.low))
            truth, naive, bias, coverage, span = 100 * np.mean(rows, axis=0)
            click.echo(
                f"| {dataset} | {k} | {truth:.2f} | {naive:+.2f} | {bias:+.2f} | {coverage:.1f} % | {span:.1f} |"
            )


if __name__ == "__main__":
    main()
