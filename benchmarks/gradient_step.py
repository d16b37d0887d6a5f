"""One CoOp step as this package computes it against the published way, in one run, turn by turn.

    python benchmarks/gradient_step.py --repeats 3 --json gradient_step.json

Both learn 16 unified vectors before the ten CIFAR-10 names at batch 32.  Ours encodes only what is read, the shared
beginning once, and takes picture features from the cache; the published way encodes all ten prompts at the full
context length and the batch of pictures anew.  Both gradients are compared.  Weights are random: they take as long as
trained ones.  Nothing is downloaded.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@click.command()
@click.option("--model", "name", default="RN50", show_default=True, help="An open_clip architecture.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(name: str, repeats: int, batch: int, threads: int, path: Path | None) -> None:
    """Seconds per step, ours and the published way's, with and without its encoding of pictures."""
    import open_clip
    import torch
    import torch.nn.functional as F

    from promptsearch.search.gradient import TextTower, context_layout

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(name)
    size = model.visual.image_size
    pixels = torch.randn(batch, 3, *((size, size) if isinstance(size, int) else size))
    labels = torch.arange(batch) % len(NAMES)
    with torch.no_grad():
        features = model.encode_image(pixels, normalize=True)
    tower = TextTower(model, tokenizer)
    layout = context_layout(tower, NAMES, 16)
    context = (0.02 * torch.randn(16, tower.width)).requires_grad_(True)
    text = getattr(model, "text", model)
    ids = tokenizer(["X " * 16 + n + "." for n in NAMES])

    def ours() -> torch.Tensor:
        loss = F.cross_entropy(100 * features @ tower.encode(layout, context).T, labels)
        return torch.autograd.grad(loss, context)[0]

    def published(with_pictures: bool) -> torch.Tensor:
        def put_in(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
            return torch.cat([out[:, :1], context.expand(len(NAMES), -1, -1), out[:, 17:]], dim=1)

        x = features
        if with_pictures:
            with torch.no_grad():
                x = model.encode_image(pixels, normalize=True)
        handle = text.token_embedding.register_forward_hook(put_in)
        try:
            weights = model.encode_text(ids, normalize=True)
        finally:
            handle.remove()
        return torch.autograd.grad(F.cross_entropy(100 * x @ weights.T, labels), context)[0]

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "ours": ours,
        "published": lambda: published(True),
        "published, cached pictures": lambda: published(False),
    }
    difference = float((ours() - published(False)).abs().max() / published(False).abs().max())  # and a warm-up
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats):
        for way, step in ways.items():
            start = time.perf_counter()
            step()
            seconds[way].append(time.perf_counter() - start)
        click.echo(f"turn {turn + 1}: " + ", ".join(f"{w} {s[-1]:.3f} s" for w, s in seconds.items()), err=True)
    median = {way: statistics.median(s) for way, s in seconds.items()}
    result = {
        "model": name,
        "threads": threads,
        "batch": batch,
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "positions_ours": layout.shared + len(layout.kept),
        "positions_published": int(np.prod(ids.shape)),
        "seconds": seconds,
        "ratio": median["published"] / median["ours"],
        "ratio_text_only": median["published, cached pictures"] / median["ours"],
        "relative_gradient_difference": difference,
    }
    for way, s in median.items():
        click.echo(f"{way:<28} {s:.4f} s a step")
    click.echo(f"{'ratio':<28} {result['ratio']:.1f} (text alone {result['ratio_text_only']:.1f})")
    click.echo(f"{'gradient difference':<28} {difference:.1e} of the largest")
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
