"""Choose the device for `--device auto`, and check that a Mac's GPU computes the right vectors."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from promptsearch.errors import InputError
from promptsearch.evaluators.cache import Cache

DEVICES = ("auto", "cpu", "cuda", "mps")


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
    key = {"kind": kind, "torch": torch_version(), "system": platform.platform()}
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


def torch_version() -> str:
    """Known without torch, whose import takes seconds."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "unknown"
