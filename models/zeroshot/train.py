"""Train the zero-shot model, a small CLIP that sees no picture of CIFAR-10, CIFAR-100 or PACS.

    python -m promptsearch.models.zeroshot.phrases --data ../shared/train32 --encoder FOLDER --out lessons.npz
    python -m promptsearch.models.zeroshot.train --data ../shared/train32 --lessons lessons.npz --steps 15000

The loss has three parts. CLIP's contrastive loss (Radford et al. 2021, fig. 3) has soft targets: a caption is right for
every picture in the batch for which its concept and condition are true. The text tower regresses a sentence encoder's
vectors of phrases, so that words that no picture shows get vectors near related ones. The picture tower is trained to
give each picture a vector near the sentence encoder's vector of its class, so that both towers agree.

The same command resumes an interrupted training from OUT/checkpoint.pt. All randomness comes from (seed, step), so an
interruption changes nothing except rounding that the hardware itself does not reproduce.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from promptsearch.models.zeroshot.captions import CONDITIONS, fill
from promptsearch.models.zeroshot.lessons import Lessons, draw_captions, read_lessons, tokenize
from promptsearch.models.zeroshot.pictures import SIDE, apply_condition, augment, read_classes, read_pictures

Tensor = torch.Tensor
HERE = Path(__file__).resolve().parent
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
LOG, CHECKPOINT = "train_log.jsonl", "checkpoint.pt"
LOG_EVERY, CHECKPOINT_EVERY = 500, 60.0  # in steps; in seconds


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of the training, apart from the number of steps."""

    seed: int = 0
    batch: int = 1024
    lr: float = 2e-3
    warm_up: int = 300  # steps
    weight_decay: float = 0.1
    average: float = 0.9995  # decay of the moving average of the weights, which is the resulting model
    largest_scale: float = 30.0  # largest logit scale; larger ones fit the seen classes better and unseen ones worse
    teach: float = 3.0  # weight of the phrases' regression
    anchor: float = 0.5  # weight of the loss between pictures and the vectors of their classes
    anchor_scale: float = 15.0
    plain: float = 0.4  # share of pictures without a condition
    kinds: float = 0.25  # share of captions that name a kind instead of the class
    balance: float = 0.4  # a class of n pictures is drawn in proportion to n ** (1 - balance)
    variants: int = 6  # number of captions of a concept under a condition


