"""PEZ: hard prompts learnt by projected gradients (Wen et al. 2023), adapted to few-shot cross-entropy.

Its prompts consist of real words, but make no sense to a reader.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.search.gradient.coop import POSITIONS, context_layout, context_template
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.tower import TextTower
from promptsearch.search.gradient.training import (
    Checkpoint,
    FewShots,
    Progress,
    check_rate,
    few_shot_loss,
    generator,
    no_progress,
)
from promptsearch.search.gradient.words import Words

#: Steps between two checkpoints.
KEEP = 100


@dataclass(frozen=True)
class PezOptions:
    """Options of PEZ; the defaults are the paper's.

    Attributes:
        tokens: Number of tokens in the prompt.
        steps: Number of steps.
        rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        position: Position of the class name: "end", "middle" or "front".

    Raises:
        InputError: An option is out of range.
    """

    tokens: int = 16
    steps: int = 3000
    rate: float = 0.1
    weight_decay: float = 0.1
    position: str = "end"

    def __post_init__(self) -> None:
        for name in ("tokens", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: give at least 1")
        check_rate(self.rate)
        if self.position not in POSITIONS:
            raise InputError(f"--position {self.position}: choose from {', '.join(POSITIONS)}")


def pez(
    tower: TextTower,
    words: Words,
    shots: FewShots,
    options: PezOptions,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> tuple[str, Learned]:
    """Learn a template of real words (Wen et al. 2023, algorithm 1).

    Each step projects the continuous prompt to the nearest words (by cosine), computes the gradient of the
    cross-entropy there and applies it to the continuous prompt. All few-shot pictures are used in every step. Only
    whole words are candidates, so that the template has exactly the tokens that were scored.

    Args:
        tower: The model's text tower.
        words: The words to choose from.
        shots: The labelled pictures.
        options: Options of PEZ.
        seed: Seed of the initial words.
        checkpoint: Where the state is saved every `KEEP` steps; None to save nothing.
        progress: Called every `KEEP` steps.

    Returns:
        The template with the lowest cross-entropy of all steps, and its class weights.

    Raises:
        InputError: A prompt is longer than the model's context length.
        PromptSearchError: The loss or the continuous prompt is not finite.
    """
    import torch

    layout = context_layout(tower, shots.class_names, options.tokens, options.position)
    start = torch.randint(len(words.ids), (options.tokens,), generator=generator(seed, 0, 4))
    soft = words.vectors[start.to(tower.device)].float().clone()  # (V, W)
    optim = torch.optim.AdamW([soft], lr=options.rate, weight_decay=options.weight_decay)
    x, y = (torch.as_tensor(v, device=tower.device) for v in (shots.features, shots.labels))
    best, best_loss, losses = words.ids[start.to(tower.device)].tolist(), math.inf, []
    if checkpoint and (state := checkpoint.load()):
        soft.copy_(state["soft"])
        optim.load_state_dict(state["optimizer"])
        best, best_loss, losses = state["best"], state["best_loss"], state["losses"]
    for step in range(len(losses), options.steps):
        ids = words.nearest(soft, "cosine")
        hard = tower.embeddings(ids).float().requires_grad_(True)
        loss = few_shot_loss(x, tower.encode(layout, hard), y, shots.logit_scale)
        if not math.isfinite(amount := float(loss.detach())):
            raise PromptSearchError(f"the training diverged: the loss of step {step} is {amount}; use a smaller --rate")
        if amount < best_loss:
            best, best_loss = ids, amount
        losses.append(amount)
        (soft.grad,) = torch.autograd.grad(loss, [hard])
        optim.step()
        # otherwise the nearest words would be arbitrary, though the loss is finite
        if not math.isfinite(length := float(soft.norm())):
            raise PromptSearchError(
                f"the training diverged: the norm of the continuous prompt is {length} after step {step}; "
                f"use a smaller --rate than {options.rate:g}"
            )
        if len(losses) % KEEP == 0:
            if checkpoint:
                checkpoint.save(
                    soft=soft.clone(), optimizer=optim.state_dict(), best=best, best_loss=best_loss, losses=losses
                )
            progress(len(losses), options.steps, f"projected gradients, best loss {best_loss:.4f}")
    with torch.no_grad():
        weights = tower.encode(layout, tower.embeddings(best).float()).cpu().numpy()
    tensors = {"tokens": np.array(best, dtype=np.int64)}
    about = {**asdict(options), "best_loss": best_loss}
    return context_template(words, best, options.position), Learned(weights, tensors, losses, options.steps, about)
