"""Is CoOp's published learning rate fair to the embedded model?  Judged on training pictures that were not drawn.

    python benchmarks/coop_rate.py --draws 4 --shots 1 --shots 4

Draws are of seeds from 100 on, which no comparison uses; the test split stays shut.
"""

from __future__ import annotations

from collections import defaultdict

import click
import numpy as np

CONDITIONS = ("cifar10", "cifar10-dark", "cifar10-lowres", "cifar10-negative")
RATES = (0.002, 0.001, 0.0005, 0.00025)


@click.command()
@click.option("--draws", default=4, show_default=True, type=click.IntRange(1))
@click.option("--shots", multiple=True, default=(1, 4), show_default=True, type=click.IntRange(1))
def main(draws: int, shots: tuple[int, ...]) -> None:
    """Accuracy and cross-entropy by rate and shots, means over conditions and draws."""
    from promptsearch.evaluators import open_problem
    from promptsearch.evaluators.scoring.predictions import score_weights
    from promptsearch.search.gradient import CoOpOptions, FewShots, Schedule, TextTower, coop, published_epochs

    found: dict[tuple[int, float], list[tuple[float, float]]] = defaultdict(list)
    for dataset in CONDITIONS:
        problem = open_problem("tiny", dataset)
        tower, scale = TextTower(problem.encoder.model, problem.encoder.tokenizer), problem.encoder.logit_scale
        labels, indices = problem.source.labels("train")
        features = problem.source.features("train", np.arange(len(labels)))
        for seed in range(100, 100 + draws):
            for count in shots:
                task = problem.task(count, seed)
                left = ~np.isin(indices, task.support.indices)
                for rate in RATES:
                    options = CoOpOptions(schedule=Schedule(published_epochs(count), rate))
                    support = task.support
                    few = FewShots(task.class_names, support.features, support.labels, scale)
                    learned = coop(tower, few, options, seed)
                    hits, xent = score_weights(learned.class_weights, features[left], labels[left], scale)
                    found[count, rate].append((float(hits.mean()), xent))
        click.echo(f"{dataset} done", err=True)
    click.echo("| shots | rate | accuracy | cross-entropy |\n|---|---|---|---|")
    for (count, rate), figures in sorted(found.items()):
        accuracy, xent = np.mean(figures, axis=0)
        click.echo(f"| {count} | {rate} | {100 * accuracy:.1f} | {xent:.3f} |")


if __name__ == "__main__":
    main()
