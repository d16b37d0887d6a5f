"""A made-up problem for the embedded model: pictures from a feature pack, prompts from the cache, no torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from promptsearch.evaluators import Cache, resolve_model
from promptsearch.evaluators.cache import TextCache, digest_of, write_block
from promptsearch.evaluators.data.picture_features import pack_key

CLASSES = ("cat", "dog", "ship", "truck")
DIM = 16


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def make_problem(root: Path, templates: Iterable[str], dataset: str = "made", seed: int = 0) -> None:
    """Fill the cache at `root` so that `--model tiny --dataset made` needs neither pictures nor torch."""
    if root.exists():
        _make(root, tuple(templates), dataset, seed)
    else:
        shutil.copytree(_made(tuple(templates), dataset, seed).name, root)


@cache
def _made(templates: tuple[str, ...], dataset: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """The cache of a problem, which tests copy; it is gone when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="made-")
    _make(Path(folder.name), templates, dataset, seed)
    return folder


def _make(root: Path, templates: tuple[str, ...], dataset: str, seed: int) -> None:
    cache = Cache(root)
    spec = resolve_model("tiny", cache, device="cpu")
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(len(CLASSES), DIM)))
    for split, n in (("train", 160), ("test", 200)):
        labels = np.arange(n) % len(CLASSES)
        features = unit(centres[labels] + 0.6 * rng.normal(size=(n, DIM)))
        arrays = {"features": features, "labels": labels.astype(np.int16), "indices": np.arange(n, dtype=np.int32)}
        meta = {"class_names": list(CLASSES), "made_with": "the tests", "data": f"made {seed}"}
        key = pack_key(spec, dataset, split)
        write_block(root / "packs" / digest_of(key), key, arrays, meta)
    cache.add("models", {"model": spec.fingerprint}, {}, {"logit_scale": 20.0, "embed_dim": DIM, "context_length": 77})

    def encode(texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            c = next(i for i, name in enumerate(CLASSES) if name in text)
            noise = np.random.default_rng(list(text.replace(CLASSES[c], "").encode())).normal(size=DIM)
            own = np.random.default_rng(list(text.encode())).normal(size=DIM)
            rows.append(centres[c] + 0.3 * noise + 0.2 * own)
        return unit(np.array(rows))

    from promptsearch.banks import BASELINE, Template

    every = [BASELINE, *(Template(t) for t in templates)]
    TextCache(cache, spec.text_key).lookup([t.fill(n) for t in every for n in CLASSES], encode)
