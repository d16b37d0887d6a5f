"""What ImageNet's size costs: small cases measured here, in core-seconds, and what they come to at the whole size.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --json scale.json

Each rate is measured at one size and has to foretell a larger one, which is measured too: `foretold / measured` says
how far the straight line holds.  Core-seconds are processor time, so that other work on the machine counts little.
Weights and vectors are random: they take as long as real ones.  No GPU is used and no figure stands for one.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.evaluators import Cache, Encoder, resolve_model
from promptsearch.evaluators.cache import HELD, TextCache
from promptsearch.evaluators.scoring.template_table import TemplateTable

GB, DIM, PARENTS = 1e9, 1024, 8


def core_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def jpegs(n: int) -> list[bytes]:
    """Pictures of ImageNet's usual size (500 x 375)."""
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(n):
        buffer = io.BytesIO()
        small = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def measure_pictures(encoder: Encoder, small: int, large: int) -> dict[str, float]:
    from promptsearch.evaluators.data.encoded_picture import StoredPicture

    stored = [StoredPicture(b, None, f"picture {i}") for i, b in enumerate(jpegs(large))]
    encoder.encode_pictures(stored[:8])  # loads and warms up
    prepare = core_seconds(lambda: [encoder.preprocess(p.open()) for p in stored]) / large
    rate = core_seconds(lambda: encoder.encode_pictures(stored[:small])) / small
    measured = core_seconds(lambda: encoder.encode_pictures(stored))
    return {"s each": measured / large, "of that decoding": prepare, "foretold / measured": rate * large / measured}


