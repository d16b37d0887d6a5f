"""Computes the cells of a comparison on the workers of a Ray cluster; claims and results stay in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptsearch.banks import BASELINE, Bank
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Cache, Encoder, Problem, default_cache, open_pictures, resolve_model
from promptsearch.evaluators.encoding.ray_cluster import cluster_at, one_process_threads
from promptsearch.evaluators.encoding.ray_encoder import asked
from promptsearch.runs.compare.cells import Cell, Cells
from promptsearch.runs.compare.comparison import Comparison, Computed, Spread
from promptsearch.runs.compare.methods import Method


class CellWorker:
    """A Ray worker that opens the model and the data sets and computes cells.

        worker = CellWorker(told)
        figures, arrays = worker.cell(cell)

    Args:
        told: What to open, as `spread_over` collects it.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._comparison: Comparison | None = None

    def ready(self) -> None:
        """Open the data sets; the model is loaded by the first cell that needs more than the cache."""
        self._opened()

    def cell(self, cell: Cell) -> Computed:
        """Compute a cell and return its figures and arrays, like `Comparison.work`."""
        comparison = self._opened()
        computed = comparison.work(cell, comparison.methods[cell.method])
        comparison.cells.checkpoint(cell).unlink(missing_ok=True)
        return computed

    def _opened(self) -> Comparison:
        if self._comparison is None:
            told = self._told
            os.environ["OMP_NUM_THREADS"] = str(told["threads"])  # read by torch when a cell imports it
            root: Path = told["cache"]
            default = default_cache()
            cache = Cache(root, default.packs) if root.is_dir() else default
            name, weights = told["model"]
            how = {"device": told["device"], "precision": told["precision"]}
            encoder = Encoder(resolve_model(name, cache, weights=weights, **how), cache, batch=told["batch"])
            problems = {}
            for dataset, fingerprint in told["data"].items():
                source = open_pictures(encoder, told["paths"].get(dataset, dataset), cache, **told["reading"])
                if (encoder.spec.fingerprint, source.fingerprint) != (told["fingerprint"], fingerprint):
                    raise PromptSearchError(
                        f"--model {name} or --dataset {dataset} differs on a worker's machine; "
                        "give all machines the same weights and pictures"
                    )
                problems[dataset] = Problem(encoder, source, cache, [], told["memory"], allow_fewer=told["fewer"])
            cells = Cells(None, told["folder"])  # workers have no record: the process of the command stores the results
            self._comparison = Comparison(cells, problems, told["methods"], told["shots"], 1)
        return self._comparison


def spread_over(comparison: Comparison, address: str, bank: Bank, reading: dict[str, Any]) -> Spread:
    """Return a function for `Comparison.compute` that computes cells on a Ray cluster.

    The pictures of all draws and the bank's texts are encoded first, so that all workers use the same vectors.

    Args:
        comparison: The comparison.
        address: Address of the cluster.
        bank: The bank that the methods search.
        reading: The arguments with which the data sets were opened, for `open_pictures` on the workers.
    """
    if (pictures := reading.get("pictures")) is not None and os.path.isdir(pictures):
        reading = {**reading, "pictures": os.path.abspath(pictures)}
    first = next(iter(comparison.problems.values()))
    for problem in comparison.problems.values():
        for cell, _ in comparison.grid():
            if comparison.problems[cell.dataset] is problem:
                problem.task(cell.shots, cell.seed)
        names = problem.source.class_names
        problem.encoder.encode_texts([t.fill(n) for t in (BASELINE, *bank) for n in names])
    encoder = first.encoder
    spec = encoder.spec
    threads = one_process_threads()
    told: dict[str, Any] = {
        "model": asked(spec),
        "fingerprint": spec.fingerprint,
        "device": spec.device,
        "precision": spec.precision,
        "batch": encoder.batch,
        "memory": first.memory,
        "fewer": first.allow_fewer,
        "data": {name: p.source.fingerprint for name, p in comparison.problems.items()},
        "paths": {name: os.path.abspath(name) for name in comparison.problems if os.path.exists(name)},
        "reading": reading,
        "methods": dict(comparison.methods),
        "shots": list(comparison.shots),
        "folder": comparison.cells.folder.absolute(),
        "cache": first.cache.root.absolute(),
        "threads": threads,
    }

    def run(jobs: Iterator[tuple[Cell, Method]]) -> Iterator[tuple[Cell, Computed]]:
        crew = cluster_at(address).crew(CellWorker, spec.device, threads, told)
        return crew.run((cell, "cell", (cell,)) for cell, _ in jobs)

    return run
