"""Class names learnt under a frozen template, in the manner of Parisot et al. (2023): "LTNC-style".

The paper's idea is followed (only the embeddings of the class names are learnt, from the original tokens, by
cross-entropy); its optimiser and schedule are not known here and are ours: Adam, 1e-3, cosine, no weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from promptsearch.banks import BASELINE, Template
from promptsearch.errors import InputError
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.tower import Layout, TextTower, split_template
from promptsearch.search.gradient.training import (
    Checkpoint,
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
    """What is learnt.

    Attributes:
        template: frozen, around the names.
        vectors: at least so many vectors per name (random ones after its own tokens); 0 for its own tokens alone.
        schedule: Adam 1e-3 and CoOp's epochs where it is None.
    """

    template: Template = BASELINE
    vectors: int = 0
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.vectors < 0:
            raise InputError(f"--vectors {self.vectors}: 0 or more vectors per class name")


def name_layout(tower: TextTower, class_names: Sequence[str], options: NamesOptions) -> tuple[Layout, list[list[int]]]:
    """The prompts with learnt names, and the tokens that each name starts from.

    Raises:
        InputError: a name that has no tokens of its own in this template, a prompt that is longer than the tower.
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
    class_names: Sequence[str],
    features: np.ndarray,
    labels: np.ndarray,
    logit_scale: float,
    options: NamesOptions,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> Learned:
    """Learn the class names' embeddings from few-shot features (N, D) and labels (N,).

    Returns:
        The class weights, with `names` (V, W), one name after another, and `counts` (C,) their numbers of vectors.

    Raises:
        InputError: a name without tokens of its own, a prompt that is longer than the tower.
        PromptSearchError: the training diverged.
    """
    import torch

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
    x, y = torch.as_tensor(features, device=tower.device), torch.as_tensor(labels, device=tower.device)

    def loss(batch: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return few_shot_loss(x[batch], tower.encode(layout, names), y[batch], logit_scale)

    losses = train(
        {"names": names},
        loss,
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
    """Each class's learnt name as the words nearest to its vectors."""
    import torch

    ids = words.nearest(torch.as_tensor(names, device=words.tower.device), metric)
    ends = np.cumsum(counts)
    return [words.text(ids[end - n : end]) for end, n in zip(ends, counts, strict=True)]
