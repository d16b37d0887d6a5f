"""Decoding and resizing: Pillow's and torch's resizing, one thread and processes, and what it does to vectors.

    python benchmarks/decoding.py --dataset pacs/photo --model zeroshot --json decoding.json

Rates are of photographs of 500 x 375 made here; vectors are of a data set's own pictures, with a model's real weights,
on the CPU: once from open_clip's preprocessing, once with torch's resizing as a GPU's pictures get it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from gpu import PHOTO, made_jpegs  # type: ignore[import-not-found]
from measure import machine, save  # type: ignore[import-not-found]


def ratio_of(turns: int, ours: Callable[[], Any], theirs: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Median over turns of theirs over ours, one after the other in each turn."""
    found = []
    for _ in range(turns):
        times = []
        for work in (ours, theirs):
            start = clock()
            work()
            times.append(clock() - start)
        found.append(times[1] / times[0])
    return statistics.median(found)


@click.command()
@click.option("--dataset", multiple=True, help="Whose training pictures are encoded.")
@click.option("--model", "models", multiple=True, default=["zeroshot"], show_default=True)
@click.option("--pictures", "count", default=500, show_default=True, type=click.IntRange(1))
@click.option("--photos", default=2000, show_default=True, type=click.IntRange(200))
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    dataset: tuple[str, ...], models: tuple[str, ...], count: int, photos: int, turns: int, path: Path | None
) -> None:
    """How fast pictures are prepared, and how close their vectors are to open_clip's."""
    import open_clip
    import torch

    from promptsearch.evaluators import Encoder, resolve_model
    from promptsearch.evaluators.cache import default_cache
    from promptsearch.evaluators.data.datasets import open_dataset
    from promptsearch.evaluators.data.encoded_picture import StoredPicture
    from promptsearch.evaluators.encoding.device import available_cores
    from promptsearch.evaluators.encoding.picture_loader import CHUNK, Preprocessing, by_processes

    torch.set_num_threads(1)
    transform = open_clip.image_transform(224, is_train=False)
    exact, quick = Preprocessing(transform), Preprocessing(transform, quick=True)
    made = [StoredPicture(b, None, f"picture {i}") for i, b in enumerate(made_jpegs(photos, PHOTO, 64))]
    result: dict[str, Any] = {"machine": machine("cpu"), "torch": torch.__version__, "cores": available_cores()}

    def prepare(halves: Preprocessing, pictures: list[StoredPicture]) -> None:
        for p in pictures:
            halves.pixels(p)

    few = made[:200]
    work = (lambda: prepare(quick, few)), (lambda: prepare(exact, few))
    result["torch_over_pillow_in_cpu_time"] = ratio_of(turns, *work, time.process_time)
    for name, halves in (("pillow", exact), ("torch", quick)):

        def in_processes(halves: Preprocessing = halves) -> None:
            for _ in by_processes([made], halves, CHUNK, available_cores(), False):
                pass

        def alone(halves: Preprocessing = halves) -> None:
            prepare(halves, made)

        result[f"processes_over_one_thread, {name}"] = ratio_of(turns, in_processes, alone, time.perf_counter)
    for spec, name in itertools.product(models, dataset):
        cache = default_cache()
        encoder = Encoder(resolve_model(spec, cache, device="cpu"), cache)
        stored = open_dataset(name).stored_list("train", list(range(count)), None)
        vectors = []
        for fast in (False, True):
            encoder.picture_encoder._halves = Preprocessing(encoder.preprocess, quick=fast)
            vectors.append(encoder.encode_pictures(stored))
        result[f"smallest_cosine, {spec}, {name}"] = float((vectors[0] * vectors[1]).sum(axis=1).min())
        centred = [v - vectors[0].mean(axis=0) for v in vectors]  # what tells pictures apart
        centred = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in centred]
        result[f"smallest_cosine_less_the_mean, {spec}, {name}"] = float((centred[0] * centred[1]).sum(axis=1).min())
    for key, value in result.items():
        click.echo(f"{key:60s} {value}")
    save(path, result)


if __name__ == "__main__":
    main()
