"""Where the time goes before a search begins: fresh processes, turn by turn.

python benchmarks/startup.py --repeats 5 --json startup.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

MAIN = ["beam", "--model", "zeroshot", "--dataset", "cifar10", "--bank", "templates", "--shots", "16", "--json"]


def seconds(args: list[str], **env: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "promptsearch", *args]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **env})
    return time.perf_counter() - start


@click.command()
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(repeats: int, path: Path | None) -> None:
    """Seconds of --help, of the first main job on `zeroshot`, of a cached search, and of a finished run shown again."""
    times: dict[str, list[float]] = {"--help": [], "first run": [], "cached search": [], "finished run again": []}
    for turn in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            env = {"PROMPTSEARCH_CACHE": f"{folder}/cache", "PROMPTSEARCH_HOME": f"{folder}/home"}
            times["--help"].append(seconds(["--help"], **env))
            times["first run"].append(seconds(MAIN, **env))
            times["cached search"].append(seconds([*MAIN, "--study", f"again{turn}"], **env))
            times["finished run again"].append(seconds(MAIN, **env))
    for key, values in times.items():
        click.echo(f"{key:20s} {statistics.median(values):6.2f} s (fastest {min(values):.2f})")
    if path:
        path.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main()
