"""The command `promptsearch doctor`, which checks the installation."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import click

from promptsearch.commands.examples import example
from promptsearch.commands.options import storage_option
from promptsearch.errors import PromptSearchError
from promptsearch.version import __version__

#: Free disk space in bytes below which downloads and caches are likely to fail; RN50 and CIFAR-10 take a third of it.
SPACE = 2 << 30
PACKAGES = ("numpy", "torch", "open_clip_torch", "transformers", "datasets", "optuna", "click", "huggingface_hub")
#: Optional packages: the extra that installs each, and what needs it.
EXTRAS = {
    "openai": ("lm", "--lm-url"),
    "uvicorn": ("explore", "explore"),
    "kaleido": ("report", "report --png"),
    "matplotlib": ("plots", "compare --figure"),
    "psycopg": ("postgresql", "runs in PostgreSQL"),
    "ray": ("ray", "--ray"),
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: What was checked.
        state: "ok", "note" (something is limited) or "problem" (something will fail).
        found: What was found.
        remedy: What to do about it.
    """

    what: str
    state: str
    found: str
    remedy: str = ""


@click.command(epilog=example("promptsearch doctor"))
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(storage: str | None, as_json: bool) -> None:
    """Check versions, devices, caches, storage, model hub and disk space.

    The exit code is 1 if something will fail.
    """
    findings = [f for look in _LOOKS for f in look(storage)]
    bad = sum(f.state == "problem" for f in findings)
    if as_json:
        click.echo(json.dumps({"healthy": not bad, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        width = max(len(f.what) for f in findings)
        for f in findings:
            click.echo(f"{'ok' if f.state == 'ok' else f.state:8}{f.what:{width}}  {f.found}")
            if f.remedy:
                click.echo(f"{'':8}{'':{width}}  → {f.remedy}")
        click.echo("no problems found" if not bad else f"{bad} problem{'s' if bad > 1 else ''}")
    if bad:
        raise click.exceptions.Exit(1)


def _versions(_: str | None) -> Iterator[Finding]:
    yield Finding("promptsearch", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", "reinstall promptsearch")
    for name, (extra, use) in EXTRAS.items():
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "note", f"not installed; {use} needs it", f"pip install 'promptsearch[{extra}]'")
    from promptsearch.reports.png import find_browser

    if (browser := find_browser()) is not None:
        yield Finding("Chromium", "ok", browser)
    else:
        yield Finding(
            "Chromium", "note", "not found; report --png needs it", "apt-get install chromium, or set BROWSER_PATH"
        )


def _devices(_: str | None) -> Iterator[Finding]:
    from promptsearch.evaluators.encoding.device import resolve_device

    ram = _ram()
    yield Finding("CPU", "ok", f"{os.cpu_count()} cores" + (f", {ram / 2**30:.1f} GiB of memory" if ram else ""))
    device = resolve_device("auto")
    if device == "cuda":
        import torch

        yield Finding("GPU", "ok", torch.cuda.get_device_name())
    elif device == "mps":
        yield Finding("GPU", "ok", "Apple's, compared with the CPU when a model first runs on it")
    else:
        yield Finding("GPU", "note", "none usable by torch; the CPU encodes about 10 pictures per second with RN50")


def _ram() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _embedded(_: str | None) -> Iterator[Finding]:
    from promptsearch.evaluators import open_problem

    try:
        problem = open_problem("zeroshot", "cifar10")
        count = len(problem.source.labels("test")[0])
        yield Finding("embedded model zeroshot", "ok", f"weights and feature pack ({count} test pictures) are intact")
    except (PromptSearchError, OSError) as e:
        yield Finding("embedded model zeroshot", "problem", str(e), "reinstall promptsearch")


def _cache(_: str | None) -> Iterator[Finding]:
    from promptsearch.evaluators import default_cache

    cache = default_cache()
    rows = cache.info()
    size = sum(r[2] for r in rows) / 1e6
    kinds = ", ".join(r[0] for r in rows) or "empty"
    remedy = "set PROMPTSEARCH_CACHE to a writable folder"
    yield from _writable("cache", cache.root, f"{size:.1f} MB ({kinds})", remedy)


def _storage(url: str | None) -> Iterator[Finding]:
    from promptsearch.runs import default_storage
    from promptsearch.runs.store.listing import summaries
    from promptsearch.runs.store.storage import masked

    place = url or default_storage()
    path = Path(place.removeprefix("sqlite:///"))
    if (place.startswith("sqlite:///") or "://" not in place) and not path.exists():
        yield from _writable("runs", path.parent, "no runs yet", "set PROMPTSEARCH_HOME, or give --storage")
        return
    try:
        rows = summaries(url)
        yield Finding("runs", "ok", f"{len(rows)} in {masked(place)}")
    except PromptSearchError as e:
        yield Finding("runs", "problem", str(e), "set PROMPTSEARCH_HOME, or give --storage")


def _hub(_: str | None) -> Iterator[Finding]:
    from promptsearch.evaluators.data.datasets import dataset_cached
    from promptsearch.evaluators.data.hub import find_cached, hub_reachable
    from promptsearch.evaluators.encoding.model_spec import RN50_REPO, WEIGHT_FILES

    reachable, reason = hub_reachable()
    mirror = "give --weights FILE and --dataset FOLDER, or set HF_ENDPOINT to a mirror"
    yield Finding("model hub", "ok", "reachable") if reachable else Finding("model hub", "note", reason, mirror)
    for what, there in {
        "RN50's weights": find_cached(RN50_REPO, WEIGHT_FILES[0]) is not None,
        "CIFAR-10": dataset_cached("cifar10"),
    }.items():
        if there:
            yield Finding(what, "ok", "in the cache")
        elif reachable:
            yield Finding(what, "note", "not in the cache; the first run downloads it")
        else:
            yield Finding(what, "note", "not in the cache and cannot be downloaded; `auto` uses zeroshot and its pack")


def _writable(what: str, folder: Path, found: str, remedy: str) -> Iterator[Finding]:
    existing = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as e:  # access rights do not tell, e.g. on a read-only file system
        yield Finding(what, "problem", f"{folder} cannot be written ({e.strerror})", remedy)
        return
    free = shutil.disk_usage(existing).free
    state = "ok" if free > SPACE else "problem"
    more = "" if free > SPACE else "free some space, or " + remedy
    yield Finding(what, state, f"{folder}: {found}, {free / 2**30:.1f} GiB free", more)


def _settings(_: str | None) -> Iterator[Finding]:
    from promptsearch.commands.settings import find_settings, read_settings

    try:
        file = find_settings()
        if file is None:
            yield Finding("settings", "ok", "no settings file; all options have their defaults")
        else:
            group = click.get_current_context().find_root().command
            assert isinstance(group, click.Group)  # the root command is a group
            read_settings(file, group)
            yield Finding("settings", "ok", str(file.path))
    except PromptSearchError as e:
        yield Finding("settings", "problem", str(e), "correct that line")


_LOOKS: tuple[Callable[[str | None], Iterator[Finding]], ...] = (
    _versions,
    _devices,
    _settings,
    _embedded,
    _cache,
    _storage,
    _hub,
)