@dataclass
class Batch:
    """The batch of one training step, on the device."""

    pictures: Tensor  # (B, 3, H, W), the model's input
    tokens: Tensor  # (2 B, T): the pictures' captions, then phrases
    labels: Tensor  # (B,)
    named: Tensor  # (B,) the concept that each caption names
    conditions: Tensor  # (B,)
    phrases: Tensor  # (B,)

    def copy_(self, other: Batch) -> None:
        """Copy another batch into this batch's tensors, without moving them in memory."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.copy_(theirs, non_blocking=True)


class Preparation:
    """Converts pictures (B, 3, 32, 32) in [0, 1] to the model's input, as open_clip's preprocessing does.

    Bicubic resizing is linear in rows and in columns, so it is computed as two products with one matrix.
    """

    def __init__(self, config: dict[str, Any], device: torch.device) -> None:
        side = config["model_cfg"]["vision_cfg"]["image_size"]
        one_hot = torch.eye(SIDE).view(1, 1, SIDE, SIDE)
        matrix = F.interpolate(one_hot, size=(side, SIDE), mode="bicubic", antialias=True)[0, 0]  # (side, 32)
        self.matrix = matrix.to(device)
        mean, std = (torch.tensor(config["preprocess_cfg"][key]).view(3, 1, 1).to(device) for key in ("mean", "std"))
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor) -> Tensor:
        """Return the resized and normalised pictures."""
        x = torch.matmul(torch.matmul(self.matrix, x), self.matrix.T).clamp(0, 1)  # (B, 3, side, side)
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class Material:
    """Holds pictures, captions and phrases on the device, and draws batches from them.

    Args:
        data: The folder of the data sets.
        lessons: Concepts and phrases.
        config: open_clip's configuration of the model.
        settings: The hyperparameters.
        device: The device on which batches are made.
        limit: Largest number of pictures of each data set; None for all.
    """

    def __init__(
        self,
        data: Path,
        lessons: Lessons,
        config: dict[str, Any],
        settings: Settings,
        device: torch.device,
        limit: int | None = None,
    ) -> None:
        workers = os.cpu_count() or 1
        self.lessons, self.settings, self.device = lessons, settings, device
        # Start the processes that decode and tokenize first, because a process that uses a GPU should not fork.
        pictures, labels = read_pictures(data, workers, limit)
        length = config["model_cfg"]["text_cfg"]["context_length"]
        self.table = draw_captions(lessons.concepts, settings.variants, settings.seed)
        captions = tokenize(self.table.texts, length, workers)
        phrases = tokenize(lessons.phrases, length, workers)
        self.captions, self.phrases = (torch.from_numpy(rows).to(device) for rows in (captions, phrases))
        out = held_out(labels, settings.seed)
        inside = np.setdiff1d(np.arange(len(labels)), out)
        self.held_out = torch.from_numpy(pictures[out]), labels[out]
        self.pictures, self.labels = torch.from_numpy(pictures[inside]).to(device), labels[inside]
        self.prepare = Preparation(config, device)
        self.kinds = [lessons.kinds(label) for label in range(len(lessons.own))]
        frequency = np.bincount(lessons.own[self.labels], minlength=len(lessons.concepts))[lessons.own[self.labels]]
        chance = np.cumsum(frequency ** -float(settings.balance))
        self.chance = chance / chance[-1]
        self.shares = np.full(len(CONDITIONS), (1 - settings.plain) / (len(CONDITIONS) - 1))
        self.shares[CONDITIONS.index("plain")] = settings.plain

    def on_device(self, values: np.ndarray) -> Tensor:
        """Move small integers to the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)

    def draw(self, step: int) -> Batch:
        """Draw the batch of one step."""
        size, lessons = self.settings.batch, self.lessons
        rng = np.random.default_rng([self.settings.seed, 2, step])
        gen = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        index = np.searchsorted(self.chance, rng.random(size)).clip(0, len(self.labels) - 1)
        conditions = np.sort(rng.choice(len(CONDITIONS), size=size, p=self.shares))
        x = augment(self.pictures[self.on_device(index)].float() / 255, gen)
        cuts = np.searchsorted(conditions, np.arange(len(CONDITIONS) + 1))
        parts = [apply_condition(c, x[cuts[i] : cuts[i + 1]], rng, gen) for i, c in enumerate(CONDITIONS)]
        labels = self.labels[index]
        named = lessons.own[labels].copy()
        for at in np.flatnonzero(rng.random(size) < self.settings.kinds):
            kinds = self.kinds[labels[at]]
            if len(kinds):
                named[at] = kinds[int(rng.integers(len(kinds)))]
        rows = self.table.first[named, conditions] + rng.integers(0, self.table.count[conditions])
        phrases = rng.integers(0, len(lessons.phrases), size)
        names = rng.random(size) < 0.2  # draw the names of concepts more often than in proportion to their number
        phrases[names] %= lessons.names
        tokens = torch.cat([self.captions[self.on_device(rows)], self.phrases[self.on_device(phrases)]])
        ids = [self.on_device(values) for values in (labels, named, conditions, phrases)]
        return Batch(self.prepare(torch.cat(parts)), tokens, *ids)


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return sorted indices of pictures held out for the log: a random fiftieth of each class of at least a hundred."""
    rng = np.random.default_rng([seed, 3])
    large = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [rng.permutation(rows)[: len(rows) // 50] for rows in large if len(rows) >= 100]
    return np.sort(np.concatenate([*chosen, np.array([], int)]))


class Objective(torch.nn.Module):
    """Computes the loss of a batch.

    Args:
        lessons: Says which concepts are true of a label, and has the phrases' vectors.
        settings: The weights of the loss's parts.
    """

    truth: Tensor
    vectors: Tensor
    anchors: Tensor
    place: Tensor
    others: Tensor

    def __init__(self, lessons: Lessons, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        shown = np.unique(lessons.own)  # the concepts of the labels
        row = {phrase: i for i, phrase in enumerate(lessons.phrases[: lessons.names])}
        anchors = lessons.vectors[[row[lessons.concepts[k].names[0]] for k in shown]]
        own = np.searchsorted(shown, lessons.own)
        # the other concepts that are true of a label, which do not count as wrong
        others = lessons.truth[:, shown].copy()
        others[np.arange(len(own)), own] = False
        self.register_buffer("truth", torch.from_numpy(lessons.truth))
        self.register_buffer("vectors", torch.from_numpy(lessons.vectors))
        self.register_buffer("anchors", torch.from_numpy(anchors))  # (S, D)
        self.register_buffer("place", torch.from_numpy(own))  # (L,)
        self.register_buffer("others", torch.from_numpy(others))  # (L, S)

    def forward(self, model: Any, batch: Batch, half: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return CLIP's loss, the phrases' 1 - cosine and the anchors' cross-entropy, each a mean over the batch."""
        kind = batch.pictures.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=half, cache_enabled=False):
            v = model.encode_image(batch.pictures)
            t = model.encode_text(batch.tokens)
        v, t = F.normalize(v.float(), dim=-1), F.normalize(t.float(), dim=-1)
        captions, phrases = t.chunk(2)  # (B, D) each
        true = self.truth[batch.labels][:, batch.named]  # (B, B)
        true = (true & (batch.conditions[:, None] == batch.conditions[None, :])).float()
        logits = model.logit_scale.exp() * v @ captions.T  # (B, B)
        by_picture = F.cross_entropy(logits, true / true.sum(1, keepdim=True))
        by_caption = F.cross_entropy(logits.T, true.T / true.sum(0)[:, None])
        taught = 1 - (phrases * self.vectors[batch.phrases]).sum(-1).mean()
        near = self.settings.anchor_scale * v @ self.anchors.T  # (B, S)
        near = near.masked_fill(self.others[batch.labels], -1e4)
        anchored = F.cross_entropy(near, self.place[batch.labels])
        return (by_picture + by_caption) / 2, taught, anchored


