"""Learns class names in a frozen template, in the style of Parisot et al. (2023), "LTNC-style".

As in the paper, only the embeddings of the class names are learnt, starting from the original tokens, by cross-entropy.
The paper's optimiser and schedule could not be checked; here it is Adam, 1e-3, cosine, no weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from promptsearch.banks import BASELINE, Template
from promptsearch.errors import InputError
from promptsearch.search.gradient.graphed_step import GraphedStep
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.tower import Layout, TextTower, split_template
from promptsearch.search.gradient.training import (
    Checkpoint,
    FewShots,
    Progress,
    Schedule,
    few_shot_loss,
    generator,
    no_progress,
    published_epochs,
    train,
)
from promptsearch.search.gradient.words import Words

RATE = 1e-3
INITIAL_STD = 0.02


@dataclass(frozen=True)
class NamesOptions:
    """Options of learnt class names.

    Attributes:
        template: The frozen template around the names.
        vectors: Smallest number of vectors per name; names with fewer tokens get random vectors at the end. With 0
            each name has as many vectors as tokens.
        schedule: Training schedule; None for Adam at 1e-3 and CoOp's number of epochs.

    Raises:
        InputError: An option is out of range.
    """

    template: Template = BASELINE
    vectors: int = 0
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.vectors < 0:
            raise InputError(f"--vectors {self.vectors}: the number of vectors per class name must be 0 or larger")


def name_layout(tower: TextTower, class_names: Sequence[str], options: NamesOptions) -> tuple[Layout, list[list[int]]]:
    """Build the prompts with learnt names.

    Args:
        tower: The text tower that will encode them.
        class_names: The C class names.
        options: Template and number of vectors.

    Returns:
        The prompts' layout, and for each class the tokens from which its name starts.

    Raises:
        InputError: A name shares a token with the template around it, or a prompt is longer than the model's context
            length.
    """
    prompts, originals, at = [], [], 0
    for name in class_names:
        filled = options.template.fill(name)
        after = str(options.template).partition("{}")[2]
        before = filled[: len(filled) - len(after) - len(name)]
        head, own, tail = split_template(tower, before, name, after)
        count = max(len(own), options.vectors)
        prompts.append([*head, *(~j for j in range(at, at + count)), *tail])
        originals.append(own)
        at += count
    return tower.layout(prompts, class_names), originals


def learn_names(
    tower: TextTower,
    shots: FewShots,
    options: NamesOptions,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> Learned:
    """Learn the embeddings of the class names by few-shot cross-entropy.

    Args:
        tower: The model's text tower.
        shots: The labelled pictures.
        options: What is learnt, and how.
        seed: Seed of the random vectors and of the batches.
        checkpoint: Where the state is saved after each epoch; None to save nothing.
        progress: Called after each epoch.

    Returns:
        The class weights, `names` (V, W), the vectors of all names one after another, and `counts` (C,), the number
        of vectors of each.

    Raises:
        InputError: A name shares a token with the template around it, or a prompt is longer than the model's context
            length.
        PromptSearchError: The training diverged.
    """
    import torch

    class_names, labels = shots.class_names, shots.labels
    layout, originals = name_layout(tower, class_names, options)
    random = generator(seed, 0, 3)
    parts = []
    for own in originals:
        more = max(0, options.vectors - len(own))
        extra = INITIAL_STD * torch.randn((more, tower.width), generator=random)
        parts.append(torch.cat([tower.embeddings(own).float(), extra.to(tower.device)]))
    names = torch.cat(parts)  # (V, W)
    schedule = options.schedule or Schedule(
        published_epochs(len(labels) // len(class_names)), RATE, momentum=0.0, weight_decay=0.0
    )
    x, y = torch.as_tensor(shots.features, device=tower.device), torch.as_tensor(labels, device=tower.device)

    def loss(batch: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return few_shot_loss(x[batch], tower.encode(layout, names), y[batch], shots.logit_scale)

    losses = train(
        {"names": names},
        GraphedStep(loss, [names]),
        len(labels),
        schedule,
        seed,
        checkpoint=checkpoint,
        progress=progress,
        optimizer="adam",
    )
    with torch.no_grad():
        weights = tower.encode(layout, names).cpu().numpy()
    counts = np.array([len(p) for p in parts], dtype=np.int64)
    steps = schedule.epochs * max(1, len(labels) // schedule.batch)
    about = {**asdict(options), "template": str(options.template), "schedule": asdict(schedule)}
    return Learned(weights, {"names": names.cpu().numpy(), "counts": counts}, losses, steps, about)


def decode_names(words: Words, names: np.ndarray, counts: np.ndarray, metric: str = "cosine") -> list[str]:
    """Replace every vector of the learnt names by its nearest word.

    Args:
        words: The words to choose from.
        names: (V, W) vectors of all names, one after another.
        counts: (C,) number of vectors of each name.
        metric: "cosine" or "euclidean".

    Returns:
        One name per class.
    """
    import torch

    ids = words.nearest(torch.as_tensor(names, device=words.tower.device), metric)
    ends = np.cumsum(counts)
    return [words.text(ids[end - n : end]) for end, n in zip(ends, counts, strict=True)]