def measure_texts(encoder: Encoder, small: int, large: int) -> dict[str, float]:
    """Runs of the sorted texts of ImageNet's names in OpenAI's 80 templates, as a part of a large bank is."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    texts = sorted(t(name) for t in OPENAI_IMAGENET_TEMPLATES for name in IMAGENET_CLASSNAMES)
    tower = encoder.text_encoder
    tower.encode(texts[:50])
    at = len(texts) // 2
    rate = core_seconds(lambda: tower.encode(texts[at : at + small])) / small
    measured = core_seconds(lambda: tower.encode(texts[at + small : at + small + large]))
    return {"s each": measured / large, "foretold / measured": rate * large / measured}


def measure_scoring(small: tuple[int, int, int], large: tuple[int, int, int]) -> dict[str, float]:
    """A round of beam search with kept logits, and without: products again, then the same work."""
    rng = np.random.default_rng(0)

    def table(size: tuple[int, int, int], memory: int | None) -> TemplateTable:
        templates, classes, pictures = size
        made = TemplateTable(unit(rng, pictures, DIM), np.arange(pictures) % classes, 100.0, memory)
        made.add(unit(rng, templates, classes, DIM))
        return made

    def cells(size: tuple[int, int, int]) -> int:
        return size[0] * size[1] * size[2]

    def round_of(table: TemplateTable) -> None:
        every = np.arange(table.size)
        table.score(np.column_stack([np.repeat(np.arange(PARENTS), table.size), np.tile(every, PARENTS)]))

    v, x = unit(rng, small[1], DIM), unit(rng, small[2], DIM)
    v @ x.T
    product = core_seconds(lambda: [v @ x.T for _ in range(small[0])]) / (cells(small) * DIM)
    kept = table(small, None)
    round_of(kept)
    growing = core_seconds(lambda: round_of(kept)) / (cells(small) * PARENTS)
    sparse = table(large, 64 << 20)
    if sparse.kept:
        raise click.ClickException("the large scoring case fits 64 MB; make it larger")
    measured = core_seconds(lambda: round_of(sparse))
    foretold = cells(large) * (DIM * product + PARENTS * growing)
    return {
        "s per multiply-add": product,
        "s per score cell": growing,
        "measured round": measured,
        "foretold / measured": foretold / measured,
    }


def measure_cache(small: int, large: int) -> dict[str, float]:
    """Writing text vectors to the cache and holding them, as a search with that many texts does."""
    import tracemalloc

    def fill(n: int) -> None:
        cache = TextCache(Cache(Path(tempfile.mkdtemp())), {"model": "scale"})
        row = np.zeros((2000, DIM), np.float32)
        for at in range(0, n, 2000):
            cache.lookup([f"text {i}" for i in range(at, at + 2000)], lambda _: row.copy())
        kept.append(cache)

    kept: list[TextCache] = []
    rate = core_seconds(lambda: fill(small)) / small
    measured = core_seconds(lambda: fill(large))
    kept.clear()
    tracemalloc.start()
    fill(small)
    held = tracemalloc.get_traced_memory()[0] / small
    tracemalloc.stop()
    return {
        "s each": measured / large,
        "bytes held each": held,
        "foretold / measured": rate * large / measured,
    }


def measure(name: str, quick: bool) -> dict[str, dict[str, float]]:
    import torch

    torch.set_num_threads(1)
    cache = Cache(Path(tempfile.mkdtemp()))
    encoder = Encoder(resolve_model(f"{name}:random", cache, device="cpu"), cache)
    less = 8 if quick else 1
    return {
        "pictures": measure_pictures(encoder, 32 // less, 96 // less),
        "texts": measure_texts(encoder, 500 // less, 2000 // less),
        "scoring": measure_scoring((32, 50, 500), (48, 100, 4000)),
        "text cache": measure_cache(4000, 40_000 // less),
    }


@click.command()
@click.option("--model", "name", default="RN50", show_default=True, help="An open_clip architecture of width 1024.")
@click.option("--classes", default=1000, show_default=True)
@click.option("--pictures", default=50_000, show_default=True)
@click.option("--templates", default=20_000, show_default=True)
@click.option("--workers", default=8, show_default=True, help="GPUs, or what else encodes.")
@click.option("--quick", is_flag=True, help="The smallest cases, to see that it runs.")
@click.option("--measured", "rates", type=click.Path(exists=True, path_type=Path), help="Rates that --json wrote.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    name: str,
    classes: int,
    pictures: int,
    templates: int,
    workers: int,
    quick: bool,
    rates: Path | None,
    path: Path | None,
) -> None:
    """Measured small cases, then the whole size by arithmetic."""
    measured = json.loads(rates.read_text())["measured"] if rates else measure(name, quick)
    for what, figures in measured.items():
        click.echo(f"measured, {what}: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    texts, cells = classes * templates, classes * pictures
    rounds = cells * templates * (DIM * measured["scoring"]["s per multiply-add"])
    rounds += cells * templates * PARENTS * measured["scoring"]["s per score cell"]
    vector = 4 * DIM
    held = (measured["text cache"]["bytes held each"] - vector) * texts + min(HELD, vector * texts)
    whole = {
        "picture features, GB": 4 * DIM * pictures / GB,
        "text vectors, GB": 4 * DIM * texts / GB,
        "text vectors and what finds them, as a search holds them, GB": held / GB,
        "kept logits, GB": 4 * cells * templates / GB,
        "Gram matrices, GB": 4 * templates**2 * classes / GB,
        "logits of one template, GB": 4 * cells / GB,
        "encoding pictures, core-hours": measured["pictures"]["s each"] * pictures / 3600,
        "encoding texts, core-hours": measured["texts"]["s each"] * texts / 3600,
        "text cache, core-hours": measured["text cache"]["s each"] * texts / 3600,
        "one beam round of 8 parents, core-hours": rounds / 3600,
        "multiply-adds of a round's products": float(cells) * templates * DIM,
        f"texts for each of {workers} workers": texts / workers,
        f"pictures for each of {workers} workers": pictures / workers,
    }
    click.echo(f"extrapolated to {classes} classes x {pictures} pictures x {templates} templates:")
    for key, value in whole.items():
        click.echo(f"  {key:60s} {value:14,.2f}" if value < 1e9 else f"  {key:60s} {value:14.2e}")
    if path:
        path.write_text(json.dumps({"measured": measured, "extrapolated": whole}, indent=1) + "\n")


if __name__ == "__main__":
    main()
