"""What the benchmarks share: a clock that knows its share of the cores, the machine, its matrix product, its memory."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class Clock:
    """Seconds of named pieces of work, turn by turn, and how much of the cores each piece got.

    clock = Clock(cores=2)
    vectors = clock.time("ours", lambda: encoder.encode(texts))
    clock.seconds["ours"]  # one entry per call
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.seconds: dict[str, list[float]] = {}
        self.share: dict[str, list[float]] = {}  # 1 where every core was busy with this process all the time

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        cpu, start = time.process_time(), time.perf_counter()
        result = work()
        wall = time.perf_counter() - start
        self.seconds.setdefault(name, []).append(wall)
        self.share.setdefault(name, []).append((time.process_time() - cpu) / wall / self.cores)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def product_speed(dtype: Any = None, device: str = "cpu", size: int = 2048, repeats: int = 7) -> float:
    """FLOP/s of a square matrix product (float32 unless told): the median of some."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype or torch.float32) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        out[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])  # the first warms up


def peak_memory() -> float:
    """Of this process so far, in GB; Linux counts kilobytes, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine(device: str = "cpu") -> str:
    """The GPU's or the CPU's name, with the instructions that decide how fast a matrix product is."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    name = fields.get("model name") or platform.processor() or platform.machine()
    has = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{name} ({', '.join(has)})" if has else name


def save(path: Path | None, result: Any) -> None:
    """Write a result as JSON where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
        click.echo(f"written to {path}", err=True)
