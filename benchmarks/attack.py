"""Hostile and damaged inputs at every door: each ends in the right value, or in one line that names it, in time.

python benchmarks/attack.py                          # all doors, 200 attacks each
python benchmarks/attack.py --attacks 1000 --door pictures --door packs --seed 1
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from attack_figures import FIGURES  # type: ignore[import-not-found]
from attack_processes import PROCESSES  # type: ignore[import-not-found]
from attack_strangers import STRANGERS  # type: ignore[import-not-found]

from promptsearch.errors import PromptSearchError

#: An attack of a door: its name, and a function that returns whether it was held off.
Attack = tuple[str, Callable[[], bool]]

#: What each door is: from a random generator and an empty folder to endless attacks.
Door = Callable[[random.Random, Path], Iterator[Attack]]
DOORS: dict[str, Door] = {}

#: Seconds and bytes that one attack may take.
SECONDS, MEMORY = 60, 12 << 30


def door(name: str) -> Callable[[Door], Door]:
    """Register a door under a name."""

    def register(function: Door) -> Door:
        DOORS[name] = function
        return function

    return register


def refused(call: Callable[[], Any], expected: Callable[[Any], bool] = lambda found: True) -> bool:
    """Whether a call returns what is expected, or raises promptsearch's own error, in one line that prints."""
    try:
        found = call()
    except PromptSearchError as e:
        return bool(str(e)) and "\n" not in str(e) and "\x1b" not in str(e)
    return expected(found)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The same bytes, some changed, and perhaps cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.3 else changed)


