"""The ResNet with fused layers computes what open_clip's own does, and is not used where it would not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from promptsearch.evaluators.encoding import fused_resnet
from promptsearch.evaluators.encoding.fused_resnet import FusedResNet, agrees, can_fuse


def resnet(layers: tuple[int, ...] = (1, 2, 1, 2), side: int = 64) -> Any:
    """A small tower whose batch norms are as random as trained ones."""
    torch.manual_seed(0)
    visual = ModifiedResNet(list(layers), output_dim=24, heads=4, image_size=side, width=8)
    for part in visual.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
    nn.init.normal_(visual.attnpool.k_proj.bias)  # falls out of the softmax, and must
    return visual.eval().requires_grad_(False)


@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 2, 1, 2)])
@torch.inference_mode()
def test_equal_to_its_own_forward(layers: tuple[int, ...]) -> None:
    visual = resnet(layers)
    fused = FusedResNet(visual, torch.float32)
    for n in (4, 1, 7, 4):  # the weights are laid out for the first batch's size
        x = torch.randn(n, 3, 64, 64)
        before = x.clone()
        torch.testing.assert_close(fused(x), visual(x), atol=1e-5, rtol=1e-5)
        assert torch.equal(x, before)


def test_gradients_by_the_picture_are_its_own() -> None:
    visual, x = resnet(), torch.randn(3, 3, 64, 64, requires_grad=True)
    fused = FusedResNet(visual, torch.float32, differentiable=True)
    asked = torch.randn(3, 24)
    found, expected = fused(x), visual(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((out * asked).sum(), x)[0] for out in (found, expected)]
    assert (gradients[0] - gradients[1]).abs().max() < 1e-4 * gradients[1].abs().max()


@torch.inference_mode()
def test_bfloat16_is_close() -> None:
    visual, x = resnet(), torch.randn(4, 3, 64, 64)
    out = FusedResNet(visual, torch.bfloat16)(x)
    assert out.dtype == torch.float32
    assert torch.cosine_similarity(out, visual(x)).min() > 0.999


def cudnn(x: torch.Tensor, weight: torch.Tensor, z: torch.Tensor, alpha: float, *rest: Any) -> torch.Tensor:
    """What cuDNN's fused convolution computes, with its demands on shapes and layout."""
    bias, stride, padding, dilation, groups = rest
    out = nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    assert z.shape == out.shape and z.dtype == x.dtype and z.is_contiguous(memory_format=torch.channels_last)
    return (out + alpha * z).relu()


def no_engine(x: torch.Tensor, *_: Any) -> torch.Tensor:
    raise RuntimeError("Unable to find an engine to execute this computation")


@pytest.mark.parametrize("function", [cudnn, no_engine])
@torch.inference_mode()
def test_the_towers_way_on_a_gpu(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", function)
    monkeypatch.setattr(fused_resnet, "_Conv", fused_resnet._CudnnConv)
    visual = resnet((1, 2, 1, 2))
    fused = FusedResNet(visual, torch.float32)
    for n in (4, 1, 7):
        x = torch.randn(n, 3, 64, 64)
        torch.testing.assert_close(fused(x), visual(x), atol=1e-5, rtol=1e-5)
    assert agrees(fused, visual)
    fused.blocks[0].conv3.bias = fused.blocks[0].conv3.bias + 3
    assert not agrees(fused, visual)


@torch.inference_mode()
def test_memory_that_runs_out_is_no_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", full)
    monkeypatch.setattr(fused_resnet, "_Conv", fused_resnet._CudnnConv)
    with pytest.raises(torch.OutOfMemoryError):
        FusedResNet(resnet(), torch.float32)(torch.randn(1, 3, 64, 64))


def test_only_what_is_known_is_fused() -> None:
    assert can_fuse(resnet(), "cpu")
    assert not can_fuse(resnet(), "mps")
    assert not can_fuse(resnet().train(), "cpu")
    assert not can_fuse(resnet().to(torch.bfloat16), "cpu")
    assert not can_fuse(nn.Sequential(nn.Conv2d(3, 3, 1)), "cpu")
    changed = resnet()
    changed.layer1[0].act1 = nn.GELU()
    assert not can_fuse(changed, "cpu")
