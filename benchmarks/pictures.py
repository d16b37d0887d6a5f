"""Picture encoding against open_clip's plain encode_image, in one run, turn by turn.

    python benchmarks/pictures.py --repeats 3 --pictures 64 --json pictures.json

Both start from the same PIL pictures: open_clip's preprocessing and `encode_image` in batches as its documentation does
it, and `Encoder.encode_pictures` in float32 and in bfloat16.  Weights are random: they take as long as trained ones.
Decoding and preprocessing are also timed alone: the model, not they, should be the bottleneck.
"""

from __future__ import annotations

import functools
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.evaluators import Cache, Encoder, resolve_model


def encode(encoder: Encoder, decoded: Callable[[], Iterator[Any]]) -> np.ndarray:
    return encoder.encode_pictures(decoded())


@click.command()
@click.option("--model", "name", default="RN50", show_default=True, help="An open_clip architecture.")
@click.option("--pictures", "count", default=64, show_default=True, type=click.IntRange(1))
@click.option("--side", default=32, show_default=True, help="Of the JPEG pictures, in pixels (CIFAR's: 32).")
@click.option("--peer-batch", default=64, show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    name: str, count: int, side: int, peer_batch: int, repeats: int, threads: int, device: str, path: Path | None
) -> None:
    """Pictures per second, ours and open_clip's, and how far the vectors are apart."""
    import torch
    from PIL import Image

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())

    def decoded() -> Any:
        return (Image.open(io.BytesIO(b)).convert("RGB") for b in jpegs)

    cache = Cache(Path(tempfile.mkdtemp()))
    encoders = {
        p: Encoder(resolve_model(f"{name}:random", cache, device=device, precision=p), cache) for p in ("fp32", "bf16")
    }
    peer = Encoder(resolve_model(f"{name}:random", cache, device=device), cache)
    model = peer.model.to(memory_format=torch.contiguous_format)  # as open_clip makes it
    preprocess = peer.preprocess

    @torch.no_grad()
    def plain() -> np.ndarray:
        rows = []
        pictures = list(decoded())
        for at in range(0, count, peer_batch):
            x = torch.stack([preprocess(p) for p in pictures[at : at + peer_batch]]).to(device)
            rows.append(torch.nn.functional.normalize(model.encode_image(x), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    work: dict[str, Callable[[], np.ndarray]] = {"open_clip": plain}
    for precision, encoder in encoders.items():
        work[precision] = functools.partial(encode, encoder, decoded)
    seconds: dict[str, list[float]] = {k: [] for k in (*work, "decode and preprocess")}
    vectors = {k: f() for k, f in work.items()}  # also the warm-up
    for turn in range(repeats):
        for key, f in work.items():
            start = time.perf_counter()
            f()
            seconds[key].append(time.perf_counter() - start)
        start = time.perf_counter()
        for p in decoded():
            preprocess(p)
        seconds["decode and preprocess"].append(time.perf_counter() - start)
        click.echo(f"turn {turn + 1}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seconds.items()), err=True)
    rate = {k: count / statistics.median(v) for k, v in seconds.items()}
    result = {
        "model": name,
        "device": device,
        "threads": threads,
        "torch": torch.__version__,
        "pictures": count,
        "seconds": seconds,
        "pictures_per_s": rate,
        "ratio_fp32": rate["fp32"] / rate["open_clip"],
        "ratio_bf16": rate["bf16"] / rate["open_clip"],
        "largest_difference_fp32": float(np.abs(vectors["fp32"] - vectors["open_clip"]).max()),
        "smallest_cosine_bf16": float((vectors["bf16"] * vectors["open_clip"]).sum(1).min()),
        "preparation_is_faster_than_the_model_by": rate["decode and preprocess"] / rate["fp32"],
    }
    for key, value in result.items():
        if isinstance(value, (int, float, str)):
            click.echo(f"{key:42s} {value:.3g}" if isinstance(value, float) else f"{key:42s} {value}")
    for key, value in rate.items():
        click.echo(f"{key + ', median':42s} {value:.1f} pictures/s")
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
