"""Which learning rates are fair to the learnt methods of a comparison?  Judged on development pictures only.

    python benchmarks/learnt_rates.py

Few-shot problems of ten classes each are drawn from the training pictures of CIFAR-100, and one of seven from those of
PACS photo; each result is judged on the training pictures of these classes not drawn. The seeds begin at 100:
no comparison uses them. No test split is opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from promptsearch.evaluators import Problem
    from promptsearch.search.gradient import FewShots, Learned, TextTower

#: Factors of each method's published (CoOp) or default (names) learning rate.
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def learn(method: str, factor: float, tower: TextTower, few: FewShots, shots: int, seed: int) -> Learned:
    """Train a method with its learning rate multiplied by a factor; epochs are CoOp's published ones.

    Args:
        method: "names", "coop-text", or "coop-N" with N random vectors.
        factor: What the learning rate is multiplied by.
        tower: The text tower.
        few: The few shots.
        shots: Their number per class.
        seed: Seed of the training.
    """
    from promptsearch.search.gradient import CoOpOptions, NamesOptions, Schedule, coop, learn_names, published_epochs
    from promptsearch.search.gradient.names import RATE

    epochs = published_epochs(shots)
    if method == "names":
        schedule = Schedule(epochs, factor * RATE, momentum=0.0, weight_decay=0.0)
        return learn_names(tower, few, NamesOptions(schedule=schedule), seed)
    schedule = Schedule(epochs, factor * Schedule.rate)
    if method == "coop-text":
        return coop(tower, few, CoOpOptions(init="a photo of a", schedule=schedule), seed)
    return coop(tower, few, CoOpOptions(vectors=int(method.removeprefix("coop-")), schedule=schedule), seed)


def problems(groups: int) -> Iterator[Problem]:
    """Yield problems of ten classes of CIFAR-100's training pictures, and PACS photo's.

    Args:
        groups: Number of problems from CIFAR-100, at most 10.
    """
    from promptsearch.evaluators import Problem, open_problem
    from promptsearch.evaluators.data.array_features import ArrayFeatures

    whole = open_problem("zeroshot", "cifar100")
    labels, _ = whole.source.labels("train")
    features, names = whole.source.features("train", np.arange(len(labels))), whole.source.class_names
    order = np.random.default_rng(0).permutation(len(names))
    for classes in order.reshape(10, 10)[:groups]:
        own = np.isin(labels, classes)
        place = {int(c): i for i, c in enumerate(classes)}
        source = ArrayFeatures(
            features[own], np.array([place[int(c)] for c in labels[own]]), [names[c] for c in classes]
        )
        yield Problem(whole.encoder, source, whole.cache)
    photos = open_problem("zeroshot", "pacs-photo")
    yield Problem(whole.encoder, photos.source, whole.cache)


@click.command()
@click.option("--methods", default="coop-16,coop-8,coop-4,coop-text,names", show_default=True)
@click.option("--shots", multiple=True, default=(1, 4), show_default=True, type=click.IntRange(1))
@click.option("--groups", default=4, show_default=True, type=click.IntRange(1, 10), help="Problems from CIFAR-100.")
@click.option("--draws", default=1, show_default=True, type=click.IntRange(1))
def main(methods: str, shots: tuple[int, ...], groups: int, draws: int) -> None:
    """Print the mean accuracy (%) by method, shots and factor, over problems and draws."""
    from promptsearch.evaluators.scoring.metrics import score_weights
    from promptsearch.search.gradient import FewShots, TextTower

    found: dict[tuple[str, int, float], list[float]] = defaultdict(list)
    for at, problem in enumerate(problems(groups)):
        tower, scale = TextTower(problem.encoder.model, problem.encoder.tokenizer), problem.encoder.logit_scale
        labels, indices = problem.source.labels("train")
        features = problem.source.features("train", np.arange(len(labels)))
        for count in shots:
            for draw in range(draws):
                task = problem.task(count, 100 + draw)
                left = ~np.isin(indices, task.support.indices)
                few = FewShots(task.class_names, task.support.features, task.support.labels, scale)
                for method in methods.split(","):
                    for factor in FACTORS:
                        learned = learn(method, factor, tower, few, count, 1000 * at + draw)
                        hits, _ = score_weights(learned.class_weights, features[left], labels[left], scale)
                        found[method, count, factor].append(100 * float(hits.mean()))
            click.echo(f"problem {at}, {count} shots: done", err=True)
    click.echo("| method | shots | " + " | ".join(f"rate × {f:g}" for f in FACTORS) + " |")
    click.echo("|---|---|" + "---|" * len(FACTORS))
    for method in methods.split(","):
        means = {c: [float(np.mean(found[method, c, f])) for f in FACTORS] for c in shots}
        for count in shots:
            click.echo(f"| {method} | {count} | " + " | ".join(f"{m:.1f}" for m in means[count]) + " |")
        overall = np.mean(list(means.values()), axis=0)
        click.echo(f"| {method} | mean | " + " | ".join(f"{m:.1f}" for m in overall) + " |")


if __name__ == "__main__":
    main()
