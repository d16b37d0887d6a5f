"""How many pictures `predict --unknown-below auto` calls unknown: of the run's classes, and of others.

python benchmarks/unknown.py [--draws 20] [--classes 10] [--shots 16]

On training pictures of CIFAR-100, the embedded model and the hand-written prompt: each draw takes some classes and some
shots, estimates the threshold on them, and judges the other training pictures of these classes and those of all others.
"""

from __future__ import annotations

import click
import numpy as np

from promptsearch.banks import BASELINE, PromptSet
from promptsearch.evaluators import Problem, default_cache, open_problem
from promptsearch.evaluators.data.array_features import ArrayFeatures
from promptsearch.runs.result import calibrate, probabilities


@click.command()
@click.option("--draws", default=20, show_default=True, type=click.IntRange(2))
@click.option("--classes", default=10, show_default=True, type=click.IntRange(2, 99))
@click.option("--shots", default=16, show_default=True, type=click.IntRange(1))
def main(draws: int, classes: int, shots: int) -> None:
    """Shares of pictures that are called unknown."""
    problem = open_problem("zeroshot", "cifar100", device="cpu")
    labels, _ = problem.source.labels("train")
    features = problem.source.features("train", np.arange(len(labels)))
    names = problem.source.class_names
    known: list[float] = []
    others: list[float] = []
    right: list[float] = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(names), classes, replace=False)
        few = np.concatenate([rng.choice(np.flatnonzero(labels == c), shots, replace=False) for c in chosen])
        place = {int(c): i for i, c in enumerate(chosen)}
        source = ArrayFeatures(
            features[few], np.array([place[int(c)] for c in labels[few]]), [names[c] for c in chosen], whole=True
        )
        part = Problem(problem.encoder, source, default_cache())
        evaluator = part.evaluator(part.task(shots, seed))
        calibration = calibrate(evaluator, PromptSet.of(BASELINE))
        assert calibration.unknown_below is not None
        rest = np.setdiff1d(np.flatnonzero(np.isin(labels, chosen)), few)
        weights = evaluator.class_weights(PromptSet.of(BASELINE))
        for at, share in ((rest, known), (np.flatnonzero(~np.isin(labels, chosen)), others)):
            best = probabilities(features[at] @ weights.T, calibration.logit_scale)
            share.append(float((best.max(axis=1) < calibration.unknown_below).mean()))
            if share is known:
                right.append(float((chosen[best.argmax(axis=1)] == labels[at]).mean()))
    print(f"{draws} draws of {classes} classes, {shots} shots; accuracy {np.mean(right):.1%}")
    for name, shares in (("of the run's classes", known), ("of other classes", others)):
        print(f"called unknown, {name}: {np.mean(shares):.1%} ± {np.std(shares, ddof=1):.1%}")


if __name__ == "__main__":
    main()
