"""How the cost of a beam search's round grows with templates, classes, pictures, ensemble size and rounds.

    python benchmarks/growth.py --json growth.json

Seconds of CPU, summed over the cores, of scoring one round (8 parents times every template, as the search asks for it)
and of adding the templates, with one of the numbers changed at a time.  Random unit vectors of RN50's size.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import numpy as np
from measure import machine, save  # type: ignore[import-not-found]

from promptsearch.evaluators.scoring.template_table import TemplateTable

BASE = {"templates": 200, "classes": 20, "pictures": 320, "size": 4}


def cost(templates: int, classes: int, pictures: int, size: int, width: int = 8) -> tuple[float, float]:
    """CPU seconds to add the templates, and to score one round of ensembles of `size`."""
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal(shape, dtype=np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    table = TemplateTable(unit(pictures, 1024), np.arange(pictures) % classes, 100.0)
    vectors = unit(templates, classes, 1024)
    start = time.process_time()
    table.add(vectors)
    added = time.process_time() - start
    parents = np.stack([rng.choice(templates, size - 1, replace=False) for _ in range(width)])
    sets = np.concatenate([np.column_stack([np.tile(p, (templates, 1)), np.arange(templates)]) for p in parents])
    rounds = []
    for _ in range(5):
        start = time.process_time()
        table.score(sets)
        rounds.append(time.process_time() - start)
    return added, statistics.median(rounds)


@click.command()
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(path: Path | None) -> None:
    """CPU seconds by each of the numbers."""
    rows = []
    for name, base in BASE.items():
        for times in (1, 2, 4):
            added, scored = cost(**{**BASE, name: base * times})
            rows.append({"changed": name, "value": base * times, "add_cpu_s": added, "round_cpu_s": scored})
            click.echo(f"{name:10s} {base * times:5d}: added in {added:.2f} s, a round in {scored:.3f} s of CPU")
    save(path, {"machine": machine(), "base": BASE, "rows": rows})


if __name__ == "__main__":
    main()
