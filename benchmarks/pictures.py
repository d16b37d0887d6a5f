"""Picture encoding against open_clip's plain encode_image, in one run, turn by turn.

    python benchmarks/pictures.py --turns 5 --pictures 32 --json pictures.json

Both start from the same PIL pictures: open_clip's preprocessing and `encode_image` in batches as its documentation does
it, and `Encoder.encode_pictures` in float32 and in bfloat16.  "parquet to cache" starts from JPEG bytes in a parquet
file and ends with features in the cache; decoding and preprocessing are also timed alone: the model, not they, should
be the bottleneck.  Weights are random: they take as long as trained ones.
"""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import Clock, machine, peak_memory, product_speed, save  # type: ignore[import-not-found]

from promptsearch.evaluators import Cache, Encoder, open_problem, resolve_model


def made_jpegs(count: int, side: int) -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    return jpegs


def parquet_of(jpegs: list[bytes], folder: Path) -> Path:
    """A data set in the hub's form: the pictures as JPEG bytes, and ten labels."""
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"img": Image(), "label": ClassLabel(names=[f"class {i}" for i in range(10)])})
    folder.mkdir()
    for split, n in (("train", len(jpegs)), ("test", 10)):
        rows = {"img": [{"bytes": b, "path": None} for b in jpegs[:n]], "label": [i % 10 for i in range(n)]}
        Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@click.command()
@click.option("--model", "name", default="RN50", show_default=True, help="An open_clip architecture.")
@click.option("--pictures", "count", default=32, show_default=True, type=click.IntRange(10))
@click.option("--side", default=32, show_default=True, help="Of the JPEG pictures, in pixels (CIFAR's: 32).")
@click.option("--peer-batch", default=32, show_default=True)
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    name: str, count: int, side: int, peer_batch: int, turns: int, threads: int, device: str, path: Path | None
) -> None:
    """Pictures per second, ours and open_clip's, and how far the vectors are apart."""
    import torch
    from PIL import Image

    torch.set_num_threads(threads)
    jpegs = made_jpegs(count, side)

    def decoded() -> Any:
        return (Image.open(io.BytesIO(b)).convert("RGB") for b in jpegs)

    home = Path(tempfile.mkdtemp())
    cache = Cache(home / "cache")
    model_name = f"{name}:random"
    encoders = {
        p: Encoder(resolve_model(model_name, cache, device=device, precision=p), cache) for p in ("fp32", "bf16")
    }
    peer = Encoder(resolve_model(model_name, cache, device=device), cache)
    model = peer.model.to(memory_format=torch.contiguous_format)  # open_clip's own, as it makes it
    preprocess = peer.preprocess
    folder = parquet_of(jpegs, home / "data")
    caches = iter(range(turns + 1))

    @torch.no_grad()
    def plain() -> np.ndarray:
        rows = []
        pictures = list(decoded())
        for at in range(0, count, peer_batch):
            x = torch.stack([preprocess(p) for p in pictures[at : at + peer_batch]]).to(device)
            rows.append(torch.nn.functional.normalize(model.encode_image(x), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def from_parquet() -> np.ndarray:
        own = Cache(home / f"cache{next(caches)}")  # nothing known
        problem = open_problem(model_name, str(folder), device=device, cache=own)
        problem.source._encoder = encoders["fp32"]  # type: ignore[union-attr]  # loaded before: its loading is not timed
        return problem.source.features("train", np.arange(count))

    def prepared() -> None:
        for p in decoded():
            preprocess(p)

    work: dict[str, Callable[[], Any]] = {
        "open_clip": plain,
        "fp32": lambda: encoders["fp32"].encode_pictures(decoded()),
        "bf16": lambda: encoders["bf16"].encode_pictures(decoded()),
        "parquet to cache": from_parquet,
        "decode and preprocess": prepared,
    }
    vectors = {k: f() for k, f in work.items()}  # also the warm-up
    clock = Clock(threads)
    speeds = []
    for turn in range(turns):
        speeds.append(product_speed(device=device))
        for key, f in work.items():
            clock.time(key, f)
        shown = (f"{k} {v[-1]:.2f} s ({clock.share[k][-1]:.0%} of the cores)" for k, v in clock.seconds.items())
        click.echo(f"turn {turn + 1}: " + ", ".join(shown) + f", {speeds[-1] / 1e9:.0f} GFLOP/s", err=True)

    def ratio(key: str, over: str = "open_clip") -> float:
        return statistics.median(b / a for a, b in zip(clock.seconds[key], clock.seconds[over], strict=True))

    rate = {k: count / clock.median(k) for k in clock.seconds}
    result = {
        "model": name,
        "machine": machine(device),
        "device": device,
        "threads": threads,
        "torch": torch.__version__,
        "pictures": count,
        "side": side,
        "seconds": clock.seconds,
        "share_of_cores": clock.share,
        "pictures_per_s": rate,
        "ratio_fp32": ratio("fp32"),
        "ratio_bf16": ratio("bf16"),
        "largest_difference_fp32": float(np.abs(vectors["fp32"] - vectors["open_clip"]).max()),
        "smallest_cosine_bf16": float((vectors["bf16"] * vectors["open_clip"]).sum(1).min()),
        "largest_difference_from_parquet": float(np.abs(vectors["parquet to cache"] - vectors["fp32"]).max()),
        "parquet_to_cache_over_fp32": ratio("fp32", "parquet to cache"),
        "preparation_is_faster_than_the_model_by": ratio("decode and preprocess", "fp32"),
        "matrix_product_gflops": statistics.median(speeds) / 1e9,
        "matrix_product_gflops_bf16": product_speed(torch.bfloat16, device) / 1e9,
        "peak_memory_gb": peak_memory(),
    }
    for key, value in result.items():
        if isinstance(value, (int, float, str)):
            click.echo(f"{key:42s} {value:.6g}" if isinstance(value, float) else f"{key:42s} {value}")
    for key, value in rate.items():
        click.echo(f"{key + ', median':42s} {value:.1f} pictures/s")
    save(path, result)


if __name__ == "__main__":
    main()
