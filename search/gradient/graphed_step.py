"""Runs a training step on a GPU as one CUDA graph: hundreds of kernels, captured once, are launched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Computes the loss of a batch, given the indices (B,) of its pictures and a generator for random draws.
BatchLoss = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]

#: Steps run before the capture, so that memory is allocated and kernels are chosen by then.
WARM = 3


def gradients(
    loss: BatchLoss, batch: torch.Tensor, random: torch.Generator, tensors: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """Return the loss (a scalar) of the pictures at the indices `batch` (B,), and its gradient for each tensor."""
    import torch

    value = loss(batch, random)
    return value.detach(), torch.autograd.grad(value, tensors)


class GraphedStep:
    """Computes the loss of a batch and its gradients, on a GPU by replaying a CUDA graph.

        loss = GraphedStep(lambda batch, _: few_shot_loss(x[batch], weights(context), y[batch], scale), [context])
        value, gradients = loss.step(batch, random)  # both are overwritten by the next step

    A loss that cannot be captured, because an operation in it waits for the GPU, is computed without a graph.

    Args:
        loss: Computes the loss. A graph repeats the same computation for every batch, so the loss must draw no random
            numbers, and nothing may change between steps but the batch and the values of `tensors`.
        tensors: The tensors for which gradients are computed; they are updated in place between steps.
    """

    def __init__(self, loss: BatchLoss, tensors: Sequence[torch.Tensor]) -> None:
        self._loss, self._tensors = loss, list(tensors)
        self._batch: torch.Tensor | None = None  # (B,) read by the graph
        self._graph: Any = None
        self._results: tuple[torch.Tensor, Sequence[torch.Tensor]] | None = None  # written by the graph

    def __call__(self, batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Return the loss (a scalar) of the pictures at the indices `batch` (B,)."""
        return self._loss(batch, random)

    @property
    def captured(self) -> bool:
        """Whether steps replay a CUDA graph; False before the first step."""
        return self._graph is not None

    def step(self, batch: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Return the loss (a scalar) of the pictures at the indices `batch` (B,), and its gradient for each tensor."""
        device = self._tensors[0].device
        if device.type != "cuda":
            return gradients(self._loss, batch, random, self._tensors)
        batch = batch.to(device, non_blocking=True)
        if self._batch is None:
            self._capture(batch.clone(), random)
        assert self._batch is not None
        if self._graph is None or self._results is None or len(batch) != len(self._batch):
            return gradients(self._loss, batch, random, self._tensors)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._results

    def _capture(self, batch: torch.Tensor, random: torch.Generator) -> None:
        import torch

        self._batch = batch
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                gradients(self._loss, batch, random, self._tensors)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                results = gradients(self._loss, batch, random, self._tensors)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation in the step waits for the GPU, so it cannot be captured
            torch.cuda.synchronize()
            return
        self._graph, self._results = graph, results
