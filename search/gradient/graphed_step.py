"""A training step on a GPU as one CUDA graph: hundreds of small launches, captured once and replayed as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: The loss of a batch: (B,) indices of pictures, and a generator for whatever is drawn.
BatchLoss = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]

#: Steps before the capture: what is allocated and chosen once must have been.
WARM = 3


def gradients(
    loss: BatchLoss, batch: torch.Tensor, random: torch.Generator, tensors: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """The loss (a scalar) of a batch (B,) of indices, and its gradients by the tensors."""
    import torch

    value = loss(batch, random)
    return value.detach(), torch.autograd.grad(value, tensors)


class GraphedStep:
    """The loss of a batch whose gradients a GPU computes by replaying a CUDA graph; elsewhere it is the plain loss.

        loss = GraphedStep(lambda batch, _: few_shot_loss(x[batch], weights(context), y[batch], scale), [context])
        value, gradients = loss.step(batch, random)  # both are overwritten by the next step

    What cannot be captured (an operation that waits for the GPU) is computed launch by launch.

    Args:
        loss: The same computation for every batch: it draws nothing and depends on nothing that changes but the batch
            and `tensors`.
        tensors: What it is differentiated by, updated in place between steps.
    """

    def __init__(self, loss: BatchLoss, tensors: Sequence[torch.Tensor]) -> None:
        self._loss, self._tensors = loss, list(tensors)
        self._batch: torch.Tensor | None = None  # (B,) read by the graph
        self._graph: Any = None
        self._results: tuple[torch.Tensor, Sequence[torch.Tensor]] | None = None  # written by the graph

    def __call__(self, batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """The loss of a batch (B,) of indices."""
        return self._loss(batch, random)

    @property
    def captured(self) -> bool:
        """Whether steps are replayed; known after the first."""
        return self._graph is not None

    def step(self, batch: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """The loss (a scalar) and the gradients by the tensors, of a batch (B,) of indices."""
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
        except RuntimeError:  # an operation in it waits for the GPU
            torch.cuda.synchronize()
            return
        self._graph, self._results = graph, results
