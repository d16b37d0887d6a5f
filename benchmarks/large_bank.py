"""A bank whose logits do not fit the memory: growing parents by every template, at several sizes of the bank.

    python benchmarks/large_bank.py --templates 2500,5000,10000,20000 --memory 4GB --json large_bank.json

Random unit vectors, CIFAR-100 at 16 shots (1,600 x 100) unless told otherwise.  Every size runs in a process of its
own, so that its peak memory is its own.  Vectors that do not fit half of the budget lie in a temporary file (TMPDIR).
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import machine, peak_memory, save  # type: ignore[import-not-found]

from promptsearch.commands.options import MEMORY


def grow(templates: int, classes: int, pictures: int, dim: int, width: int, memory: int) -> dict[str, Any]:
    """Seconds to add all templates, and of one round of a beam search: parents of three, grown by every template."""
    from promptsearch.evaluators.scoring.template_table import TemplateTable

    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal(shape, dtype=np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    table = TemplateTable(unit(pictures, dim), np.arange(pictures) % classes, 100.0, memory)
    common = unit(1, classes, dim)
    start = time.perf_counter()
    for at in range(0, templates, 100):
        table.add(unit(min(100, templates - at), classes, dim) * 0.3 + common)
    added = time.perf_counter() - start
    parents = np.stack([rng.choice(templates, 3, replace=False) for _ in range(width)])
    start = time.perf_counter()
    sets = np.concatenate([np.column_stack([np.tile(p, (templates, 1)), np.arange(templates)]) for p in parents])
    accuracy, xent = table.score(sets)
    grown = time.perf_counter() - start
    some = rng.choice(len(sets), 5, replace=False)
    difference = float(np.abs(table.score(sets[some])[1] - xent[some]).max())
    return {
        "templates": templates,
        "kept": table.kept,
        "added_s": added,
        "round_s": grown,
        "sets_per_s": accuracy.size / grown,
        "peak_memory_gb": peak_memory(),
        "largest_xent_difference": difference,
    }


@click.command()
@click.option("--templates", default="2500,5000,10000,20000", show_default=True)
@click.option("--classes", default=100, show_default=True)
@click.option("--pictures", default=1600, show_default=True)
@click.option("--dim", default=1024, show_default=True)
@click.option("--width", default=4, show_default=True, help="Parents.")
@click.option("--memory", type=MEMORY, default="4GB", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(templates: str, classes: int, pictures: int, dim: int, width: int, memory: int, path: Path | None) -> None:
    """Seconds and peak memory by the size of the bank."""
    rows = []
    for n in map(int, templates.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(grow, (n, classes, pictures, dim, width, memory))
        rows.append(row)
        how = "logits kept" if row["kept"] else "logits computed again"
        click.echo(
            f"{n:6d} templates ({how}): added in {row['added_s']:.1f} s, a round "
            f"of {n * width} sets in {row['round_s']:.1f} s ({row['sets_per_s']:,.0f}/s), peak "
            f"{row['peak_memory_gb']:.2f} GB, cross-entropy within {row['largest_xent_difference']:.1e}"
        )
    save(path, {"machine": machine(), "memory": memory, "rows": rows})


if __name__ == "__main__":
    main()
