"""The training loop of every gradient baseline: seeded, resumable after each epoch, stopped when it diverges."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError

if TYPE_CHECKING:
    import torch

#: Told how much of a long work is done: (done, total, what).
Progress = Callable[[int, int, str], None]

#: The largest learning rate: what an optimiser makes of it must fit into 32 bits.
MOST = 1e30

#: The loss of a batch: (B,) indices of pictures, and a generator for whatever is drawn.
BatchLoss = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]


def no_progress(done: int, total: int, what: str) -> None:
    """The Progress that says nothing."""


def published_epochs(shots: int) -> int:
    """CoOp's (Zhou et al. 2022): 50 for 1 shot, 100 for 2 and 4, 200 for 8 and 16."""
    return 50 if shots <= 1 else 100 if shots <= 4 else 200


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum and a cosine after a warm-up; the defaults are CoOp's (Zhou et al. 2022).

    Attributes:
        warmup_rate: the rate of the warm-up epochs; None for a linear rise to `rate`.
    """

    epochs: int
    rate: float = 0.002
    batch: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: int = 1
    warmup_rate: float | None = 1e-5

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: give at least 1")
        check_rate(self.rate)

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch (from 0).  As in CoOp's code the cosine begins after a constant warm-up but
        has all epochs for its half period; after a linear warm-up it has those that are left."""
        if epoch < self.warmup:
            return self.rate * (epoch + 1) / (self.warmup + 1) if self.warmup_rate is None else self.warmup_rate
        period = self.epochs if self.warmup_rate is not None else max(1, self.epochs - self.warmup)
        return self.rate * (1 + math.cos(math.pi * (epoch - self.warmup) / period)) / 2


def check_rate(rate: float) -> None:
    """Raises InputError for what is no learning rate."""
    if not 0 < rate <= MOST:
        raise InputError(f"--rate {rate}: a learning rate is a positive number, at most {MOST:g}")


class Checkpoint:
    """The state of a training in a file, replaced at once so that a kill leaves the last whole one.

    Args:
        key: what must be the same for the training to go on.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or None.

        Raises:
            InputError: the file belongs to another training.
            PromptSearchError: it is damaged.
        """
        import torch

        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as e:
            raise PromptSearchError(f"checkpoint {self.path} is damaged; delete it to begin anew") from e
        if not isinstance(state, dict) or state.get("key") != self.key:
            raise InputError(f"checkpoint {self.path} is of a training with other options; delete it to begin anew")
        return state

    def save(self, **state: Any) -> None:
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        torch.save({"key": self.key, **state}, part)
        os.replace(part, self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def generator(*entropy: int) -> torch.Generator:
    """A generator of its own for (seed, purpose, step): nothing depends on the state of one that died."""
    import torch

    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


def train(
    learnt: dict[str, torch.Tensor],
    loss: BatchLoss,
    count: int,
    schedule: Schedule,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
    optimizer: str = "sgd",
) -> list[float]:
    """Train the tensors of `learnt` in place on `count` pictures; returns the mean loss of each epoch.

    As in CoOp's code the pictures are shuffled each epoch and a last batch that is not full is left out, unless it is
    the only one.  Only `learnt` gets gradients.  With a checkpoint a killed training goes on after the last epoch that
    was kept and ends with the same tensors.  An epoch is kept when the first loss after it is finite: what diverged in
    its last step is never kept.

    Args:
        optimizer: "sgd" or "adam" (which ignores the momentum).

    Raises:
        PromptSearchError: the loss is not finite; the checkpoint of the last epoch that was good is kept.
    """
    import torch

    tensors = list(learnt.values())
    for t in tensors:
        t.requires_grad_(True)
    optim: torch.optim.Optimizer
    if optimizer == "sgd":
        optim = torch.optim.SGD(
            tensors, lr=schedule.rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
    else:
        optim = torch.optim.Adam(tensors, lr=schedule.rate, weight_decay=schedule.weight_decay)
    losses: list[float] = []
    if checkpoint and (state := checkpoint.load()):
        losses = list(state["losses"])
        optim.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name, t in learnt.items():
                t.copy_(state["learnt"][name])
    kept = len(losses)

    def finite(value: torch.Tensor, where: str) -> float:
        """The loss as a number; where it is one, the epochs before it are good."""
        nonlocal kept
        if not math.isfinite(amount := float(value.detach())):
            rest = f"; {checkpoint.path} has the last good epoch, {kept - 1}" if checkpoint and kept else ""
            raise PromptSearchError(
                f"the training diverged: the loss {where} is {amount}; "
                f"use a smaller learning rate than {schedule.rate:g}{rest}"
            )
        if checkpoint and kept < len(losses):
            own = {name: t.detach().clone() for name, t in learnt.items()}
            checkpoint.save(losses=losses, optimizer=optim.state_dict(), learnt=own)
            kept = len(losses)
        return amount

    whole = count // schedule.batch * schedule.batch or count
    for epoch in range(len(losses), schedule.epochs):
        for group in optim.param_groups:
            group["lr"] = schedule.rate_at(epoch)
        random = generator(seed, epoch)
        order = torch.randperm(count, generator=random)[:whole]
        total = 0.0
        for step, batch in enumerate(order.split(schedule.batch)):
            value = loss(batch, random)
            amount = finite(value, f"of epoch {epoch}, step {step}")
            for t, g in zip(tensors, torch.autograd.grad(value, tensors), strict=True):
                t.grad = g
            optim.step()
            total += amount * len(batch)
        losses.append(total / whole)
        progress(epoch + 1, schedule.epochs, f"training, loss {losses[-1]:.4f}")
    if kept < len(losses):
        with torch.no_grad():
            last = torch.arange(min(count, schedule.batch))
            finite(loss(last, generator(seed, schedule.epochs)), f"after epoch {schedule.epochs - 1}, the last one,")
    for t in tensors:
        t.requires_grad_(False)
        t.grad = None
    return losses


def few_shot_loss(
    features: torch.Tensor, class_weights: torch.Tensor, labels: torch.Tensor, logit_scale: float
) -> torch.Tensor:
    """Mean cross-entropy of unit picture vectors (B, D) and unit class weights (C, D) at the model's logit scale."""
    import torch.nn.functional as F

    return F.cross_entropy(logit_scale * features @ class_weights.T, labels)
