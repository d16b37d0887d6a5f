"""Memory while many pictures stream through: from a parquet file to the cache.

    python benchmarks/stream.py --pictures 50000 --json stream.json

JPEG pictures of CIFAR's size through the embedded model, in a process that starts with nothing cached; prints the peak
memory as the pictures go by.  What grows with their number is the features alone: 4 bytes a number.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from measure import machine, peak_memory, save  # type: ignore[import-not-found]
from pictures import made_jpegs, parquet_of  # type: ignore[import-not-found]

from promptsearch.evaluators import Cache, open_problem


@click.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--pictures", "count", default=50_000, show_default=True, type=click.IntRange(1000))
@click.option("--side", default=32, show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(model: str, count: int, side: int, path: Path | None) -> None:
    """Peak memory by the number of pictures encoded."""
    home = Path(tempfile.mkdtemp())
    jpegs = made_jpegs(1000, side)
    folder = parquet_of([jpegs[i % 1000] for i in range(count)], home / "data")
    problem = open_problem(model, str(folder), cache=Cache(home / "cache"))
    rows: list[dict[str, float]] = []
    start = time.perf_counter()

    def told(done: int, total: int, what: str) -> None:
        if done and done % 8192 == 0 and (not rows or rows[-1]["pictures"] < done):
            rows.append({"pictures": done, "seconds": time.perf_counter() - start, "peak_memory_gb": peak_memory()})
            click.echo(f"{done:6d} pictures, {rows[-1]['seconds']:.0f} s, peak {rows[-1]['peak_memory_gb']:.2f} GB")

    problem.encoder.progress = told
    features = problem.source.features("train", np.arange(count))
    seconds, peak = time.perf_counter() - start, peak_memory()
    click.echo(f"all {len(features)} pictures in {seconds:.0f} s, peak {peak:.2f} GB")
    save(path, {"machine": machine(), "pictures": count, "seconds": seconds, "peak_memory_gb": peak, "rows": rows})


if __name__ == "__main__":
    main()