class Trainer:
    """Takes steps of AdamW and averages the weights; on a GPU, a step is captured once as a CUDA graph and replayed.

    Args:
        model: open_clip's CLIP, on its device.
        objective: The loss.
        settings: The hyperparameters.
        graph: Whether to replay the step as a CUDA graph.
    """

    RECORD_AFTER = 12  # number of steps without a graph first, in which the libraries choose their kernels

    def __init__(self, model: Any, objective: Objective, settings: Settings, graph: bool) -> None:
        self.model, self.objective, self.settings, self.graph = model, objective, settings, graph
        self.average = copy.deepcopy(model)
        self.device = next(model.parameters()).device
        on_gpu = self.device.type == "cuda"
        self.half = on_gpu
        decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
        self.lr = torch.tensor(settings.lr, device=self.device) if on_gpu else settings.lr
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.98), capturable=on_gpu)
        pairs = zip(self.average.state_dict().values(), model.state_dict().values(), strict=True)
        self.pairs = [(mine, theirs) for mine, theirs in pairs if mine.dtype.is_floating_point]
        self.done = 0  # number of steps taken in this process
        self.recorded: Any = None
        self.batch: Batch | None = None
        self.losses: tuple[Tensor, ...] = ()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def learn(self, batch: Batch) -> tuple[Tensor, ...]:
        """Compute the loss of a batch and update the weights."""
        losses = self.objective(self.model, batch, self.half)
        total = losses[0] + self.settings.teach * losses[1] + self.settings.anchor * losses[2]
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(self.settings.largest_scale))
        return tuple(part.detach() for part in losses)

    def step(self, batch: Batch, number: int, lr: float) -> None:
        """Train on one batch, and update the averaged weights."""
        self.set_lr(lr)
        if self.recorded is not None and self.batch is not None:
            self.batch.copy_(batch)
            self.recorded.replay()
        elif self.graph and self.done >= self.RECORD_AFTER:
            self.record(batch)
        else:
            self.eager(batch)
        decay = min(self.settings.average, (1 + number) / (10 + number))
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in self.pairs], [theirs for _, theirs in self.pairs], 1 - decay)
        self.done += 1

    def eager(self, batch: Batch) -> None:
        """Take a step without a graph, on a side stream if a graph will be captured, as capturing requires."""
        self.optimizer.zero_grad(set_to_none=True)
        if not self.graph:
            self.losses = self.learn(batch)
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.losses = self.learn(batch)
        torch.cuda.current_stream().wait_stream(side)

    def record(self, batch: Batch) -> None:
        """Capture the step as a graph, and take it once."""
        self.batch = Batch(*(t.clone(memory_format=torch.preserve_format) for t in vars(batch).values()))
        self.optimizer.zero_grad(set_to_none=True)
        self.recorded = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        before = float(self.losses[0])
        with torch.cuda.graph(self.recorded):
            self.losses = self.learn(self.batch)
        self.recorded.replay()  # capturing alone computes nothing
        if not abs(float(self.losses[0]) - before) < 2:
            raise RuntimeError(f"the recorded step has loss {float(self.losses[0])} after {before}: use --no-graph")

    def state(self) -> dict[str, Any]:
        """Return the state from which another process can resume."""
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr


