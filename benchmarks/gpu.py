"""Everything that a GPU is used for, in one run of a few minutes: how fast, what bounds it, and whether it is right.

    python benchmarks/gpu.py --json gpu.json

Texts, pictures (CIFAR's 32-pixel JPEGs and photographs of 500 x 375), the whole `beam` job with nothing and with all
features cached, CoOp's training and a visual prompt, each against open_clip or the plain way where there is one, and
vectors against the CPU's in float32.  Weights are random: they take as long as trained ones.  Nothing is downloaded.
A part that fails is reported and the others go on; the file is written after each.  On a machine without a GPU try it
with `--device cpu --model zeroshot --pictures 1200 --photos 600 --texts 800 --epochs 3`.
"""

from __future__ import annotations

import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import machine, peak_memory, product_speed  # type: ignore[import-not-found]

PHOTO = (500, 375)
DISTINCT = 300  # photographs made; more are these again
BATCH = 256
WAYS = ("open_clip's own layers, autocast", "batch norms folded", "fused convolutions")


@dataclass
class Bench:
    """What the parts share, and the results so far."""

    model: str
    device: str
    home: Path
    sizes: dict[str, int]
    result: dict[str, Any]
    encoders: dict[str, Any]

    def encoder(self, precision: str) -> Any:
        from promptsearch.evaluators import Cache, Encoder, resolve_model

        if precision not in self.encoders:
            cache = Cache(self.home / "models")
            spec = resolve_model(self.model, cache, device=self.device, precision=precision)
            self.encoders[precision] = Encoder(spec, cache)
        return self.encoders[precision]

    def wait(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], turns: int = 1) -> float:
        """The median time of some turns, the device's work included."""
        found = []
        for _ in range(turns):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - start)
        return statistics.median(found)


