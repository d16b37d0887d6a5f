"""Compares a Mac's GPU with the CPU before a model is run on it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.cache import Cache
from promptsearch.evaluators.encoding.device import torch_version
from promptsearch.evaluators.encoding.encoder import Encoder
from promptsearch.evaluators.encoding.model_spec import ModelSpec

#: By precision, the cosine above which a vector equals the CPU's up to rounding.
RIGHT = {"fp32": 0.9999, "bf16": 0.99, "fp16": 0.99}

#: Texts of different lengths on which a device is compared with the CPU.
TRIED = (
    "a photo of a cat.",
    "a",
    "a blurry black and white photo of a large grey elephant.",
    "two dogs, in 3 colours!",
)

log = logging.getLogger(__name__)


def checked(
    spec: ModelSpec, cache: Cache, encoder: Callable[[ModelSpec], Encoder] | None = None
) -> tuple[ModelSpec, str | None]:
    """Return the model on its device if that gives the CPU's vectors, else on the CPU, with a note that says so.

    Apple's GPUs give wrong vectors with several versions of macOS and torch. Each model is therefore compared once per
    version on a few pictures and texts, and the result is cached.

    Args:
        spec: A model that is to be run on a Mac's GPU.
        cache: Where the result is cached.
        encoder: Makes the encoder of a model; `Encoder` by default.
    """
    key = {
        "model": spec.fingerprint,
        "device": spec.device,
        "precision": spec.precision,
        "torch": torch_version(),
        "system": platform.platform(),
    }
    known = cache.get("device-checks", key)
    if known is None:
        log.info("comparing the vectors of %s with the CPU's", spec.device)
        meta = _compare(spec, encoder or _encoder(cache))
        cache.add("device-checks", key, {}, meta)
    else:
        meta = known.meta
    if meta["cosine"] >= RIGHT[spec.precision]:
        return spec, None
    note = (
        f"This machine's GPU ({spec.device}) is not used: its vectors differ from the CPU's ({meta['why']}). "
        "The CPU computes instead; a newer macOS or torch may mend it."
    )
    return replace(spec, device="cpu", precision="fp32" if spec.precision == "fp16" else spec.precision), note


def _encoder(cache: Cache) -> Callable[[ModelSpec], Encoder]:
    return lambda spec: Encoder(spec, cache)


def _compare(spec: ModelSpec, encoder: Callable[[ModelSpec], Encoder]) -> dict[str, Any]:
    """Return the smallest cosine between the device's vectors and the CPU's, and a note about it."""
    from PIL import Image

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
    pictures = [Image.fromarray(p).resize((80, 60 + 8 * i)) for i, p in enumerate(small)]
    right = encoder(replace(spec, device="cpu", precision="fp32"))
    ours = encoder(spec)
    try:
        cosines = {
            "texts": (right.text_encoder.encode(TRIED) * ours.text_encoder.encode(TRIED)).sum(axis=1).min(),
            "pictures": (right.encode_pictures(pictures) * ours.encode_pictures(pictures)).sum(axis=1).min(),
        }
    except (PromptSearchError, RuntimeError) as e:  # a vector is not finite, or the device lacks an operation
        return {"cosine": -1.0, "why": (str(e).splitlines() or [type(e).__name__])[0][:200]}
    worst = min(cosines, key=lambda kind: cosines[kind])
    return {"cosine": float(cosines[worst]), "why": f"cosine {cosines[worst]:.4f} for {worst}"}