class Schedule:
    """The number of steps and the learning rate of each: a linear warm-up, then half a cosine.

    Args:
        steps: Number of steps, or None to fit them into `seconds`.
        seconds: How long this process may train.
        settings: The largest learning rate and the length of the warm-up.
        at: The first step of this process.
    """

    MEASURE = (100, 200)  # first and last of this process's steps that are timed; a new training is in its warm-up then

    def __init__(self, steps: int | None, seconds: float | None, settings: Settings, at: int) -> None:
        self.settings, self.seconds, self.first = settings, seconds, at
        self.total, self.open = steps, seconds is not None
        self.began = self.marked = time.monotonic()

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        warm_up = self.settings.warm_up
        if step < warm_up or self.total is None:
            return self.settings.lr * min(1, (step + 1) / warm_up)
        share = min(1, (step - warm_up) / max(1, self.total - warm_up))
        return self.settings.lr * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-6

    def finished(self, step: int, wait: Callable[[], None]) -> bool:
        """Return whether the training is finished before `step`; after the timed steps, also set the number of steps.

        Args:
            step: The next step.
            wait: Waits for the device, before the clock is read.
        """
        if self.open and self.seconds is not None and step - self.first in self.MEASURE:
            wait()
            now = time.monotonic()
            if step - self.first == self.MEASURE[1]:
                each = (now - self.marked) / (self.MEASURE[1] - self.MEASURE[0])
                self.total = step + max(0, int(0.97 * (self.seconds - (now - self.began)) / each))
                self.open = False
                click.echo(f"{1000 * each:.1f} ms a step, {self.total} steps in all", err=True)
            self.marked = now
        late = self.seconds is not None and time.monotonic() - self.began > self.seconds
        return late or (self.total is not None and step >= self.total)


@torch.no_grad()
def measure(model: Any, material: Material, config: dict[str, Any]) -> dict[str, float]:
    """Measure the accuracy on held-out TinyImageNet pictures, plain and under two conditions.

    Returns:
        The accuracy in percent by "condition: template", for a plain template and one that names the condition.
    """
    pictures, labels = material.held_out
    wanted = [i for i, (dataset, _) in enumerate(material.lessons.classes) if dataset == "tiny_imagenet"]
    keep = np.isin(labels, wanted)
    if not keep.any():
        return {}
    answers = np.searchsorted(wanted, labels[keep])
    names = [material.lessons.classes[i][1] for i in wanted]
    length = config["model_cfg"]["text_cfg"]["context_length"]
    tests = {"plain": "a photo of a {}.", "dark": "a dark photo of a {}.", "sketch": "a sketch of a {}."}
    model.eval()
    result = {}
    for condition, fitting in tests.items():
        rng, gen = np.random.default_rng(1), torch.Generator(material.device).manual_seed(1)
        rows = []
        for part in pictures[torch.from_numpy(keep)].split(250):
            x = apply_condition(condition, part.to(material.device).float() / 255, rng, gen)
            rows.append(F.normalize(model.encode_image(material.prepare(x)), dim=-1))
        v = torch.cat(rows)
        for template in dict.fromkeys(["a photo of a {}.", fitting]):
            tokens = material.on_device(tokenize([fill(template, name) for name in names], length, 1))
            t = F.normalize(model.encode_text(tokens), dim=-1)
            hits = (v @ t.T).argmax(1).cpu().numpy() == answers
            result[f"{condition}: {template}"] = round(100 * float(hits.mean()), 2)
    return result