def made_jpegs(count: int, size: tuple[int, int], distinct: int) -> list[bytes]:
    """JPEGs of random patches: their decoding takes as long as that of pictures with as many details."""
    from PIL import Image

    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(min(count, distinct)):
        buffer = io.BytesIO()
        patches = rng.integers(0, 256, (max(6, size[1] // 12), max(6, size[0] // 12), 3), dtype=np.uint8)
        Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        jpegs.append(buffer.getvalue())
    return [jpegs[i % len(jpegs)] for i in range(count)]


def parquet_of(jpegs: list[bytes], train: int, folder: Path) -> Path:
    """A data set in the hub's form, all of these pictures in its test split."""
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"img": Image(), "label": ClassLabel(names=[f"class {i}" for i in range(10)])})
    folder.mkdir()
    for split, n in (("train", min(train, len(jpegs))), ("test", len(jpegs))):
        rows = {"img": [{"bytes": b, "path": None} for b in jpegs[:n]], "label": [i % 10 for i in range(n)]}
        Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def data(bench: Bench, kind: str) -> tuple[Path, list[bytes]]:
    """The data set `cifar` or `photographs`, and its JPEGs."""
    count = bench.sizes["pictures" if kind == "cifar" else "photos"]
    jpegs = made_jpegs(count, *((32, 32), count) if kind == "cifar" else (PHOTO, DISTINCT))
    folder = bench.home / kind
    return folder if folder.exists() else parquet_of(jpegs, 1000, folder), jpegs


def texts(bench: Bench) -> dict[str, Any]:
    """The 80 ImageNet templates with CIFAR-100's names."""
    import open_clip
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES as TEMPLATES
    from text_encoding import CIFAR100  # type: ignore[import-not-found]

    from promptsearch.evaluators.encoding.text_encoder import TextEncoder, Trie, _chunks

    encoder = bench.encoder("fp32")
    own = encoder.text_encoder
    some = [template(c) for template in TEMPLATES for c in CIFAR100][: bench.sizes["texts"]]
    own.encode(some)
    taken = bench.seconds(lambda: own.encode(some), 3)

    def host() -> list[Any]:
        ids, lengths = own._tokens(own._tower, some)
        return [Trie.build(ids[rows], lengths[rows]) for rows in _chunks(ids, lengths, own._budget())]

    on_host, tries = bench.seconds(host, 3), host()
    device = encoder.model.logit_scale.device

    def compute() -> None:
        import torch

        with torch.inference_mode():
            for trie in tries:
                own._tower.features(trie, device)

    compute()
    on_device = bench.seconds(compute, 3)
    classes = CIFAR100[:10]
    peer = bench.seconds(
        lambda: open_clip.build_zero_shot_classifier(
            encoder.model, encoder.tokenizer, classes, TEMPLATES, device=bench.device
        )
    )
    found: dict[str, Any] = {
        "texts": len(some),
        "texts_per_s": len(some) / taken,
        "seconds": taken,
        "seconds_of_tokens_and_tries": on_host,
        "seconds_of_the_tower": on_device,
        "trie_nodes": sum(map(len, tries)),
        "open_clip_texts_per_s": len(classes) * len(TEMPLATES) / peer,
        "bound": "the GPU" if on_device > 0.5 * taken else "Python: tokens, tries and launches",
    }
    found["times_open_clip"] = found["texts_per_s"] / found["open_clip_texts_per_s"]
    sample = some[:: max(1, len(some) // 64)]
    right = TextEncoder(on_cpu(bench), encoder.tokenizer).encode(sample)
    found["largest_difference_from_the_cpu"] = float(np.abs(right - own.encode(sample)).max())
    return found


def on_cpu(bench: Bench) -> Any:
    """The same model in float32 on the CPU."""
    from promptsearch.evaluators import Cache, Encoder, resolve_model

    if "cpu" not in bench.encoders:
        cache = Cache(bench.home / "cpu")
        bench.encoders["cpu"] = Encoder(resolve_model(bench.model, cache, device="cpu"), cache)
    return bench.encoders["cpu"].model


def towers(bench: Bench) -> dict[str, Any]:
    """The picture tower alone, on pictures that are on the device, by the ways in which it can be computed."""
    import torch

    from promptsearch.evaluators.encoding.fused_resnet import FusedResNet, can_fuse
    from promptsearch.evaluators.encoding.picture_encoder import FUSED, PictureEncoder

    rates: dict[str, dict[str, float]] = {}
    found: dict[str, Any] = {"pictures_per_s": rates}
    batch = BATCH if bench.device == "cuda" else 8
    for precision in ("fp32", "bf16"):
        encoder = bench.encoder(precision)
        side = encoder.model.visual.image_size
        side = side if isinstance(side, int) else side[0]
        pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=bench.device)
        rates[precision] = {}
        for way in WAYS:
            if way != WAYS[0] and not can_fuse(encoder.model.visual, bench.device):
                continue
            tower = PictureEncoder(encoder.model, encoder.preprocess, bench.device, precision=precision)
            if way == WAYS[0]:
                tower._fused = None
            elif way == WAYS[1]:
                dtype = getattr(torch, FUSED[precision])
                tower._fused = FusedResNet(encoder.model.visual, dtype, differentiable=True)
            for tuned in (False, True) if bench.device == "cuda" else (False,):
                name = f"{way}{', cudnn.benchmark' if tuned else ''}"
                try:
                    torch.backends.cudnn.benchmark = tuned
                    with torch.inference_mode():
                        start = time.perf_counter()
                        tower._unit_vectors(pixels)
                        bench.wait()
                        found[f"seconds of the first batch, {precision}, {name}"] = time.perf_counter() - start
                        tower._unit_vectors(pixels)
                        repeats = 4 if bench.device == "cuda" else 1

                        def work(tower: Any = tower, pixels: Any = pixels, repeats: int = repeats) -> None:
                            for _ in range(repeats):
                                tower._unit_vectors(pixels)

                        rates[precision][name] = repeats * batch / bench.seconds(work, 2)
                except RuntimeError as e:
                    found[f"failed: {precision}, {name}"] = str(e)[:300]
                finally:
                    torch.backends.cudnn.benchmark = False
        if (fused := bench.encoder(precision).picture_encoder._fused) is not None and hasattr(fused, "stem"):
            convs = [*fused.stem, *(c for b in fused.blocks for c in (b.conv1, b.conv2, b.conv3))]
            found[f"convolutions that cuDNN does not fuse, {precision}"] = sum(
                not getattr(c, "fuses", True) for c in convs
            )
    return found


def tower_rate(bench: Bench, encoder: Any) -> float:
    """Pictures per second of the tower as it is used, on pictures that are on the device."""
    import torch

    own = encoder.picture_encoder
    side = encoder.model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    pixels = torch.randint(0, 256, (own.size, side, side, 3), dtype=torch.uint8, device=bench.device)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(8):
                own._unit_vectors(pixels)

    work()
    return 8 * own.size / bench.seconds(work, 2)


def pictures(bench: Bench) -> dict[str, Any]:
    """From JPEGs in parquet to features in the cache; decoding alone, and the tower alone, to see what bounds it."""
    import torch

    from promptsearch.evaluators import Cache, open_problem
    from promptsearch.evaluators.encoding.device import available_cores
    from promptsearch.evaluators.encoding.picture_loader import CHUNK, by_processes, processes_for

    found: dict[str, Any] = {}
    peer = bench.encoder("fp32")
    halves = peer.picture_encoder._halves
    for kind in ("cifar", "photographs"):
        folder, jpegs = data(bench, kind)
        count = len(jpegs)
        mine: dict[str, Any]
        found[kind] = mine = {
            "pictures": count,
            "bytes_each": statistics.mean(map(len, jpegs)),
            "cores": available_cores(),
        }
        problem = open_problem(bench.model, str(folder), device=bench.device, cache=Cache(bench.home / "decode"))
        stored: Any = problem.source._data.stored_list("test", list(range(count)))  # type: ignore[union-attr]
        few = stored[:100]
        mine["one_thread_decodes_per_s"] = len(few) / bench.seconds(functools.partial(list, map(halves.pixels, few)))
        workers = processes_for(count, CHUNK, halves.pixels(few[0]).nbytes)
        if workers:
            mine["processes"] = workers

            def decode(stored: Any = stored, workers: int = workers) -> None:
                for _ in by_processes([stored], halves, CHUNK, workers, False):
                    pass

            mine["processes_decode_per_s"] = count / bench.seconds(decode)
        for precision in ("fp32", "bf16"):
            encoder = bench.encoder(precision)
            encoder.encode_pictures(few)
            seconds = []
            for turn in range(2):
                cache = Cache(bench.home / f"{kind}-{precision}-{turn}")
                problem = open_problem(bench.model, str(folder), device=bench.device, precision=precision, cache=cache)
                problem.source._encoder = encoder  # type: ignore[union-attr]  # loaded before
                work = functools.partial(problem.source.features, "test", np.arange(count))
                seconds.append(bench.seconds(work))
            mine[f"{precision}_seconds"] = seconds
            mine[f"{precision}_per_s"] = count / min(seconds)
            mine[f"{precision}_tower_alone_per_s"] = tower = tower_rate(bench, encoder)
            decoding = mine.get("processes_decode_per_s", mine["one_thread_decodes_per_s"])
            mine[f"{precision}_bound"] = "decoding" if decoding < tower else "the tower"
        model, some = peer.model, [p.open() for p in stored[: min(count, 4 * BATCH if kind == "cifar" else BATCH)]]

        @torch.no_grad()
        def plain(model: Any = model, some: Any = some) -> None:
            for at in range(0, len(some), BATCH):
                x = torch.stack([peer.preprocess(p) for p in some[at : at + BATCH]]).to(bench.device)
                torch.nn.functional.normalize(model.encode_image(x), dim=-1).cpu()

        mine["open_clip_without_decoding_per_s"] = len(some) / bench.seconds(plain)
        with torch.no_grad():
            x = torch.stack([peer.preprocess(p.open()) for p in few[:24]])
            expected = torch.nn.functional.normalize(on_cpu(bench).encode_image(x), dim=-1).numpy()
        for precision in ("fp32", "bf16"):
            vectors = bench.encoder(precision).encode_pictures(few[:24])
            mine[f"{precision}_smallest_cosine_with_the_cpu"] = float((vectors * expected).sum(axis=1).min())
    return found


def job(bench: Bench) -> dict[str, Any]:
    """The whole `beam` job on the pictures above in a process of its own: nothing cached, then all features."""
    found: dict[str, Any] = {}
    folder, _ = data(bench, "cifar")
    common = ["beam", "--model", bench.model, "--dataset", str(folder), "--shots", "16", "--json"]
    for turn in range(3):
        env = {"PROMPTSEARCH_CACHE": str(bench.home / f"c{turn}"), "PROMPTSEARCH_HOME": str(bench.home / f"h{turn}")}
        own = turn < 2 or bench.device != "cuda"
        for kind, study in (("cold", "one"), ("cached", "two")) if own else (("cold, plain layers", "one"),):
            args = [*common, "--device", bench.device, "--precision", "bf16", "--study", study]
            seconds, phases = timed_command(args, env, COMMAND if own else PLAIN, bench.home)
            found.setdefault(f"{kind}_seconds", []).append(seconds)
            found[f"{kind}_phases"] = phases
    return found


#: The command line, and the same with open_clip's own layers.
COMMAND = "from promptsearch.cli import main; main()"
PLAIN = f"import promptsearch.evaluators.encoding.fused_resnet as f; f._fused_convolutions = lambda _: False; {COMMAND}"


def timed_command(args: list[str], env: dict[str, str], code: str, folder: Path) -> tuple[float, list[str]]:
    """Seconds of a command line, and when it said what."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "-v", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    phases = [f"{time.perf_counter() - start:6.2f} {line.strip()[:160]}" for line in process.stderr]
    if process.wait() != 0:
        raise RuntimeError("\n".join(phases[-5:]))
    return time.perf_counter() - start, phases


def coop(bench: Bench) -> dict[str, Any]:
    """CoOp's training, 16 shots of ten classes: launch by launch, as one graph, and on the CPU."""
    from promptsearch.search.gradient import CoOpOptions, FewShots, Schedule, TextTower
    from promptsearch.search.gradient import coop as _  # noqa: F401
    from promptsearch.search.gradient import coop as learn

    module: Any = sys.modules["promptsearch.search.gradient.coop"]
    encoder = bench.encoder("fp32")
    names = [f"class {i}" for i in range(10)]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((160, encoder.info["embed_dim"])).astype(np.float32)
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), np.arange(160) % 10
    graphed = module.GraphedStep
    captured: list[Any] = []

    def kept(*args: Any) -> Any:
        captured.append(graphed(*args))
        return captured[-1]

    def run(model: Any, epochs: int) -> Any:
        tower = TextTower(model, encoder.tokenizer)
        return learn(tower, FewShots(names, x, y, 100.0), CoOpOptions(schedule=Schedule(epochs)), 0)

    found: dict[str, Any] = {}
    epochs = bench.sizes["epochs"]
    module.GraphedStep = lambda loss, tensors: loss
    run(encoder.model, 1)
    few = min(epochs, 10)
    found["plain_ms_per_step"] = bench.seconds(lambda: run(encoder.model, few)) / (5 * few) * 1000
    plain = run(encoder.model, 2)
    module.GraphedStep = kept
    ours = run(encoder.model, 2)
    found["captured"] = captured[-1].captured
    found["seconds_of_the_training"] = bench.seconds(lambda: run(encoder.model, epochs))
    found["epochs"] = epochs
    found["ms_per_step"] = found["seconds_of_the_training"] / (5 * epochs) * 1000
    module.GraphedStep = graphed
    expected = run(on_cpu(bench), 2)
    found["smallest_cosine_with_plain"] = float((ours.class_weights * plain.class_weights).sum(axis=1).min())
    found["smallest_cosine_with_the_cpu"] = float((ours.class_weights * expected.class_weights).sum(axis=1).min())
    found["largest_difference_of_losses_from_the_cpu"] = float(np.abs(np.subtract(ours.losses, expected.losses)).max())
    found["bound"] = "the GPU: one launch a step" if found["captured"] else "launches from Python"
    return found


def vpt(bench: Bench) -> dict[str, Any]:
    """A border of learnt pixels on the picture tower: milliseconds of a step of 32 pictures."""
    import torch

    from promptsearch.evaluators.encoding.fused_resnet import differentiable_tower
    from promptsearch.search.gradient import FewShots, VptOptions, learn_visual_prompt, vpt_schedule

    encoder = bench.encoder("fp32")
    side = encoder.model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    pixels = torch.randn(64, 3, side, side, generator=torch.Generator().manual_seed(0))
    weights = np.eye(10, encoder.info["embed_dim"], dtype=np.float32)
    found = {}
    for name, tower in (
        ("as it is", differentiable_tower(encoder.model, bench.device)),
        ("open_clip's own layers", encoder.model.encode_image),
    ):

        def run(epochs: int, tower: Any = tower) -> Any:
            options = VptOptions("border", schedule=vpt_schedule(VptOptions(), epochs))
            shots = FewShots([], pixels, np.arange(64) % 10, 100.0)
            return learn_visual_prompt(encoder.model, weights, shots, options, 0, tower=tower)

        run(1)
        found[f"ms_per_step, {name}"] = bench.seconds(functools.partial(run, 3)) / 6 * 1000
    return found


PARTS = {"texts": texts, "pictures": pictures, "job": job, "coop": coop, "vpt": vpt, "towers": towers}


@click.command()
@click.option("--model", default="RN50:random", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--pictures", "count", default=10_000, show_default=True, type=click.IntRange(1000))
@click.option("--photos", default=3000, show_default=True, type=click.IntRange(100))
@click.option("--texts", "lines", default=8000, show_default=True, type=click.IntRange(80))
@click.option("--epochs", default=200, show_default=True, type=click.IntRange(2))
@click.option("--limit", default=240.0, show_default=True, help="Seconds after which no other part is begun.")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="These parts; all by default.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    model: str,
    device: str,
    count: int,
    photos: int,
    lines: int,
    epochs: int,
    limit: float,
    only: tuple[str, ...],
    path: Path | None,
) -> None:
    """What a GPU gains, part by part."""
    started = time.perf_counter()
    import open_clip
    import torch

    result: dict[str, Any] = {"seconds_of_imports": time.perf_counter() - started}
    sizes = {"pictures": count, "photos": photos, "texts": lines, "epochs": epochs}
    result |= {
        "model": model,
        "machine": machine(device),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, device, Path(folder), sizes, result, {})
        result["matrix_product_tflops"] = {
            str(dtype): product_speed(dtype, device, 8192 if device == "cuda" else 512) / 1e12
            for dtype in (torch.float32, torch.bfloat16)
        }
        for name, part in PARTS.items():
            if (only and name not in only) or time.perf_counter() - started > limit:
                continue
            start = time.perf_counter()
            try:
                result[name] = part(bench)
            except Exception:  # the other parts are worth having
                result[name] = {"failed": traceback.format_exc()}
            result[name]["seconds_of_this_part"] = time.perf_counter() - start
            click.echo(f"== {name}\n{json.dumps(result[name], indent=1)}")
            result["peak_memory_gb"], result["seconds"] = peak_memory(), time.perf_counter() - started
            if device == "cuda":
                result["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            if path is not None:
                path.write_text(json.dumps(result, indent=1) + "\n")
    click.echo(f"{result['machine']}: {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
