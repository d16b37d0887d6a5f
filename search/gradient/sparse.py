"""Learns a distribution over a bank's templates by gradient and anneals it to a small weighted ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.training import Checkpoint, FewShots, Progress, few_shot_loss, generator, no_progress

#: Steps between two checkpoints.
KEEP = 100


@dataclass(frozen=True)
class SparseOptions:
    """Options of the learnt distribution.

    Attributes:
        size: Number of templates in the ensemble (k).
        steps: Steps of Adam, each on all pictures.
        rate: Adam's learning rate for the logits of the distribution.
        entropy: Final weight of the penalty on entropy above log k.
        hot: First temperature of the softmax.
        cold: Last temperature of the softmax.
        gumbel: Whether Gumbel noise is added to the logits (Jang et al. 2017), so that templates are sampled.

    Raises:
        InputError: An option is out of range.
    """

    size: int = 4
    steps: int = 500
    rate: float = 0.1
    entropy: float = 1.0
    hot: float = 1.0
    cold: float = 0.3
    gumbel: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"--sample {self.size}: give at least 1 template")
        if self.steps < 1:
            raise InputError(f"{self.steps} steps: give at least 1")


def learn_ensemble(
    templates: Sequence[str],
    bank: np.ndarray,
    shots: FewShots,
    options: SparseOptions,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> tuple[PromptSet, Learned]:
    """Learn a mixture of a bank's templates and keep the k templates with the largest weights.

    The class weights of a mixture w are normalise(sum_t w_t v_tc). The loss is cross-entropy plus
    entropy · max(0, H(w) - log k); the weight of this penalty rises linearly and the temperature falls geometrically
    over the steps.

    Args:
        templates: The T templates of the bank.
        bank: (T, C, D) unit class features v of the templates.
        shots: The labelled pictures.
        options: Options of the learnt distribution.
        seed: Seed of the Gumbel noise.
        checkpoint: Where the state is saved every `KEEP` steps; None to save nothing.
        progress: Called every `KEEP` steps.

    Returns:
        The weighted ensemble of k templates, and the class weights of the whole mixture.

    Raises:
        InputError: The bank has fewer than k templates.
        PromptSearchError: The loss is not finite.
    """
    import torch
    import torch.nn.functional as F

    if options.size > len(templates):
        raise InputError(f"--sample {options.size}: the bank has only {len(templates)} templates; give at most as many")
    v, x, y = torch.as_tensor(bank), torch.as_tensor(shots.features), torch.as_tensor(shots.labels)
    logits = torch.zeros(len(templates), requires_grad=True)
    optim = torch.optim.Adam([logits], lr=options.rate)
    losses: list[float] = []
    if checkpoint and (state := checkpoint.load()):
        losses = list(state["losses"])
        optim.load_state_dict(state["optimizer"])
        with torch.no_grad():
            logits.copy_(state["logits"])
    for step in range(len(losses), options.steps):
        at = step / max(1, options.steps - 1)
        temperature = options.hot * (options.cold / options.hot) ** at
        noisy = logits
        if options.gumbel:
            uniform = torch.rand(logits.shape, generator=generator(seed, step, 2)).clamp(1e-9, 1 - 1e-7)
            noisy = logits - torch.log(-torch.log(uniform))
        w = (noisy / temperature).softmax(0)  # (T,)
        weights = F.normalize(torch.tensordot(w, v, dims=1), dim=-1)  # (C, D)
        xent = few_shot_loss(x, weights, y, shots.logit_scale)
        sure = (logits / temperature).softmax(0)
        entropy = -(sure * sure.clamp(min=1e-12).log()).sum()
        loss = xent + options.entropy * at * (entropy - math.log(options.size)).clamp(min=0)
        if not math.isfinite(amount := float(loss.detach())):
            raise PromptSearchError(
                f"the training diverged: the loss of step {step} is {amount}; check the features of the bank"
            )
        (logits.grad,) = torch.autograd.grad(loss, [logits])
        optim.step()
        losses.append(float(xent.detach()))
        if len(losses) % KEEP == 0:
            if checkpoint:
                checkpoint.save(losses=losses, optimizer=optim.state_dict(), logits=logits.detach().clone())
            progress(len(losses), options.steps, f"learning a mixture, cross-entropy {losses[-1]:.4f}")
    with torch.no_grad():
        w = (logits / options.cold).softmax(0)
        weights = F.normalize(torch.tensordot(w, v, dims=1), dim=-1)
    chosen = w.argsort(descending=True, stable=True)[: options.size].tolist()
    found = top_templates(templates, w.numpy(), options.size)
    about = {**asdict(options), "kept": float(w[chosen].sum())}
    return found, Learned(weights.numpy(), {"mixture": w.numpy()}, losses, options.steps, about)


def top_templates(templates: Sequence[str], mixture: np.ndarray, size: int) -> PromptSet:
    """Return the ensemble of the templates with the largest weights.

    Args:
        templates: The T templates of the bank.
        mixture: (T,) weights.
        size: Number of templates to keep; of equal weights the one that comes first in the bank.

    Returns:
        A weighted prompt set; its weights sum to 1.
    """
    order = np.argsort(-mixture, kind="stable")[:size]
    kept = [i for i in order if mixture[i] > 1e-6]
    total = float(mixture[kept].sum())
    return PromptSet([templates[i] for i in kept], [float(mixture[i]) / total for i in kept])
