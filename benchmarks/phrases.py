"""What chosen phrases gain on tasks of ten classes of CIFAR-100's training pictures: development data only.

python benchmarks/phrases.py --model local-dir:FOLDER --data CIFAR100 [--temper 0.25] [--draws 30]
"""

from __future__ import annotations

from functools import partial

import click
import numpy as np

from promptsearch.banks import BASELINE, PhraseBank, PromptSet, load_phrases
from promptsearch.evaluators import Evaluator, Split, Task, open_problem
from promptsearch.runs.selection import phrase_choice

CLASSES, MOST_SHOTS = 10, 16


def draw(features: np.ndarray, labels: np.ndarray, seed: int, shots: int) -> tuple[np.ndarray, Split, Split]:
    """(10,) classes, their few shots, and the pictures that no draw of this seed learns from."""
    rng = np.random.default_rng([7, seed])
    classes = rng.permutation(labels.max() + 1)[:CLASSES]
    inside, outside = [], []
    for c in classes:
        order = rng.permutation(np.flatnonzero(labels == c))
        inside.append(order[:shots])
        outside.append(order[MOST_SHOTS:])

    def split(parts: list[np.ndarray]) -> Split:
        at = np.concatenate(parts)
        return Split(features[at], np.repeat(np.arange(CLASSES), [len(p) for p in parts]), at)

    return classes, split(inside), split(outside)


def _opened(test: Split) -> Split:
    return test


@click.command()
@click.option("--model", required=True)
@click.option("--data", required=True, help="Folder of CIFAR-100.")
@click.option("--temper", default=phrase_choice.TEMPER, show_default=True, help="Share of the evidence that counts.")
@click.option("--draws", default=30, show_default=True)
def main(model: str, data: str, temper: float, draws: int) -> None:
    """Print points above the hand-written prompt, by shots."""
    phrase_choice.TEMPER = temper
    problem = open_problem(model, data)
    labels, _ = problem.source.labels("train")
    features, names = problem.source.features("train", np.arange(len(labels))), problem.source.class_names
    bank = load_phrases("cifar100")
    for shots in (1, 4, 16):
        gains, plain = [], []
        for seed in range(draws):
            classes, support, outside = draw(features, labels, seed, shots)
            own = tuple(names[c] for c in classes)
            task = Task("development", own, shots, seed, support, outside, partial(_opened, outside))
            evaluator = Evaluator(task, problem.encoder.encode_texts, problem.encoder.logit_scale)
            evaluator.fit_scale()
            phrases = PhraseBank(bank.name, {n: bank.phrases[n] for n in own})
            found = phrase_choice.choose_phrases(PromptSet.of(BASELINE), evaluator, phrases)
            ours, theirs = (100 * evaluator.hits(s, outside).mean() for s in (found, PromptSet.of(BASELINE)))
            gains.append(ours - theirs)
            plain.append(theirs)
        click.echo(
            f"{shots:2d} shots: hand-written {np.mean(plain):.1f}, gain {np.mean(gains):+.2f} "
            f"(worst draw {min(gains):+.1f})"
        )


if __name__ == "__main__":
    main()