@door("pictures")
def pictures(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Every format and mode, damaged; deep pictures whose 8-bit values are known."""
    from PIL import Image

    from promptsearch.evaluators.data.encoded_picture import StoredPicture

    forms = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "TIFF": ("L", "RGB", "CMYK", "F", "I", "I;16")}
    forms |= {"GIF": ("L", "P"), "JPEG": ("L", "RGB", "CMYK"), "WEBP": ("RGB", "RGBA"), "BMP": ("L", "RGB")}

    def opened(content: bytes) -> Any:
        return StoredPicture(content, None, "a picture").open()

    def same(grey: np.ndarray, found: Any) -> bool:
        return bool((np.asarray(found)[..., 0] == grey).all())

    def rgb(found: Any) -> bool:
        return bool(found.mode == "RGB")

    while True:
        form = rng.choice(list(forms))
        mode = rng.choice(forms[form])
        grey = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (9, 7)).astype(np.uint8)
        grey[0, 0], out = 255, io.BytesIO()
        deep: dict[str, Any] = {"I;16": grey.astype(np.uint16) * 257, "I": grey.astype(np.int32)}
        deep["F"] = grey.astype(np.float32) / 255
        (Image.fromarray(deep[mode]) if mode in deep else Image.fromarray(grey).convert(mode)).save(out, form)
        exact = mode in (*deep, "L") and form in ("PNG", "TIFF", "BMP")
        content = out.getvalue()
        shows = partial(same, grey) if exact else rgb
        yield f"{form} {mode}", partial(refused, partial(opened, content), shows)
        yield f"{form} {mode}, damaged", partial(refused, partial(opened, damaged(content, rng)), rgb)


@door("folders")
def folders(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Trees of hidden folders, links that loop and lead out, pipes, devices, names that are no UTF-8."""
    from PIL import Image

    from promptsearch.evaluators.data import open_dataset

    def opened(tree: Path) -> bool:
        data = open_dataset(str(tree))
        return all(data.fingerprint(s) for s in ("train", "test")) and "\x1b" not in "".join(data.notes)

    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    names = [b"a", b"b.png", b".c", b"@eaDir", b"\xff\xfe.png", b"d.txt", b"e", b"__MACOSX", b"f\x1b[31m.png"]
    for n in range(10**9):
        tree = home / str(n)
        for split in ("train", "test"):
            for name in ("cat", "ship"):
                (tree / split / name).mkdir(parents=True)
                for i in range(2):
                    (tree / split / name / f"{i}.png").write_bytes(out.getvalue())
        for _ in range(rng.randint(1, 12)):
            path = os.fsencode(tree / "train" / "cat") + b"".join(
                b"/" + rng.choice(names) for _ in range(rng.randint(1, 3))
            )
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                kind = rng.choice(["file", "empty", "text", "pipe", "up", "out", "self", "zero", "folder"])
                if kind in ("file", "empty", "text"):
                    with open(path, "xb") as f:
                        f.write({"file": out.getvalue(), "empty": b"", "text": b"hello"}[kind])
                elif kind == "pipe":
                    os.mkfifo(path)
                elif kind == "folder":
                    os.mkdir(path)
                else:
                    targets = {"up": os.fsencode(tree), "out": b"/usr/share/doc", "self": path, "zero": b"/dev/zero"}
                    os.symlink(targets[kind], path)
            except OSError:
                continue

        yield f"tree {n}", partial(refused, partial(opened, tree), bool)
        shutil.rmtree(tree)


@door("class names")
def class_names(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Names of random characters, and the same name written in another way."""
    from promptsearch.evaluators.data.class_names import spoken_names

    some = "abcé_ \t\n\x1b\x00İßﬁ犬\N{ZERO WIDTH SPACE}\N{RIGHT-TO-LEFT OVERRIDE}\N{COMBINING ACUTE ACCENT}\ud800"

    def distinct(found: tuple[str, ...]) -> bool:
        return len({" ".join(n.casefold().split()) for n in found}) == len(found) and all(n.strip() for n in found)

    while True:
        names = ["".join(rng.choices(some, k=rng.randint(0, 5))) for _ in range(3)]
        names.append(rng.choice([names[0].upper(), f" {names[0]}_", names[0].replace(" ", "_")]))
        yield repr(names), partial(refused, partial(spoken_names, "x", names), distinct)


@door("model configs")
def model_configs(rng: random.Random, home: Path) -> Iterator[Attack]:
    """The embedded model's config with a key of another value, and its bytes damaged."""
    from promptsearch.evaluators import Cache, resolve_model
    from promptsearch.evaluators.cache import MODELS

    text = (MODELS / "zeroshot" / "open_clip_config.json").read_text()
    shutil.copy(MODELS / "zeroshot" / "open_clip_model.safetensors", home)
    values: list[Any] = [10**9, -1, 0, float("nan"), "x", None, [], {}, [1] * 99, True, "hf-hub:x/y"]
    values.append({"trust_remote_code": True})
    keys = ["layers", "width", "heads", "vocab_size", "embed_dim", "image_size", "tokenizer_kwargs", "act_kwargs"]
    keys += ["hf_model_name", "hf_tokenizer_name", "timm_model_name", "mean", "std", "size", "tokenizer_mode"]

    def resolved(content: bytes) -> Any:
        (home / "open_clip_config.json").write_bytes(content)
        return resolve_model(f"local-dir:{home}", Cache(home / "cache"))

    while True:
        config = json.loads(text)
        section = rng.choice(["model_cfg", "text_cfg", "vision_cfg", "preprocess_cfg"])
        at = config if section == "preprocess_cfg" else config["model_cfg"]
        at = at if section == "model_cfg" else at.setdefault(section, {})
        key, value = rng.choice(keys), rng.choice(values)
        at[key] = value
        content = json.dumps(config).encode() if rng.random() < 0.7 else damaged(text.encode(), rng)

        yield f"{section} {key} = {value!r}", partial(refused, partial(resolved, content))


@door("weights")
def weights(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Archives, state dicts and safetensors that are damaged, or something else altogether."""
    import torch
    from safetensors.torch import save

    from promptsearch.evaluators import Cache, Encoder, resolve_model

    def loaded(name: str, content: bytes) -> bool:
        """Whether code in the file ran; no file here has all weights of a model."""
        (home / name).write_bytes(content)
        cache = Cache(home / "cache")
        try:
            _ = Encoder(resolve_model("ViT-S-32-alt", cache, weights=home / name), cache).model
        except PromptSearchError:
            if not (home / "ran").exists():
                raise
        return False

    plain, script, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"text_projection": torch.zeros(2, 2)}, plain)
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("x/data.pkl", b"cos\nsystem\n(S'touch " + os.fsencode(home / "ran") + b"'\ntR.")
        z.writestr("x/constants.pkl", b"")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    good = {"a.pt": plain.getvalue(), "b.pt": script.getvalue(), "c.pt": archive.getvalue()}
    good |= {"d.safetensors": save({"text_projection": torch.zeros(2, 2)}), "e.bin": b"<!doctype html><html>"}
    while True:
        name = rng.choice(list(good))
        content = good[name] if rng.random() < 0.3 else damaged(good[name], rng)

        yield name, partial(refused, partial(loaded, name, content), bool)


@door("packs")
def packs(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Feature packs with changed bytes, and sound blocks of other shapes, types and names."""
    from promptsearch.evaluators import Cache
    from promptsearch.evaluators.cache import write_block
    from promptsearch.evaluators.data.picture_features import import_pack

    key = {"model": "m", "dataset": "d", "split": "train"}
    meta = {"class_names": ["cat", "ship"], "made_with": "x", "data": "y"}
    arrays = {"features": np.eye(4, dtype=np.float16), "labels": np.array([0, 1, 0, 1]), "indices": np.arange(4)}
    odd: list[np.ndarray] = [np.zeros(0), np.full((4, 4), np.nan), np.array([9, 9, 9, 9]), np.zeros((4, 0))]
    odd.append(np.array(3))
    odd.append(np.ones((4, 4), "?"))
    while True:
        folder = home / "pack"
        shutil.rmtree(folder, ignore_errors=True)
        change = rng.choice(["bytes", "array", "meta", "key"])
        a: dict[str, Any] = dict(arrays)
        m: dict[str, Any] = dict(meta)
        k: dict[str, Any] = dict(key)
        if change == "array":
            a[rng.choice(list(a))] = rng.choice(odd)
        elif change == "meta":
            m[rng.choice(list(m))] = rng.choice([None, 3, [], ["a"], "\x1b[2J"])
        elif change == "key":
            k[rng.choice(list(k))] = rng.choice([None, 3, [], "../../x"])
        file = write_block(folder, k, a, m)
        if change == "bytes":
            file.write_bytes(damaged(file.read_bytes(), rng))
        yield change, partial(refused, partial(import_pack, folder, Cache(home / "cache")))


@door("banks")
def banks(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Bank files with changed bytes, and text that is deep, long or of braces."""
    from promptsearch.banks import load_bank

    def loaded(suffix: str, content: bytes) -> Any:
        (home / f"b{suffix}").write_bytes(content)
        return load_bank(home / f"b{suffix}")

    def valid(bank: Any) -> bool:
        return all(t.count("{}") == 1 for t in bank.templates)

    good = {
        ".txt": b'a photo of a {}.\n"a toy {}."\n# {}\n',
        ".json": b'["a photo of a {c}.", "a toy {c}."]',
        ".yaml": b"templates:\n- a photo of a {}.\npatterns:\n- a [x] {}\nslots:\n  x: [red, blue]\n",
    }
    odd = [b"[" * 50_000, b"{" * 50_000, b"a: &a [*a]", b"\xff\xfe", b"\0" * 99, b"{}" * 5000, b"- " * 9999]
    odd.append(b"{0.__class__}")
    while True:
        suffix = rng.choice(list(good))
        content = damaged(good[suffix], rng) if rng.random() < 0.8 else rng.choice(odd)

        yield suffix, partial(refused, partial(loaded, suffix, content), valid)


DOORS.update(STRANGERS | FIGURES | PROCESSES)


def held(attack: Callable[[], bool]) -> tuple[bool, str]:
    """Whether an attack is held off in time, and what was raised otherwise."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        return attack(), "a wrong value"
    except (Exception, SystemExit) as e:  # whatever gets through is what this counts
        return False, f"{type(e).__name__}: {e}"
    finally:
        signal.alarm(0)


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--attacks", default=200, show_default=True, help="Attacks on each door.")
@click.option("--door", "names", multiple=True, help="Only these doors (default: all).")
@click.option("--seed", default=0, show_default=True)
def main(attacks: int, names: tuple[str, ...], seed: int) -> None:
    if unknown := set(names) - set(DOORS):
        raise click.UsageError(f"--door {unknown.pop()}: choose from {', '.join(DOORS)}")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    failures = 0
    for name in names or DOORS:
        with tempfile.TemporaryDirectory() as home:
            started, failed, tried = time.monotonic(), 0, 0
            for what, attack in DOORS[name](random.Random(f"{seed} {name}"), Path(home)):
                ok, why = held(attack)
                tried, failed = tried + 1, failed + (not ok)
                if not ok and failed <= 5:
                    click.echo(f"  {name}: {what}: {why[:300]}", err=True)
                if tried >= attacks:
                    break
        click.echo(f"{name:14} {tried:5} tried {failed:4} failed  {time.monotonic() - started:6.1f} s")
        failures += failed
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
