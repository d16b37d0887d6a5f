"""Doors of benchmarks/attack.py that need whole processes: Ctrl-C at any moment, full disks and full devices."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

#: An attack of a door: its name, and a function that returns whether it was held off.
Attack = tuple[str, Callable[[], bool]]

#: Runs promptsearch as a command.
COMMAND = (sys.executable, "-c", "from promptsearch.cli import main; main()")

#: Seconds that a process has to end after Ctrl-C.
PATIENCE = 20


def _small_data(root: Path) -> Path:
    """Write a data set of random pictures, four of each class and split."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "ship"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / split / name / f"{i}.png")
    return root


def _commands(data: Path) -> dict[str, list[str]]:
    """Return commands that import, encode, search, learn, compare and label."""
    task = ["--model", "zeroshot", "--dataset", str(data), "--shots", "1"]
    bank = ["--bank", "templates"]
    compared = ["--shots", "1", "--seeds", "1", "--methods", "hand-written,single,coop-4", *bank]
    return {
        "random": ["random", *task, *bank, "--trials", "40"],
        "beam": ["beam", *task, *bank],
        "evolve": ["evolve", *task, *bank, "--trials", "40"],
        "coop": ["coop", *task, "--epochs", "200"],
        "compare": ["compare", *task[:4], *compared],
        "data check": ["data", "check", str(data)],
        "banks list": ["banks", "list"],
        "help": ["--help"],
    }


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PROMPTSEARCH_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def interrupts(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Ctrl-C at a random moment of a command, from its first hundredth of a second on, once or twice."""
    data = _small_data(home / "data")
    commands = _commands(data)
    whole: dict[str, float] = {}  # how long each takes by itself

    def interrupted(name: str, share: float, twice: bool) -> bool:
        place = home / f"{name} {share}"
        place.mkdir()
        process = subprocess.Popen(
            [*COMMAND, *commands[name]],
            env=_environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(share * whole[name])
        process.send_signal(signal.SIGINT)
        if twice:
            time.sleep(rng.random() / 5)
            process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if "Traceback" in err and "cli.py" not in err:  # cut in Python's own start, before promptsearch was there
            return True
        if "Traceback" in err or process.returncode not in (0, 130, -signal.SIGINT):
            raise RuntimeError(f"exit {process.returncode}: {err[-300:]}")
        return True

    while True:
        name = rng.choice(list(commands))
        if name not in whole:
            started = time.monotonic()
            subprocess.run([*COMMAND, *commands[name]], env=_environment(home / name), capture_output=True)
            whole[name] = time.monotonic() - started
        share = rng.random() * rng.choice([0.02, 0.3, 1])
        yield f"{name} at {share:.3f}", partial(interrupted, name, share, rng.random() < 0.3)


def disks(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Files that may not grow beyond a random size, and output to a full device: one line, no traceback."""
    import resource

    data, place = _small_data(home / "data"), home / "home"
    task = ["--model", "zeroshot", "--dataset", str(data), "--shots", "1", "--bank", "templates"]
    run = ["random", *task, "--trials", "4", "--study", "r", "--quiet", "--no-estimate"]
    subprocess.run([*COMMAND, *run], env=_environment(place), check=True, capture_output=True)
    new = str(data / "test")
    written = {
        "predict": ["predict", "r", new, "--force", "--out"],
        "sort": ["sort", "r", new, "--into"],
        "report": ["report", "r", "--out"],
        "export": ["export", "r", "--to", "open-clip", "--out"],
        "export folder": ["export", "r", "--to", "folder", "--out"],
        "runs export": ["runs", "export", "r", "--out"],
        "features": ["features", "export", "--model", "zeroshot", "--dataset", str(data)],
        "storage": [*run, "--storage"],
    }
    shown = {"show": ["runs", "show", "r", "--json"], "predict": ["predict", "r", new], "run": [*run, "--json"]}

    def ended(command: list[str], limit: int | None) -> bool:
        def small() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        with open("/dev/full" if limit is None else os.devnull, "wb") as out:
            done = subprocess.run(
                [*COMMAND, *command],
                env=_environment(place),
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                preexec_fn=small,
            )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        if "Traceback" in done.stderr or (done.returncode and (done.returncode not in (1, 2) or len(errors) != 1)):
            raise RuntimeError(f"exit {done.returncode}: {done.stderr[-300:]}")
        return limit is not None or done.returncode == 1

    for n in range(10**9):
        if rng.random() < 0.25:
            name = rng.choice(list(shown))
            yield f"{name} to /dev/full", partial(ended, shown[name], None)
            continue
        name = rng.choice(list(written))
        target = home / f"{n}.{'sqlite' if name == 'storage' else 'out'}"
        yield f"{name}, little room", partial(ended, [*written[name], str(target)], rng.choice([0, 100, 5000, 60_000]))


#: The doors by name: from a random generator and an empty folder to endless attacks.
PROCESSES: dict[str, Callable[[random.Random, Path], Iterator[Attack]]] = {"interrupts": interrupts, "disks": disks}
