"""How well does each objective's figure tell good templates from bad ones?  Correlations over a bank.

    python benchmarks/objectives.py --draws 5 --held-out

For every draw, all templates of the bank are scored alone on the support set (label-free objectives: on unlabelled
pictures).  Prints per condition and number of shots, for each objective, Spearman's correlation of its figure with the
accuracy on the test half (with --held-out: on the pool's pictures that were not drawn, which defaults are chosen by),
and the accuracy of the template that it puts first; means over draws.
"""

from __future__ import annotations

import click
import numpy as np
from scipy.stats import spearmanr

from promptsearch.banks import PromptSet, load_bank
from promptsearch.evaluators import open_problem
from promptsearch.search import OBJECTIVES, get_objective


@click.command()
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--datasets", default="cifar100,pacs-photo", show_default=True)
@click.option("--shots", default="0,1,4,16", show_default=True)
@click.option("--unlabelled", default=500, show_default=True)
@click.option("--draws", default=5, show_default=True)
@click.option("--held-out", is_flag=True, help="Judge by the pool's other training pictures, not by the test half.")
def main(bank_spec: str, datasets: str, shots: str, unlabelled: int, draws: int, held_out: bool) -> None:
    bank = load_bank(bank_spec)
    singles = [PromptSet.of(t) for t in bank.templates]
    click.echo("| dataset | shots | objective | Spearman | first template | hand-written | best |\n|" + "---|" * 7)
    for dataset in datasets.split(","):
        problem = open_problem("zeroshot", dataset)
        labels, indices = problem.source.labels("train")
        for k in map(int, shots.split(",")):
            names = [n for n in OBJECTIVES if bool(k) or not get_objective(n).labels]
            found: dict[str, list[tuple[float, float, float, float]]] = {n: [] for n in names}
            for seed in range(draws):
                task = problem.task(k, seed, None if k else min(unlabelled, len(labels) // 2))
                evaluator = problem.evaluator(task)
                evaluator.require([f for n in names for f in get_objective(n).needs], bank.templates)
                scores = evaluator.score(singles)
                if held_out:
                    drawn = np.concatenate([task.support.indices, task.validation.indices])
                    rest = np.flatnonzero(~np.isin(indices, drawn))
                    features, true = problem.source.features("train", rest), labels[rest]
                else:
                    test = task.open_test()
                    features, true = test.features, test.labels
                worth = np.array(
                    [((features @ evaluator.class_weights(s).T).argmax(axis=1) == true).mean() for s in singles]
                )
                plain = next(i for i, t in enumerate(bank.templates) if str(t) == "a photo of a {}.")
                for name in names:
                    objective = get_objective(name)
                    values = np.array([objective.value(s) for s in scores])
                    keys = [objective(s) for s in scores]
                    first = keys.index(max(keys))
                    rho = float(spearmanr(values, worth).statistic) if np.ptp(values) else np.nan
                    found[name].append((rho, worth[first], worth[plain], worth.max()))
            for name, rows in found.items():
                rho, first, plain_, best = np.mean(rows, axis=0)
                accuracies = " | ".join(f"{100 * v:.2f}" for v in (first, plain_, best))
                shown = "" if np.isnan(rho) else f"{rho:+.2f}"  # every template has the same figure
                click.echo(f"| {dataset} | {k} | {name} | {shown} | {accuracies} |")


if __name__ == "__main__":
    main()
