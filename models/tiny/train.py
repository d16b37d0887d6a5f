"""Trains `tiny`, the embedded CLIP, on CIFAR-10's training pictures.

    python -m promptsearch.models.tiny.train --data ../shared/cifar10

300 pictures per class are held out (`held_out`); all measurements use them, never the test split. The loss is CLIP's
(Radford et al. 2021, fig. 3) with soft targets: all captions of the same class and condition count as correct for a
picture.
"""

from __future__ import annotations

import copy
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from promptsearch.models.tiny.captions import CONDITIONS, SYNONYMS, caption, fill
from promptsearch.models.tiny.pictures import apply_condition, flip_and_shift

HELD_OUT_PER_CLASS = 300
HERE = Path(__file__).resolve().parent
WEIGHTS = "open_clip_model.safetensors"


def held_out(labels: np.ndarray) -> np.ndarray:
    """Return the sorted indices of the pictures that are held out from training, 300 of each class.

    Args:
        labels: (N,) class indices of the training split.
    """
    chosen = []
    for label in range(int(labels.max()) + 1):
        rng = np.random.default_rng([2026, label])
        chosen.append(rng.permutation(np.flatnonzero(labels == label))[:HELD_OUT_PER_CLASS])
    return np.sort(np.concatenate(chosen))


def load_pictures(folder: Path, split: str = "train") -> tuple[torch.Tensor, np.ndarray]:
    """Read one split of CIFAR-10 from parquet files in the Hugging Face hub's format.

    Args:
        folder: Folder of the files.
        split: "train" or "test".

    Returns:
        (N, 3, 32, 32) pictures as bytes and (N,) labels.
    """
    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise click.UsageError(
            f"{folder}: no {split}-*.parquet; download CIFAR-10 from the Hugging Face hub (uoft-cs/cifar10)"
        )
    pictures, labels = [], []
    for file in files:
        table = pq.read_table(file)
        for cell in table.column("img").to_pylist():
            pictures.append(np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")))
        labels.append(table.column("label").to_numpy())
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), np.concatenate(labels)


def build_model(config: dict[str, Any]) -> Any:
    """Build open_clip's `CLIP` from the content of open_clip_config.json, with a channels-last picture tower."""
    from open_clip.model import CLIP

    model = CLIP(**config["model_cfg"])
    model.visual.to(memory_format=torch.channels_last)
    return model


