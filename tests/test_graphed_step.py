"""A training step that is one CUDA graph on a GPU is the plain step elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from promptsearch.search.gradient.graphed_step import GraphedStep
from promptsearch.search.gradient.training import Schedule, generator, train


def test_a_step_that_is_a_graph_on_a_gpu_is_the_plain_one_elsewhere() -> None:
    """The loss and the gradients of a step are autograd's own, and a training with it ends with the same tensors."""
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))

    def loss_of(w: torch.Tensor) -> Any:
        return lambda batch, _: (x[batch] @ w).square().mean()

    ends = []
    for graphed in (False, True):
        w = torch.ones(4)
        loss = loss_of(w)
        losses = train({"w": w}, GraphedStep(loss, [w]) if graphed else loss, 12, Schedule(3, 0.1, batch=4), 0)
        ends.append((w, losses))
    assert torch.equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    w = torch.ones(4, requires_grad=True)
    step, batch = GraphedStep(loss_of(w), [w]), torch.tensor([1, 5])
    value, (gradient,) = step.step(batch, generator(0))
    assert float(value) == pytest.approx(float(step(batch, generator(0)).detach()))
    torch.testing.assert_close(gradient, x[batch].T @ (x[batch] @ torch.ones(4)))
    assert not step.captured
