"""Scoring of prompt ensembles against the plain matrix product per candidate, in one run, turn by turn.

    python benchmarks/scoring.py --repeats 5 --json scoring.json

CIFAR-10 at 16 shots (160 pictures x 10 classes) and CIFAR-100 at 16 shots (1,600 x 100), random unit vectors of
RN50's size.  Ours scores parents with every template of the bank (`TemplateTable.score`).  The peer computes, per
candidate, the normalised mean of its text vectors, one matrix product with the pictures, accuracy and cross-entropy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
from measure import Clock, machine, save  # type: ignore[import-not-found]

from promptsearch.evaluators.encoding.device import available_cores
from promptsearch.evaluators.scoring.template_table import TemplateTable

CASES = {"CIFAR-10, 16 shots": (10, 160, 400, 32, 40), "CIFAR-100, 16 shots": (100, 1600, 60, 4, 4)}


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain(vectors: np.ndarray, table: TemplateTable, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One candidate at a time, as one would write it with numpy."""
    accuracy, xent = np.empty(len(sets)), np.empty(len(sets))
    labels = table.labels
    for i, s in enumerate(sets):
        w = vectors[s].mean(axis=0)
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        logits = table.logit_scale * (table.features @ w.T)
        accuracy[i] = (logits.argmax(1) == labels).mean()
        top = logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(labels)), labels]
        xent[i] = losses.mean(dtype=np.float64)
    return accuracy, xent


def turns_of_a_second(work: Callable[[], object]) -> int:
    """How often to do it in a turn: BLAS's threads spin for some hundredths of a second after the peer's."""
    work()
    start = time.perf_counter()
    work()
    return max(1, round(1 / (time.perf_counter() - start)))


@click.command()
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--dim", default=1024, show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(repeats: int, dim: int, path: Path | None) -> None:
    """PromptSets a second: the table of templates, and the plain product."""
    results = []
    for name, (classes, pictures, templates, width, sample) in CASES.items():
        rng = np.random.default_rng(0)
        table = TemplateTable(unit(rng, pictures, dim), np.arange(pictures) % classes, 100.0)
        common = unit(rng, 1, classes, dim)  # templates of one bank are alike
        vectors = common + 0.3 * unit(rng, templates, classes, dim)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        table.add(vectors)
        parents = np.stack([rng.choice(templates, 3, replace=False) for _ in range(width)])
        sets = np.concatenate([np.column_stack([np.tile(p, (templates, 1)), np.arange(templates)]) for p in parents])
        few = sets[:: max(1, len(sets) // sample)][:sample]
        clock = Clock(available_cores())
        work: dict[str, Callable[[], object]] = {
            "score": partial(table.score, sets),
            "plain": partial(plain, vectors, table, few),
        }
        times = {key: turns_of_a_second(f) for key, f in work.items()}
        for _ in range(repeats):
            for key, f in work.items():
                clock.time(key, lambda f=f, n=times[key]: [f() for _ in range(n)])
        counts = {key: times[key] * (len(few) if key == "plain" else len(sets)) for key in work}
        rates = {k: [counts[k] / seconds for seconds in v] for k, v in clock.seconds.items()}
        at = np.arange(0, len(sets), max(1, len(sets) // sample))[:sample]
        expected = plain(vectors, table, few)
        scored = [a[at] for a in table.score(sets)]
        medians = {k: statistics.median(v) for k, v in rates.items()}
        row = {
            "case": name,
            "sets_per_s": medians,
            "share_of_cores": {k: statistics.median(v) for k, v in clock.share.items()},
            "score_over_plain": statistics.median(s / p for s, p in zip(rates["score"], rates["plain"], strict=True)),
            "accuracy_equal": bool(np.array_equal(scored[0], expected[0])),
            "largest_xent_difference": float(np.abs(scored[1] - expected[1]).max()),
        }
        results.append(row)
        click.echo(
            f"{name}: {medians['score']:,.0f} sets/s, plain {medians['plain']:,.0f}; {row['score_over_plain']:.1f} "
            f"times the plain product; accuracy {'equal' if row['accuracy_equal'] else 'DIFFERS'}, cross-entropy "
            f"within {row['largest_xent_difference']:.1e}; {row['share_of_cores']['score']:.0%} of the cores"
        )
    save(path, {"machine": machine(), "cores": available_cores(), "cases": results})


if __name__ == "__main__":
    main()
