"""`promptsearch vpt`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands.options import output_options, problem_options, run_options

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from promptsearch.commands.learning import Setting, Trained

BATCH = 64


@click.command()
@problem_options
@run_options
@click.option("--kind", default="border", show_default=True, help="border (any model), shallow or deep (ViT tokens).")
@click.option("--border", type=int, help="Its width in pixels of the preprocessed picture; by default 30/224 of it.")
@click.option("--tokens", type=int, default=10, show_default=True, help="Learnt tokens, per layer where deep.")
@click.option("--template", default="a photo of a {}.", show_default=True, help="Frozen: what classifies.")
@click.option("--epochs", type=int, default=100, show_default=True, help="Passes over the few-shot pictures.")
@click.option("--rate", type=float, help="Learning rate; by default 5 for a border, 0.0125 for tokens, at batch 32.")
@click.option("--batch", type=int, default=32, show_default=True, help="Pictures per step.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write what was learnt (safetensors).")
@output_options
def vpt(
    kind: str,
    border: int | None,
    tokens: int,
    template: str,
    epochs: int,
    rate: float | None,
    batch: int,
    save: Path | None,
    **options: Any,
) -> None:
    """Learn a visual prompt: a border of pixels, or tokens in a ViT.  Needs pictures, not only their features.

    The same command again resumes a training that was cut off, and shows one that is finished.
    """
    from promptsearch.banks import Template
    from promptsearch.commands.learning import run_learning
    from promptsearch.search.gradient import VptOptions, vpt_schedule

    text = Template(template)
    schedule = vpt_schedule(VptOptions(kind), epochs, rate, batch)
    learnt = VptOptions(kind, border, tokens, schedule)

    def train(setting: Setting) -> Trained:
        return _learn(setting, learnt, text)

    own: dict[str, Any] = {"kind": kind, "border": border, "tokens": tokens, "template": str(text)}
    own |= {"epochs": epochs, "rate": schedule.rate, "batch": batch}
    run_learning("vpt", own, train, save=save, **options)


def _learn(setting: Setting, options: Any, template: str) -> Trained:
    import torch

    from promptsearch.banks import PromptSet
    from promptsearch.commands.learning import Row, Trained
    from promptsearch.search.gradient import learn_visual_prompt

    encoder, support = setting.problem.encoder, setting.support
    pictures = setting.pictures("train", support.indices)
    pixels = torch.cat(list(_batches(encoder.preprocess, pictures)))  # (N, 3, H, W)
    weights = setting.evaluator.class_weights(PromptSet.of(template))
    prompt, learned = learn_visual_prompt(
        encoder.model,
        weights,
        pixels,
        support.labels,
        setting.logit_scale,
        options,
        setting.task.seed,
        checkpoint=setting.checkpoint,
        progress=setting.progress,
    )

    def test(indices: np.ndarray) -> np.ndarray:
        return prompt.encode_all(_batches(encoder.preprocess, setting.pictures("test", indices)))

    winner = Row(f"visual prompt ({options.kind})", weights, [str(template)], readable=False)
    return Trained(learned, winner, support=prompt.encode_all(pixels.split(BATCH)), test=test)


def _batches(preprocess: Any, pictures: Iterable[Image]) -> Iterator[torch.Tensor]:
    """Preprocessed pictures (B, 3, H, W), decoded as they are needed."""
    import torch

    batch: list[torch.Tensor] = []
    for picture in pictures:
        batch.append(preprocess(picture))
        if len(batch) == BATCH:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
