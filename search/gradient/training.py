"""The training loop of the gradient baselines: seeded, resumable after each epoch, stopped if it diverges."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.search.gradient.graphed_step import BatchLoss, GraphedStep, gradients

if TYPE_CHECKING:
    import torch

#: Called during long work with (done, total, description).
Progress = Callable[[int, int, str], None]

#: Largest learning rate; an optimiser's products with a larger one do not fit into 32 bits.
MOST = 1e30


#: Encodes the pictures at the indices (B,) to unit vectors (B, D), with new augmentation on each call.
FreshFeatures = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]


@dataclass(frozen=True)
class FewShots:
    """The labelled pictures that a baseline is trained on.

    Attributes:
        class_names: The C class names.
        features: (N, D) unit vectors of the pictures; for a visual prompt the preprocessed pictures (N, 3, H, W), and
            with augmentation a function that encodes a batch.
        labels: (N,) class indices.
        logit_scale: The model's logit scale (the factor, not its logarithm).
    """

    class_names: Sequence[str]
    features: np.ndarray | torch.Tensor | FreshFeatures
    labels: np.ndarray
    logit_scale: float


def no_progress(done: int, total: int, what: str) -> None:
    """Report no progress."""


def published_epochs(shots: int) -> int:
    """Return CoOp's number of epochs (Zhou et al. 2022): 50 for 1 shot, 100 for 2 to 4, 200 for more."""
    return 50 if shots <= 1 else 100 if shots <= 4 else 200


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum, warm-up and cosine decay; the defaults are CoOp's (Zhou et al. 2022).

    Attributes:
        epochs: Number of epochs.
        rate: Largest learning rate.
        batch: Pictures per batch.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.
        warmup: Number of warm-up epochs.
        warmup_rate: Learning rate of the warm-up epochs; None for a linear rise to `rate`.

    Raises:
        InputError: A value is out of range.
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
        """Return the learning rate of an epoch, counted from 0.

        As in CoOp's code, after a constant warm-up the half period of the cosine is the number of all epochs; after a
        linear warm-up it is the number of remaining epochs.
        """
        if epoch < self.warmup:
            return self.rate * (epoch + 1) / (self.warmup + 1) if self.warmup_rate is None else self.warmup_rate
        period = self.epochs if self.warmup_rate is not None else max(1, self.epochs - self.warmup)
        return self.rate * (1 + math.cos(math.pi * (epoch - self.warmup) / period)) / 2


def check_rate(rate: float) -> None:
    """Check that a learning rate is positive and not too large.

    Raises:
        InputError: It is not.
    """
    if not 0 < rate <= MOST:
        raise InputError(f"--rate {rate}: the learning rate must be positive and at most {MOST:g}")


class Checkpoint:
    """The state of a training, saved to a file that is replaced atomically.

    Args:
        path: The file.
        key: Identifies the training; a file with another key is refused.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None if there is no file.

        Raises:
            InputError: The file belongs to another training.
            PromptSearchError: The file is damaged.
        """
        import torch

        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True)
        except Exception as e:  # a damaged file may raise anything that the unpickler and its classes raise
            raise PromptSearchError(f"checkpoint {self.path} is damaged; delete it to start again") from e
        if not isinstance(state, dict) or state.get("key") != self.key:
            raise InputError(f"checkpoint {self.path} is of a training with other options; delete it to start again")
        return state

    def save(self, **state: Any) -> None:
        """Replace the file by one with this state.

        Raises:
            PromptSearchError: The file cannot be written; the one before it is left as it was.
        """
        import torch

        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"key": self.key, **state}, part)
            os.replace(part, self.path)
        except (OSError, RuntimeError) as e:  # torch's own writer raises the latter where a disk is full
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e).splitlines()[0][:200]
            raise PromptSearchError(
                f"checkpoint {self.path} cannot be written ({reason}); make room there, or set PROMPTSEARCH_HOME, "
                "and give the same command again: it goes on from the last checkpoint"
            ) from e

    def remove(self) -> None:
        """Delete the file if it exists."""
        self.path.unlink(missing_ok=True)


def generator(*entropy: int) -> torch.Generator:
    """Return a random generator seeded by integers such as (seed, step, purpose).

    A resumed training draws the same numbers, because no generator's state has to be restored.
    """
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
    """Train tensors in place.

    As in CoOp's code, the pictures are shuffled in each epoch and an incomplete last batch is skipped unless it is the
    only one. An interrupted training resumes after the last saved epoch and ends with the same tensors. An epoch is
    saved once the first loss after it is finite, so that a diverged state is never saved.

    Args:
        learnt: The tensors to train, by name.
        loss: Computes the loss of a batch.
        count: Number of training pictures.
        schedule: Learning rate, batch size and number of epochs.
        seed: Seed of the batches and of what `loss` draws.
        checkpoint: Where the state is saved after each epoch; None to save nothing.
        progress: Called after each epoch.
        optimizer: "sgd" or "adam" (which ignores the momentum).

    Returns:
        The mean loss of each epoch.

    Raises:
        PromptSearchError: The loss is not finite. The checkpoint still has the last good epoch.
    """
    import torch

    tensors = list(learnt.values())
    for t in tensors:
        t.requires_grad_(True)
    optim = _optimizer(optimizer, tensors, schedule)
    losses = _restore(checkpoint, learnt, optim)
    kept = len(losses)

    def finite(value: torch.Tensor, where: str) -> float:
        """Return the loss as a number, and save the epochs before it if it is finite."""
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

    step_of = loss.step if isinstance(loss, GraphedStep) else functools.partial(gradients, loss, tensors=tensors)
    whole = count // schedule.batch * schedule.batch or count
    for epoch in range(len(losses), schedule.epochs):
        for group in optim.param_groups:
            group["lr"] = schedule.rate_at(epoch)
        random = generator(seed, epoch)
        order = torch.randperm(count, generator=random)[:whole]
        total = 0.0
        for step, batch in enumerate(order.split(schedule.batch)):
            value, found = step_of(batch, random)
            amount = finite(value, f"of epoch {epoch}, step {step}")
            for t, g in zip(tensors, found, strict=True):
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


def _optimizer(name: str, tensors: list[torch.Tensor], schedule: Schedule) -> torch.optim.Optimizer:
    import torch

    if name == "sgd":
        return torch.optim.SGD(
            tensors, lr=schedule.rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
    return torch.optim.Adam(tensors, lr=schedule.rate, weight_decay=schedule.weight_decay)


def _restore(
    checkpoint: Checkpoint | None, learnt: dict[str, torch.Tensor], optim: torch.optim.Optimizer
) -> list[float]:
    """Restore the tensors and the optimizer from a checkpoint, and return the losses of the saved epochs."""
    import torch

    state = None if checkpoint is None else checkpoint.load()
    if state is None:
        return []
    optim.load_state_dict(state["optimizer"])
    with torch.no_grad():
        for name, t in learnt.items():
            t.copy_(state["learnt"][name])
    return list(state["losses"])


def few_shot_loss(
    features: torch.Tensor, class_weights: torch.Tensor, labels: torch.Tensor, logit_scale: float
) -> torch.Tensor:
    """Compute the mean cross-entropy of a batch at the model's logit scale.

    Args:
        features: (B, D) unit vectors of the pictures.
        class_weights: (C, D) class weights of unit length.
        labels: (B,) class indices.
        logit_scale: The model's logit scale.

    Returns:
        A scalar tensor, in nats.
    """
    import torch.nn.functional as F

    return F.cross_entropy(logit_scale * features @ class_weights.T, labels)
