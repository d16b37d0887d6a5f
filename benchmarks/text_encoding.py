"""Prefix-shared text encoding against open_clip's zero-shot classifier builder, in one run, turn by turn.

    python benchmarks/text_encoding.py --turns 10 --json text_encoding.json

Ours encodes the 80 ImageNet templates with the 100 CIFAR-100 names, a fifth of the templates in each turn; open_clip's
builder gets all templates with one of the names in each turn, and both are compared in texts per second.  Short turns,
because a shared machine's speed changes within seconds.  The limit is the time of the trie's own arithmetic at the
speed of a plain matrix product, measured before and after each of our turns.  Weights are random: they take as long as
trained ones.  Nothing is downloaded.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import Clock, machine, peak_memory, product_speed, save  # type: ignore[import-not-found]

PARTS = 5  # of our texts: a turn encodes one

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
@click.option("--turns", default=10, show_default=True, type=click.IntRange(PARTS), help="Of ours and the peer's.")
@click.option(
    "--sample", default=200, show_default=True, type=click.IntRange(1), help="Texts whose vectors we compare."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--nodes", type=click.IntRange(1), help="Trie nodes per chunk; the encoder's own choice by default.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    name: str,
    precision: str,
    device: str,
    turns: int,
    sample: int,
    threads: int,
    nodes: int | None,
    path: Path | None,
) -> None:
    """Texts per second of prefix-shared encoding and of open_clip's build_zero_shot_classifier."""
    import open_clip
    import torch
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES as TEMPLATES

    from promptsearch.evaluators.encoding.text_encoder import TextEncoder

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None, precision=precision, device=device).eval()
    tokenizer = open_clip.get_tokenizer(name)
    encoder = TextEncoder(model, tokenizer, nodes=nodes)
    if not encoder.shared:
        raise click.UsageError(f"{name}: prefixes cannot be shared, {encoder.why_plain}")
    texts = [template(c) for template in TEMPLATES for c in CIFAR100]
    parts = [list(part) for part in np.array_split(np.array(texts, dtype=object), PARTS)]
    whole = encoder.trie(texts)
    nodes_of = [len(encoder.trie(part)) for part in parts]
    dtype = _tower(model).transformer.get_cast_dtype()

    encoder.encode(texts[:200])  # warm-up
    clock = Clock(threads)
    speeds, limits, ratios = [], [], []
    vectors: dict[int, np.ndarray] = {}
    classifiers: dict[int, np.ndarray] = {}
    memory = 0.0
    for turn in range(turns):
        i, c = turn % PARTS, turn % len(CIFAR100)
        before = product_speed(dtype, device)
        vectors[i] = clock.time("ours", lambda i=i: encoder.encode(parts[i]))
        speeds.append((before + product_speed(dtype, device)) / 2)
        if turn == PARTS - 1:
            memory = peak_memory()  # of ours, with one class of the peer's
        classifiers[c] = clock.time(
            "open_clip",
            lambda c=c: (
                open_clip.build_zero_shot_classifier(model, tokenizer, [CIFAR100[c]], TEMPLATES, device=device)
                .cpu()
                .numpy()
            ),
        )
        ours, peer = clock.seconds["ours"][-1], clock.seconds["open_clip"][-1]
        ratios.append((len(parts[i]) / ours) / (len(TEMPLATES) / peer))
        limits.append(ours / (arithmetic(model, nodes_of[i], len(parts[i])) / speeds[-1]))
        click.echo(
            f"turn {turn + 1}: ours {len(parts[i])} texts in {ours:.2f} s ({clock.share['ours'][-1]:.0%} of the "
            f"cores), open_clip {len(TEMPLATES)} in {peer:.2f} s ({clock.share['open_clip'][-1]:.0%}), ratio "
            f"{ratios[-1]:.1f}, matrix product {speeds[-1] / 1e9:.0f} GFLOP/s, {limits[-1]:.2f} times the arithmetic",
            err=True,
        )

    all_vectors = np.concatenate([vectors[i] for i in range(PARTS)])
    result = {
        "model": name,
        "precision": precision,
        "device": device,
        "threads": threads,
        "machine": machine(device),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "texts": len(texts),
        "trie_nodes": len(whole),
        "trie_nodes_in_parts": sum(nodes_of),
        "trie_nodes_one_template_at_a_time": sum(
            len(encoder.trie(texts[i : i + len(CIFAR100)])) for i in range(0, len(texts), len(CIFAR100))
        ),
        "padded_tokens": len(texts) * int(tokenizer([""]).shape[1]),
        "seconds": clock.seconds,
        "share_of_cores": clock.share,
        "ours_texts_per_s": len(texts) / PARTS / clock.median("ours"),
        "peer_texts_per_s": len(TEMPLATES) / clock.median("open_clip"),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "matrix_product_gflops": [speed / 1e9 for speed in speeds],
        "trie_arithmetic_gflop": arithmetic(model, len(whole), len(texts)) / 1e9,
        "times_the_arithmetic_by_turn": limits,
        "times_the_arithmetic": statistics.median(limits),
        "peak_memory_gb": memory,
        "largest_difference": largest_difference(model, tokenizer, texts, all_vectors, sample, device),
        "largest_classifier_difference": max(
            classifier_difference(weights, all_vectors, c) for c, weights in classifiers.items()
        ),
    }
    show(result)
    save(path, result)


def _tower(model: Any) -> Any:
    return model if hasattr(model, "transformer") else model.text


def arithmetic(model: Any, nodes: int, texts: int) -> float:
    """FLOPs of the projections and MLPs of every layer for every node, and of the final projection."""
    tower = _tower(model)
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


def classifier_difference(weights: np.ndarray, vectors: np.ndarray, c: int) -> float:
    """Between open_clip's weight of class c (D, 1) and the normalised mean of our vectors."""
    mean = vectors.reshape(-1, len(CIFAR100), vectors.shape[1])[:, c].mean(axis=0)
    return float(np.abs(mean / np.linalg.norm(mean) - weights[:, 0]).max())


def show(result: dict[str, Any]) -> None:
    saved = 1 - result["trie_nodes"] / result["trie_nodes_one_template_at_a_time"]
    speed = statistics.median(result["matrix_product_gflops"])
    rows = [
        ("machine", f"{result['machine']}, {result['threads']} threads, torch {result['torch']}"),
        ("texts, trie nodes, padded tokens", f"{result['texts']}, {result['trie_nodes']}, {result['padded_tokens']}"),
        ("ours, median", f"{result['ours_texts_per_s']:.0f} texts/s"),
        ("open_clip, median", f"{result['peer_texts_per_s']:.1f} texts/s"),
        ("ratio, median of the turns'", f"{result['ratio']:.1f}"),
        ("matrix product, median", f"{speed:.0f} GFLOP/s"),
        ("the trie's arithmetic at that speed", f"{result['trie_arithmetic_gflop'] / speed:.2f} s for all texts"),
        ("times the trie's own arithmetic, median", f"{result['times_the_arithmetic']:.2f}"),
        ("peak memory", f"{result['peak_memory_gb']:.2f} GB"),
        ("largest difference of unit vectors", f"{result['largest_difference']:.1e}"),
        ("largest difference of class weights", f"{result['largest_classifier_difference']:.1e}"),
        ("nodes saved by prefixes kept across calls", f"{saved:.1%} at one template a call"),
    ]
    for label, value in rows:
        click.echo(f"{label:<42} {value}")


if __name__ == "__main__":
    main()
