"""What this machine computes on: the device that `--device auto` stands for, and the number of cores."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from promptsearch.errors import InputError
from promptsearch.evaluators.cache import Cache

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str, here: bool = True, cache: Cache | None = None) -> str:
    """Return the device to compute on: "cpu", "cuda" or "mps".

    torch is imported only if the machine may have a GPU and the cache does not say yet that torch can use it.

    Args:
        device: "auto", "cpu", "cuda" or "mps"; "auto" is the GPU if torch can use one, else the CPU.
        here: Whether the device is on this machine; on another machine it is not checked.
        cache: Where the answer is cached.

    Raises:
        InputError: The device is unknown, or torch finds no such device on this machine.
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
    """Return whether torch can use this kind of GPU; a yes is cached by torch's version, driver and visible GPUs."""
    key = {"kind": kind, "torch": torch_version(), "system": platform.platform()}
    if kind == "cuda":
        key["driver"] = _driver()
        if not key["driver"]:
            cache = None  # do not cache the answer, which would outlive a change of the driver
        key["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if cache is not None and cache.get("devices", key) is not None:
        return True
    import torch

    available = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if available and cache is not None:
        cache.add("devices", key, {})
    return bool(available)


#: Where NVIDIA's driver says its version.
_VERSION = Path("/proc/driver/nvidia/version")
#: Where Linux and containers have its library, whose file name ends with the version.
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64")


def _driver() -> str:
    """Return what tells NVIDIA's driver from another one; containers may have the library only."""
    with contextlib.suppress(OSError):
        return _VERSION.read_text()
    return " ".join(sorted(str(p) for folder in _LIBRARIES for p in Path(folder).glob("libcuda.so.*.*")))


#: Where Linux says how many microseconds of a period the processes of a container may compute.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # another system, or "max": no quota
        return cores
    return max(1, min(cores, math.ceil(quota / period)))


def torch_version() -> str:
    """Return torch's version without importing torch, which takes seconds."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "unknown"
