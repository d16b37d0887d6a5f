"""Which device computes: what `auto` stands for, and whether a Mac's GPU gives right vectors."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache.store import Cache

if TYPE_CHECKING:
    from promptsearch.evaluators.encoding.encoder import Encoder
    from promptsearch.evaluators.encoding.model_spec import ModelSpec

DEVICES = ("auto", "cpu", "cuda", "mps")

#: Cosine above which a vector is the CPU's to rounding, by precision.
RIGHT = {"fp32": 0.9999, "bf16": 0.99, "fp16": 0.99}

#: Texts of different lengths that a device is tried with.
TRIED = (
    "a photo of a cat.",
    "a",
    "a blurry black and white photo of a large grey elephant.",
    "two dogs, in 3 colours!",
)

log = logging.getLogger(__name__)


def resolve_device(device: str, here: bool = True, cache: Cache | None = None) -> str:
    """Return the device that will compute, one of cpu, cuda and mps.

    torch is asked only where there may be a GPU, and not again where the cache remembers that there is.

    Args:
        device: auto, cpu, cuda or mps; auto is the GPU if torch can use one.
        here: Whether this machine is meant; on another one a named device is believed.
        cache: Where the answer is remembered.

    Raises:
        InputError: No such device, or torch has none of that kind here.
    """
    if device not in DEVICES:
        raise InputError(f"--device {device}: choose from {', '.join(DEVICES)}")
    if device == "cpu" or (not here and device != "auto"):
        return device
    kinds = [kind for kind in ("cuda", "mps") if device in ("auto", kind) and (device == kind or _may_have(kind))]
    found = next((kind for kind in kinds if _has(kind, cache)), None)
    if found is None and device != "auto":
        what = "Apple GPU (Metal)" if device == "mps" else "GPU"
        raise InputError(f"--device {device}: torch sees no {what} here; use --device cpu")
    return found or "cpu"


def _may_have(kind: str) -> bool:
    if kind == "mps":
        return sys.platform == "darwin" and platform.machine() == "arm64"
    return any(os.path.exists(p) for p in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")) or os.name == "nt"


def _has(kind: str, cache: Cache | None) -> bool:
    """Whether torch can use this kind of GPU; that it can is remembered for this torch, driver and choice of GPUs."""
    key = {"kind": kind, "torch": _torch_version(), "system": platform.platform()}
    if kind == "cuda":
        try:
            key["driver"] = Path("/proc/driver/nvidia/version").read_text()
        except OSError:
            cache = None  # another driver could not be told from this one
        key["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if cache is not None and cache.get("devices", key) is not None:
        return True
    import torch

    available = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if available and cache is not None:
        cache.add("devices", key, {})
    return bool(available)


def checked(
    spec: ModelSpec, cache: Cache, encoder: Callable[[ModelSpec], Encoder] | None = None
) -> tuple[ModelSpec, str | None]:
    """Return the model on its device if that gives the CPU's vectors, else on the CPU, with a note that says so.

    Wrong vectors of Apple's GPUs are reported for several versions of macOS and torch.  So each model is tried once
    for each of them, on a few pictures and texts; the result is remembered.

    Args:
        spec: A model that is to be run on a Mac's GPU.
        cache: Where the result is remembered.
        encoder: Makes the encoder of a model; `Encoder` by default.
    """
    key = {
        "model": spec.fingerprint,
        "device": spec.device,
        "precision": spec.precision,
        "torch": _torch_version(),
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
    from promptsearch.evaluators.encoding.encoder import Encoder

    return lambda spec: Encoder(spec, cache)


def _compare(spec: ModelSpec, encoder: Callable[[ModelSpec], Encoder]) -> dict[str, Any]:
    """The smallest cosine of the device's vectors and the CPU's, and what to say of it."""
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
    except (PromptSearchError, RuntimeError) as e:  # not finite, or an operation that the device does not have
        return {"cosine": -1.0, "why": (str(e).splitlines() or [type(e).__name__])[0][:200]}
    worst = min(cosines, key=lambda kind: cosines[kind])
    return {"cosine": float(cosines[worst]), "why": f"cosine {cosines[worst]:.4f} for {worst}"}


def _torch_version() -> str:
    """Known without torch, whose import takes seconds."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "unknown"