def prepare(x: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Resize and normalise pictures as open_clip's preprocessing does.

    Args:
        x: (B, 3, 32, 32) pictures with values in [0, 1].
        config: Content of open_clip_config.json.

    Returns:
        (B, 3, 64, 64) model inputs.
    """
    side = config["model_cfg"]["vision_cfg"]["image_size"]
    x = F.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(config["preprocess_cfg"][k])[:, None, None] for k in ("mean", "std"))
    return ((x - mean) / std).to(memory_format=torch.channels_last)


@torch.no_grad()
def class_weights(model: Any, tokenizer: Any, templates: list[str]) -> torch.Tensor:
    """Return class weights (C, D): the normalised mean of the unit text vectors of the filled templates."""
    rows = []
    for names in SYNONYMS:
        v = F.normalize(model.encode_text(tokenizer([fill(t, names[0]) for t in templates])), dim=-1)
        rows.append(F.normalize(v.mean(0), dim=-1))
    return torch.stack(rows)


@torch.no_grad()
def measure(
    model: Any, tokenizer: Any, pictures: torch.Tensor, labels: np.ndarray, config: dict[str, Any]
) -> dict[str, float]:
    """Return the held-out accuracy (in %) under three conditions, with a plain template and one for the condition."""
    model.eval()
    result = {}
    tests = {"plain": "a photo of a {}.", "dark": "a dark photo of the {}.", "pixelated": "a pixelated photo of a {}."}
    for name, fitting in tests.items():
        gen = torch.Generator().manual_seed(1)
        x = pictures.float() / 255
        if name != "plain":
            x = torch.cat([apply_condition(name, part, gen) for part in x.split(100)])
        v = torch.cat([F.normalize(model.encode_image(prepare(part, config)), dim=-1) for part in x.split(500)])
        for template in dict.fromkeys(["a photo of a {}.", fitting]):
            hits = (v @ class_weights(model, tokenizer, [template]).T).argmax(1).numpy() == labels
            result[f"{name}: {template}"] = round(float(hits.mean()) * 100, 2)
    model.train()
    return result


def contrastive_loss(model: Any, x: torch.Tensor, tokens: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Compute CLIP's symmetric cross-entropy with soft targets.

    Args:
        model: The CLIP model.
        x: (B, 3, H, W) model inputs.
        tokens: (B, L) tokens of their captions.
        group: (B,) index of each picture's combination of class and condition; captions with the same index share
            the target probability.
    """
    target = (group[:, None] == group[None, :]).float()
    target = target / target.sum(1, keepdim=True)  # (B, B), symmetric
    v = F.normalize(model.encode_image(x), dim=-1)
    t = F.normalize(model.encode_text(tokens), dim=-1)
    logits = model.logit_scale.exp() * v @ t.T  # (B, B)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def follow(average: Any, model: Any, decay: float) -> None:
    """Update the exponential moving average of a model's weights and batch-norm statistics."""
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


@dataclass(frozen=True)
class Phase:
    """A phase of training with one cycle of the learning rate."""

    epochs: int
    lr: float  # the largest
    warm_up: float  # share of the steps in which the learning rate rises
    plain: float  # share of pictures without a condition
    seed: int


#: The second phase starts from the averaged weights of the first and has more unchanged pictures.
PHASES = (Phase(24, 1.5e-3, 0.15, 0.28, 0), Phase(7, 7e-4, 0.1, 0.45, 1))
BATCH = 256


def run_phase(
    phase: Phase, start: Path | None, out: Path, pictures: torch.Tensor, labels: np.ndarray, config: dict[str, Any]
) -> None:
    """Train for one phase; after every epoch append to the log and save the averaged weights."""
    from open_clip import SimpleTokenizer

    torch.manual_seed(phase.seed)  # open_clip's initialisation takes no generator; this script is its own process
    gen = torch.Generator().manual_seed(phase.seed)
    rng = np.random.default_rng(phase.seed)
    tokenizer = SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    out_index = held_out(labels)
    in_index = np.setdiff1d(np.arange(len(labels)), out_index)
    model = build_model(config)
    if start:
        model.load_state_dict(load_file(start))
    average = copy.deepcopy(model)  # exponential moving average of the weights: the model that is saved

    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.lr, betas=(0.9, 0.98))
    steps = phase.epochs * (len(in_index) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.lr, total_steps=steps, pct_start=phase.warm_up)
    shares = np.full(len(CONDITIONS), (1 - phase.plain) / (len(CONDITIONS) - 1))
    shares[CONDITIONS.index("plain")] = phase.plain
    began, step = time.time(), 0
    for epoch in range(phase.epochs):
        order = rng.permutation(in_index)
        total = 0.0
        for at in range(0, len(order) - BATCH + 1, BATCH):
            index = order[at : at + BATCH]
            condition = np.sort(rng.choice(len(CONDITIONS), size=BATCH, p=shares))
            x = flip_and_shift(pictures[index].float() / 255, gen)
            x = torch.cat([apply_condition(CONDITIONS[c], x[condition == c], gen) for c in np.unique(condition)])
            tokens = tokenizer([caption(int(y), int(c), rng) for y, c in zip(labels[index], condition, strict=True)])
            group = torch.from_numpy(labels[index] * len(CONDITIONS) + condition)
            loss = contrastive_loss(model, prepare(x, config), tokens, group)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=np.log(100))
            follow(average, model, min(0.998, (1 + step) / (10 + step)))
            total += float(loss.detach())
            step += 1
        row = {"epoch": epoch + 1, "minutes": round((time.time() - began) / 60, 1)}
        row["loss"] = round(total / (len(order) // BATCH), 4)
        row |= measure(average, tokenizer, pictures[out_index], labels[out_index], config)
        click.echo(json.dumps(row))
        with (out / "train_log.jsonl").open("a") as log:
            print(json.dumps(row), file=log)
        state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in average.state_dict().items()}
        save_file(state, str(out / WEIGHTS))


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE, show_default=False)
def main(data: Path, out: Path) -> None:
    """Train `tiny` and write open_clip_model.safetensors (float16) and train_log.jsonl to OUT."""
    config = json.loads((HERE / "open_clip_config.json").read_text())
    pictures, labels = load_pictures(data)
    (out / "train_log.jsonl").write_text("")
    for number, phase in enumerate(PHASES):
        run_phase(phase, out / WEIGHTS if number else None, out, pictures, labels, config)


if __name__ == "__main__":
    main()
