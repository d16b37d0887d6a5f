"""How a command fares alone, and beside a second one on the same machine, by how idle threads wait.

    python benchmarks/two_at_once.py --repeats 3

Each setting runs the command alone and then twice at the same time, in processes of their own with a new cache and new
runs, turn by turn with the other settings. "default" is what the command line sets itself; the others set the
variables that libgomp (torch) and OpenBLAS (numpy) read. The last columns are times of the best setting: a default that
serves both is near 1.0 in both, and two at once take 2.0 times one alone when nothing is lost and one alone fills the
machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

import click

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "threads spin": {"OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_THREAD_TIMEOUT": "26"},
    "libraries' own": {"GOMP_SPINCOUNT": "300000", "OPENBLAS_THREAD_TIMEOUT": "26"},
    "threads sleep": {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000", "OPENBLAS_THREAD_TIMEOUT": "4"},
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
}
COMMANDS = {
    "coop": ["coop", "--epochs", "20", "--shots", "16"],
    "texts": ["beam", "--dataset", "cifar100", "--shots", "1", "--phrases", "none", "--depth", "1", "--no-estimate"],
    "beam": ["beam", "--shots", "16"],
}


def seconds(command: list[str], setting: dict[str, str], at_once: int) -> float:
    """The longest of so many processes that begin together, each with its own cache and runs."""
    with tempfile.TemporaryDirectory() as folder:
        running = []
        start = time.perf_counter()
        for i in range(at_once):
            own = {"PROMPTSEARCH_CACHE": f"{folder}/cache{i}", "PROMPTSEARCH_HOME": f"{folder}/home{i}"}
            env = {k: v for k, v in {**os.environ, **setting, **own}.items() if v}
            call = [sys.executable, "-m", "promptsearch", *command, "--model", "zeroshot", "--json", "--quiet"]
            running.append(subprocess.Popen(call, env=env, stdout=subprocess.DEVNULL))
        codes = [process.wait() for process in running]
        if any(codes):
            raise click.ClickException(f"{' '.join(command)} failed")
        return time.perf_counter() - start


@click.command()
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--command", "named", multiple=True, type=click.Choice(list(COMMANDS)), help="Only these commands.")
@click.option("--setting", multiple=True, type=click.Choice(list(SETTINGS)), help="Only these settings.")
def main(repeats: int, named: tuple[str, ...], setting: tuple[str, ...]) -> None:
    """Seconds alone and two at once."""
    chosen = {name: SETTINGS[name] for name in setting or SETTINGS}
    for command in named or COMMANDS:
        found: dict[tuple[str, int], list[float]] = {(name, n): [] for name in chosen for n in (1, 2)}
        for _ in range(repeats):
            for name, n in found:
                found[name, n].append(seconds(COMMANDS[command], chosen[name], n))
        medians = {key: statistics.median(times) for key, times in found.items()}
        best = {n: min(medians[name, n] for name in chosen) for n in (1, 2)}
        click.echo(f"{command}: {' '.join(COMMANDS[command])}")
        for name in chosen:
            one, two = medians[name, 1], medians[name, 2]
            click.echo(
                f"    {name:15} alone {one:6.1f} s, two at once {two:6.1f} s ({two / one:.2f} times); "
                f"{one / best[1]:.2f} and {two / best[2]:.2f} times the best"
            )


if __name__ == "__main__":
    main()