def save_weights(model: Any, out: Path) -> None:
    """Write the weights in float16, in the form that open_clip's `local-dir:` opens."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, str(out / WEIGHTS))


def save_checkpoint(trainer: Trainer, step: int, total: int | None, about: dict[str, Any], out: Path) -> None:
    """Write the state of the training; if that is interrupted, the previous state is kept."""
    part = out / (CHECKPOINT + ".part")
    torch.save({"step": step, "total": total, "about": about} | trainer.state(), part)
    part.replace(out / CHECKPOINT)


def build_model(config: dict[str, Any], device: torch.device) -> Any:
    """Build the open_clip `CLIP` of a configuration, with random weights and the picture tower channels-last."""
    from open_clip.model import CLIP

    model = CLIP(**config["model_cfg"]).to(device)
    model.visual.to(memory_format=torch.channels_last)
    return model


def resume(trainer: Trainer, out: Path, about: dict[str, Any]) -> tuple[int, int | None]:
    """Load OUT's checkpoint if there is one; return the next step and the number of steps.

    Raises:
        click.UsageError: The checkpoint belongs to another training.
    """
    if not (out / CHECKPOINT).exists():
        (out / LOG).write_text("")
        return 0, None
    state = torch.load(out / CHECKPOINT, map_location=trainer.device, weights_only=True)
    different = [key for key in about if state["about"].get(key) != about[key]]
    if different:
        names = ", ".join(different)
        raise click.UsageError(f"{out / CHECKPOINT}: it belongs to a training with another {names}; delete it first")
    trainer.load(state)
    click.echo(f"going on at step {state['step']}", err=True)
    return state["step"], state["total"]


def run(trainer: Trainer, material: Material, schedule: Schedule, at: int, about: dict[str, Any], out: Path) -> None:
    """Train from step `at` on, write the log and checkpoints, and at the end the averaged weights."""
    wait = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    saved, step = time.monotonic(), at
    while not schedule.finished(step, wait):
        trainer.model.train()
        trainer.step(material.draw(step), step, schedule.lr(step))
        step += 1
        if step % LOG_EVERY == 0:
            clip, taught, anchored = (round(float(part), 4) for part in trainer.losses)
            row = {"step": step, "of": schedule.total, "seconds": round(time.monotonic() - schedule.began, 1)}
            row |= {"clip": clip, "taught": taught, "anchored": anchored}
            row |= {"scale": round(float(trainer.model.logit_scale.detach().exp()), 2)}
            if step % (4 * LOG_EVERY) == 0:
                row |= measure(trainer.average, material, about["config"])
            write_row(row, out)
        if time.monotonic() - saved > CHECKPOINT_EVERY:
            save_checkpoint(trainer, step, schedule.total, about, out)
            saved = time.monotonic()
    save_checkpoint(trainer, step, schedule.total, about, out)
    write_row({"step": step, "of": schedule.total} | measure(trainer.average, material, about["config"]), out)
    save_weights(trainer.average, out)


def write_row(row: dict[str, Any], out: Path) -> None:
    """Append a row to the log in OUT, and print it."""
    with (out / LOG).open("a") as log:
        print(json.dumps(row), file=log)
    click.echo(json.dumps(row), err=True)


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--lessons", "lessons_file", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE, show_default=False)
@click.option("--steps", type=click.IntRange(min=1), help="Number of steps, unless --seconds is given.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    help="Seconds that this process may train; the number of steps is chosen to fit.",
)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default="cuda if there is one")
@click.option(
    "--graph/--no-graph",
    default=True,
    show_default=True,
    help="On a GPU, capture the step as a CUDA graph and replay it.",
)
@click.option("--batch", default=Settings.batch, show_default=True)
@click.option("--seed", default=Settings.seed, show_default=True)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Largest number of pictures of each data set, for a trial run."
)
def main(
    data: Path,
    lessons_file: Path,
    out: Path,
    steps: int | None,
    seconds: float | None,
    **options: Any,
) -> None:
    """Train the zero-shot model and write open_clip_model.safetensors (float16) and train_log.jsonl to OUT."""
    began = time.monotonic()
    if (steps is None) == (seconds is None):
        raise click.UsageError("give --steps or --seconds, one of the two")
    device = torch.device(options["device"])
    settings = Settings(seed=options["seed"], batch=options["batch"])
    config = json.loads((HERE / CONFIG).read_text())
    lessons = read_lessons(lessons_file)
    if lessons.classes != read_classes(data):
        raise click.UsageError(f"{lessons_file}: made for other data sets than {data} holds; make it again")
    out.mkdir(parents=True, exist_ok=True)
    # open_clip's initialisation has no generator argument; this script is its own process
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = True
    material = Material(data, lessons, config, settings, device, options["limit"])
    counts = f"{len(material.labels)} pictures, {len(material.captions)} captions, {len(material.phrases)} phrases"
    click.echo(counts, err=True)
    objective = Objective(lessons, settings).to(device)
    trainer = Trainer(build_model(config, device), objective, settings, options["graph"] and device.type == "cuda")
    about = asdict(settings) | {"config": config, "pictures": len(material.labels), "phrases": len(lessons.phrases)}
    at, total = resume(trainer, out, about)
    click.echo(f"ready after {time.monotonic() - began:.0f} s", err=True)
    left = None if seconds is None else seconds - (time.monotonic() - began)
    run(trainer, material, Schedule(steps or total, left, settings, at), at, about, out)
    click.echo(f"{out / WEIGHTS}: {(out / WEIGHTS).stat().st_size / 1e6:.1f} MB", err=True)


if __name__ == "__main__":
    main()
