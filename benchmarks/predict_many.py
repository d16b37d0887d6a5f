"""Labels 10,000 pictures, one of them corrupt, once whole and once killed in the middle: is the file the same?

python benchmarks/predict_many.py [--pictures 10000] [--model zeroshot]

Makes the pictures and a small run in a temporary folder, and prints rates and whether both files are the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

CLASSES = {"red square": (220, 30, 30), "green square": (30, 200, 30), "blue square": (30, 30, 220)}


def write_pictures(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    colours = list(CLASSES.values())
    for i in range(count):
        place = folder / f"{i // 1000:02}" / f"{i:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.normal(colours[i % 3], 60, (48, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place)


def command(home: Path, cache: str, *args: object) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PROMPTSEARCH_HOME": str(home / "home"), "PROMPTSEARCH_CACHE": str(home / cache)}
    said = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "promptsearch", *map(str, args), "--quiet"], env=env, stdout=said)


def finish(process: subprocess.Popen[bytes]) -> float:
    started = time.perf_counter()
    if process.wait() != 0:
        raise SystemExit("a command failed; what it said is above")
    return time.perf_counter() - started


@click.command()
@click.option("--pictures", default=10_000, show_default=True, type=click.IntRange(1000))
@click.option("--model", default="zeroshot", show_default=True)
def main(pictures: int, model: str) -> None:
    """Pictures a second, and whether a killed command that is run again writes the same file."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        for split, n in (("train", 8), ("test", 2)):
            for name, colour in CLASSES.items():
                folder = home / "data" / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    Image.new("RGB", (48, 40), tuple(min(255, c + 3 * i) for c in colour)).save(folder / f"{i}.png")
        write_pictures(home / "many", pictures, 0)
        broken = home / "many" / "00" / "00500.png"
        broken.write_bytes(broken.read_bytes()[:700])
        search = ["beam", "--model", model, "--dataset", home / "data", "--shots", 4, "--study", "squares"]
        finish(command(home, "one", *search, "--bank", "simple-imagenet", "--width", 2, "--depth", 2, "--json"))

        shutil.copytree(home / "one", home / "other")  # the texts' vectors, but no picture's

        predict = ["predict", "squares", home / "many", "--top", 3, "--out"]
        seconds = finish(command(home, "one", *predict, home / "whole.csv"))
        print(f"whole: {pictures} pictures in {seconds:.0f} s, {pictures / seconds:.0f} a second")

        partial = home / "resumed.csv.partial"
        process = command(home, "other", *predict, home / "resumed.csv")
        while not partial.exists() or partial.read_bytes().count(b"\n") < pictures // 256 // 2:
            if process.poll() is not None:
                raise SystemExit("it was done before it was killed")
            time.sleep(0.01)
        process.kill()
        process.wait()
        done = 256 * (partial.read_bytes().count(b"\n") - 1)
        seconds = finish(command(home, "other", *predict, home / "resumed.csv"))
        left = pictures - done
        print(f"killed after {done}; the other {left} in {seconds:.0f} s, {left / seconds:.0f} a second")
        whole, resumed = ((home / f"{name}.csv").read_bytes() for name in ("whole", "resumed"))
        different = sum(a != b for a, b in zip(whole.splitlines(), resumed.splitlines(), strict=False))
        bad = [line for line in whole.decode().splitlines() if "cannot be decoded" in line]
        lines = whole.count(b"\n") - 1
        print(f"lines: {lines}; not decoded: {len(bad)}; lines that differ: {different}")
        if whole != resumed or len(bad) != 1 or broken.name not in bad[0]:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
