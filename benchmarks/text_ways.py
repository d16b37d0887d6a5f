"""The trie of prefixes against open_clip's plain way on small text towers, in turns: is plain faster anywhere?

    python benchmarks/text_ways.py --threads 1

Texts are the bank's templates with CIFAR-100's names, which share many prefixes, and words in random order, which share
few.  Rates are texts per second of CPU time and of the clock; other programs on the machine disturb the latter.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

import click
from text_encoding import CIFAR100  # type: ignore[import-not-found]

TURNS, TEXTS, BATCHES = 5, 1500, (64, 256)


def texts_of(kind: str) -> list[list[str]]:
    """The texts of each turn."""
    from promptsearch.banks import load_bank

    rng = random.Random(0)
    if kind == "bank":
        templates = rng.sample(list(load_bank("templates")), TURNS * TEXTS // 100)
        every = [t.fill(name) for t in templates for name in CIFAR100]
        return [every[i * TEXTS : (i + 1) * TEXTS] for i in range(TURNS)]
    page = Path(__file__).parents[1] / "docs" / "method.md"
    words = [word for word in page.read_text(encoding="utf-8").split() if word.isalpha()]
    return [[" ".join(rng.sample(words, 8)) for _ in range(TEXTS)] for _ in range(TURNS)]


def tower(name: str) -> tuple[Any, Any]:
    """The embedded model, or one of random weights, 2 layers of this width and 77 tokens."""
    import open_clip

    from promptsearch.evaluators import open_problem

    if name == "zeroshot":
        encoder = open_problem("zeroshot", "cifar100").encoder
        return encoder.model, encoder.tokenizer
    width = int(name)
    vision = {"layers": 1, "width": 64, "patch_size": 8, "image_size": 32, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": max(1, width // 32), "layers": 2}
    return open_clip.CLIP(width, vision, text).eval(), open_clip.get_tokenizer("RN50")


@click.command()
@click.option("--towers", default="zeroshot,64", show_default=True, help="The embedded model, and widths.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def main(towers: str, threads: int) -> None:
    """Texts per second by the trie and plainly."""
    import torch

    from promptsearch.evaluators.encoding.text_encoder import TextEncoder

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for name in towers.split(","):
        encoder = TextEncoder(*tower(name))

        def plain(texts: list[str], batch: int, encoder: TextEncoder = encoder) -> None:
            ordered = sorted(texts, key=str.lower)
            with torch.inference_mode():
                for at in range(0, len(texts), batch):
                    encoder.model.encode_text(torch.as_tensor(encoder.tokenizer(ordered[at : at + batch])))

        for kind in ("bank", "random"):
            parts = texts_of(kind)
            for part in parts:
                encoder.tokenizer(part)  # the tokens of known words are remembered: neither way pays for them
            plain(parts[0][:64], 64)
            encoder.encode(parts[0][:64])
            ways: dict[str, Any] = {
                "trie": encoder.encode,
                **{f"plain {b}": lambda t, b=b: plain(t, b) for b in BATCHES},
            }
            rates: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for part in parts:
                for way, run in ways.items():
                    begun, used = time.perf_counter(), time.process_time()
                    run(part)
                    rates[way].append((time.process_time() - used, time.perf_counter() - begun))
            nodes = len(encoder.trie(parts[0])) / TEXTS
            for way, seconds in rates.items():
                cpu, clock = (TEXTS / statistics.median(column) for column in zip(*seconds, strict=True))
                click.echo(
                    f"{name:9} {threads} threads, {kind:6} ({nodes:.1f} nodes a text)  {way:10}"
                    f" {cpu:7.0f} texts a second of CPU, {clock:7.0f} of the clock"
                )


if __name__ == "__main__":
    main()
