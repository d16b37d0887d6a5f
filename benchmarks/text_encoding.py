"""Prefix-shared text encoding against open_clip's zero-shot classifier builder, in one run, turn by turn.

    python benchmarks/text_encoding.py --repeats 3 --sample 200 --json text_encoding.json

Ours encodes the 80 ImageNet templates with the 100 CIFAR-100 names; open_clip's builder gets all templates with as
many of the names as make up `--sample` texts, and both are compared in texts per second.  The limit is the time of
the trie's own arithmetic at the speed of a plain matrix product, measured before and after each turn.  Weights are
random: they take as long as trained ones.  Nothing is downloaded.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

NAMES = (
    "apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, "
    "camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, "
    "cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn "
    "mower, leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, "
    "orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, "
    "raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, "
    "streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip, "
    "turtle, wardrobe, whale, willow tree, wolf, woman, worm"
)
CIFAR100 = NAMES.split(", ")


@click.command()
@click.option("--model", "name", default="RN50", show_default=True, help="An open_clip architecture.")
@click.option("--precision", default="fp32", show_default=True, help="As open_clip.create_model takes it.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Turns of ours and the peer's.")
@click.option("--sample", default=200, show_default=True, type=click.IntRange(1), help="Texts for the peer, at least.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--nodes", type=click.IntRange(1), help="Trie nodes per chunk; the encoder's own choice by default.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    name: str,
    precision: str,
    device: str,
    repeats: int,
    sample: int,
    threads: int,
    nodes: int | None,
    path: Path | None,
) -> None:
    """Texts per second of prefix-shared encoding and of open_clip's build_zero_shot_classifier."""
    import open_clip
    import torch
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES as TEMPLATES

    from promptsearch.evaluators.text import TextEncoder

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None, precision=precision, device=device).eval()
    tokenizer = open_clip.get_tokenizer(name)
    encoder = TextEncoder(model, tokenizer, nodes=nodes)
    if not encoder.shared:
        raise click.UsageError(f"{name}: prefixes cannot be shared, {encoder.why_plain}")
    texts = [template(c) for template in TEMPLATES for c in CIFAR100]
    some = CIFAR100[: -(-sample // len(TEMPLATES))]  # the peer's class names
    trie = encoder.trie(texts)
    flops = arithmetic(model, len(trie), len(texts))

    encoder.encode(texts[:200])  # warm-up
    ours, peers, speeds = [], [], []
    memory = 0.0
    vectors = classifier = np.empty(0)
    for turn in range(repeats):
        before = product_speed(device, model)
        seconds, vectors = timed(lambda: encoder.encode(texts))
        ours.append(seconds)
        speeds.append((before + product_speed(device, model)) / 2)
        if turn == 0:
            memory = peak_memory()  # the peer has not run yet
        seconds, classifier = timed(
            lambda: open_clip.build_zero_shot_classifier(model, tokenizer, some, TEMPLATES, device=device).cpu()
        )
        peers.append(seconds)
        click.echo(
            f"turn {turn + 1}: ours {ours[-1]:.2f} s for {len(texts)} texts, "
            f"open_clip {peers[-1]:.2f} s for {len(some) * len(TEMPLATES)}, "
            f"matrix product {speeds[-1] / 1e9:.0f} GFLOP/s",
            err=True,
        )

    our_rate = len(texts) / statistics.median(ours)
    peer_rate = len(some) * len(TEMPLATES) / statistics.median(peers)
    to_limit = [seconds / (flops / speed) for seconds, speed in zip(ours, speeds, strict=True)]
    result = {
        "model": name,
        "precision": precision,
        "device": device,
        "threads": threads,
        "machine": machine(device),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "texts": len(texts),
        "peer_texts": len(some) * len(TEMPLATES),
        "trie_nodes": len(trie),
        "trie_nodes_one_template_at_a_time": sum(
            len(encoder.trie(texts[i : i + len(CIFAR100)])) for i in range(0, len(texts), len(CIFAR100))
        ),
        "padded_tokens": len(texts) * int(tokenizer([""]).shape[1]),
        "ours_s": ours,
        "peer_s": peers,
        "ours_texts_per_s": our_rate,
        "peer_texts_per_s": peer_rate,
        "ratio": our_rate / peer_rate,
        "matrix_product_gflops": [speed / 1e9 for speed in speeds],
        "trie_arithmetic_gflop": flops / 1e9,
        "times_the_arithmetic": statistics.median(to_limit),
        "peak_memory_gb": memory,
        "peak_memory_with_peer_gb": peak_memory(),
        "largest_difference": largest_difference(model, tokenizer, texts, vectors, sample, device),
        "largest_classifier_difference": classifier_difference(classifier, vectors, len(some)),
    }
    show(result)
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


def timed(work: Any) -> tuple[float, np.ndarray]:
    """Seconds, and the result as an array: on the host, so nothing is still under way."""
    start = time.perf_counter()
    result = np.asarray(work())
    return time.perf_counter() - start, result


def product_speed(device: str, model: Any, size: int = 2048, repeats: int = 9) -> float:
    """FLOP/s of a square matrix product in the tower's precision: the median of some."""
    import torch

    dtype = (model.transformer if hasattr(model, "transformer") else model.text.transformer).get_cast_dtype()
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        out[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])  # the first warms up


def arithmetic(model: Any, nodes: int, texts: int) -> float:
    """FLOPs of the projections and MLPs of every layer for every node, and of the final projection."""
    tower = model if hasattr(model, "transformer") else model.text
    blocks = tower.transformer.resblocks
    width, hidden = tower.transformer.width, blocks[0].mlp.c_fc.out_features
    layer = 4 * width**2 + 2 * width * hidden  # 12 width² where the MLP is 4 times as wide
    return 2.0 * (nodes * layer * len(blocks) + texts * width * embedding_size(tower))


def embedding_size(tower: Any) -> int:
    """The size of a text's vector, 0 where nothing is projected."""
    projection = tower.text_projection
    return 0 if projection is None else getattr(projection, "out_features", None) or projection.shape[1]


def largest_difference(
    model: Any, tokenizer: Any, texts: list[str], vectors: np.ndarray, sample: int, device: str
) -> float:
    """Between our unit vectors and those of the model's own encode_text, on texts drawn at random."""
    import torch

    drawn = np.random.default_rng(0).choice(len(texts), min(sample, len(texts)), replace=False)
    largest = 0.0
    with torch.inference_mode():
        for rows in np.array_split(drawn, -(-len(drawn) // 50)):
            features = model.encode_text(tokenizer([texts[i] for i in rows]).to(device)).float()
            own = torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
            largest = max(largest, float(np.abs(own - vectors[rows]).max()))
    return largest


def classifier_difference(classifier: np.ndarray, vectors: np.ndarray, classes: int) -> float:
    """Between open_clip's class weights (D, C) and the normalised means of our vectors."""
    means = vectors.reshape(-1, len(CIFAR100), vectors.shape[1])[:, :classes].mean(axis=0)
    return float(np.abs(means / np.linalg.norm(means, axis=1, keepdims=True) - classifier.T).max())


def peak_memory() -> float:
    """Of this process so far, in GB; Linux counts kilobytes, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    models = [line for line in _cpuinfo() if line.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []


def show(result: dict[str, Any]) -> None:
    saved = 1 - result["trie_nodes"] / result["trie_nodes_one_template_at_a_time"]
    rows = [
        ("machine", f"{result['machine']}, {result['threads']} threads, torch {result['torch']}"),
        ("texts, trie nodes, padded tokens", f"{result['texts']}, {result['trie_nodes']}, {result['padded_tokens']}"),
        ("ours, median", f"{statistics.median(result['ours_s']):.2f} s, {result['ours_texts_per_s']:.0f} texts/s"),
        ("open_clip, median", f"{statistics.median(result['peer_s']):.2f} s, {result['peer_texts_per_s']:.1f} texts/s"),
        ("ratio", f"{result['ratio']:.1f}"),
        ("matrix product, median", f"{statistics.median(result['matrix_product_gflops']):.0f} GFLOP/s"),
        ("times the trie's own arithmetic", f"{result['times_the_arithmetic']:.2f}"),
        ("peak memory, ours", f"{result['peak_memory_gb']:.2f} GB"),
        ("largest difference of unit vectors", f"{result['largest_difference']:.1e}"),
        ("largest difference of class weights", f"{result['largest_classifier_difference']:.1e}"),
        ("nodes saved by prefixes kept across calls", f"{saved:.1%} at one template a call"),
    ]
    for label, value in rows:
        click.echo(f"{label:<42} {value}")


if __name__ == "__main__":
    main()
