"""open_clip's ModifiedResNet with batch norms, ReLUs and residuals fused into oneDNN's or cuDNN's convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from promptsearch.evaluators.scoring.template_table import out_of_memory

if TYPE_CHECKING:
    import torch


#: Cosine above which two vectors of a picture are equal up to rounding, also in bfloat16.
AGREE = 0.999


class FusedResNet:
    """Computes the features (N, D) of a ModifiedResNet, equal to its own up to rounding.

        visual = model.visual  # of an open_clip RN50, in eval mode
        fast = FusedResNet(visual, torch.float32)
        fast(pixels)           # (N, D), as visual(pixels)

    Convolution, batch norm, residual and ReLU take one pass over memory instead of four. Attention pooling has a single
    query per picture, so keys and values need not be computed for all 50 positions: q.(Wk x) = (Wk' q).x, and the
    weighted mean of Wv x is Wv of the weighted mean of x.

    Args:
        visual: The picture tower of an open_clip model, in eval mode.
        dtype: Data type of the convolutions; the pooling is in float32.
        differentiable: Whether the features are differentiable in the pictures. Only batch norms are fused then,
            because fused ReLUs and residuals have no gradient.
    """

    def __init__(self, visual: Any, dtype: torch.dtype, differentiable: bool = False) -> None:
        self.dtype = dtype
        on_gpu = visual.conv1.weight.device.type == "cuda"
        kind = _TorchConv if differentiable else _CudnnConv if on_gpu else _Conv
        self.stem = [kind(getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}"), dtype) for i in (1, 2, 3)]
        layers = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self.blocks = [_Block(block, dtype, kind) for layer in layers for block in layer]
        self.pool = _Pool(visual.attnpool)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features (N, D) of preprocessed pictures (N, 3, H, W)."""
        import torch
        import torch.nn.functional as F

        x = x.to(self.dtype, memory_format=torch.channels_last)  # (N, 3, H, W)
        for conv in self.stem:
            x = conv(x)
        x = F.avg_pool2d(x, 2)
        for block in self.blocks:
            x = block(x)
        return self.pool(x.float())


class _Conv:
    """A convolution without bias followed by a batch norm, and optionally a residual and a ReLU."""

    def __init__(self, conv: Any, norm: Any, dtype: torch.dtype) -> None:
        import torch
        from torch.nn.utils.fusion import fuse_conv_bn_weights

        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.padding, self.stride, self.dilation = list(conv.padding), list(conv.stride), list(conv.dilation)
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = bias.detach().to(dtype)
        self.packed = False

    def __call__(self, x: torch.Tensor, after: str = "relu") -> torch.Tensor:
        import torch

        self.pack(x)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, 1, after, [], ""
        )

    def pack(self, x: torch.Tensor) -> None:
        """Reorder the weights as oneDNN needs them for inputs of this shape, which saves doing it at each call."""
        import torch

        if not self.packed:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, 1, list(x.shape)
            )
            self.packed = True

    def added_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Compute relu(residual + conv(x)) in place of the residual."""
        import torch

        self.pack(x)
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, self.weight, self.bias, self.padding, self.stride, self.dilation, 1, "add", 1.0, "relu", [], ""
        )


class _TorchConv(_Conv):
    """`_Conv` with torch's own operations, which have gradients."""

    def __call__(self, x: torch.Tensor, after: str = "relu") -> torch.Tensor:
        import torch.nn.functional as F

        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        return F.relu_(out) if after == "relu" else out

    def added_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        return F.relu_(self(x, "none").add_(residual))


class _CudnnConv(_TorchConv):
    """`_Conv` with cuDNN's fused convolutions, or with torch's operations if cuDNN has none for these shapes."""

    #: Zeros to add if there is no residual; one buffer for all layers, as large as their largest output.
    nothing: dict[torch.dtype, torch.Tensor] = {}

    def __init__(self, conv: Any, norm: Any, dtype: torch.dtype) -> None:
        super().__init__(conv, norm, dtype)
        self.fuses = True

    def __call__(self, x: torch.Tensor, after: str = "relu") -> torch.Tensor:
        if after == "relu" and self.fuses:
            # cuDNN reads the added tensor even if its factor is 0, so it must be initialised.
            found = self._fused(x, self._nothing(x), 0.0)
            if found is not None:
                return found
        return super().__call__(x, after)

    def added_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self.fuses and (found := self._fused(x, residual, 1.0)) is not None:
            return found
        return super().added_to(residual, x)

    def _fused(self, x: torch.Tensor, added: torch.Tensor, factor: float) -> torch.Tensor | None:
        """Compute relu(conv(x) + factor * added), or return None if cuDNN has no engine for it."""
        import torch

        try:
            return torch.cudnn_convolution_add_relu(
                x, self.weight, added, factor, self.bias, self.stride, self.padding, self.dilation, 1
            )
        except RuntimeError as e:
            if out_of_memory(e):
                raise
            self.fuses = False
            return None

    def _nothing(self, x: torch.Tensor) -> torch.Tensor:
        """Return zeros of the shape of this convolution's output, channels last."""
        import torch

        (n, _, *sides), channels = x.shape, self.weight.shape[0]
        h, w = (
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(
                sides, self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        )
        size, known = n * channels * h * w, self.nothing.get(x.dtype)
        if known is None or len(known) < size:
            known = self.nothing[x.dtype] = torch.zeros(size, dtype=x.dtype, device=x.device)
        return known[:size].view(n, h, w, channels).permute(0, 3, 1, 2)


class _Block:
    def __init__(self, block: Any, dtype: torch.dtype, kind: type[_Conv]) -> None:
        self.stride = block.stride
        self.conv1 = kind(block.conv1, block.bn1, dtype)
        self.conv2 = kind(block.conv2, block.bn2, dtype)
        self.conv3 = kind(block.conv3, block.bn3, dtype)
        shortcut = block.downsample
        self.shortcut = None if shortcut is None else kind(shortcut[1], shortcut[2], dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        out = self.conv2(self.conv1(x))
        if self.stride > 1:
            out, x = F.avg_pool2d(out, self.stride), F.avg_pool2d(x, self.stride)
        if self.shortcut is not None:
            x = self.shortcut(x, "none")
        return self.conv3.added_to(x, out)


class _Pool:
    def __init__(self, pool: Any) -> None:
        self.places = pool.positional_embedding.detach().float()  # (1 + HW, W)
        self.heads = pool.num_heads
        self.q, self.k, self.v, self.c = (
            (p.weight.detach().float(), None if p.bias is None else p.bias.detach().float())
            for p in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj)
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        x = x.flatten(2).transpose(1, 2)  # (N, HW, W)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.places  # (N, 1 + HW, W)
        n, _, width = x.shape
        size = width // self.heads
        q = F.linear(x[:, 0], *self.q).view(n, self.heads, size) * size**-0.5
        # The keys' bias adds the same value to all scores and cancels in the softmax.
        asked = torch.einsum("nhs,hsw->nhw", q, self.k[0].view(self.heads, size, width))
        weight = (asked @ x.transpose(1, 2)).softmax(dim=-1)  # (N, H, 1 + HW)
        mean = weight @ x  # (N, H, W)
        value = torch.einsum("nhw,hsw->nhs", mean, self.v[0].view(self.heads, size, width)).reshape(n, width)
        if self.v[1] is not None:
            value = value + self.v[1]
        return F.linear(value, *self.c)


def can_fuse(visual: Any, device: str) -> bool:
    """Return whether `FusedResNet` supports this picture tower on this device; types are compared exactly."""
    import torch
    from open_clip.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet
    from torch import nn

    known = {ModifiedResNet, Bottleneck, AttentionPool2d, nn.Sequential, nn.Conv2d, nn.BatchNorm2d}
    known |= {nn.ReLU, nn.AvgPool2d, nn.Identity, nn.Linear}
    return (
        _fused_convolutions(device)
        and type(visual) is ModifiedResNet
        and {type(part) for part in visual.modules()} <= known
        and all(p.dtype == torch.float32 for p in visual.parameters())
        and not visual.training
    )


def _fused_convolutions(device: str) -> bool:
    """Return whether torch has fused convolutions (with residual and ReLU) for this device."""
    import torch

    if device == "cuda":
        return torch.backends.cudnn.is_available() and hasattr(torch, "cudnn_convolution_add_relu")
    has = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    return device == "cpu" and has


def agrees(fused: FusedResNet, visual: Any, count: int = 2) -> bool:
    """Return whether the fused tower and the original one give the same vectors for pictures of noise."""
    import torch
    import torch.nn.functional as F

    weight, side = visual.conv1.weight, visual.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(weight.device)
    x = x.repeat(-(-count // 2), 1, 1, 1)[:count].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        cosine = F.cosine_similarity(fused(x), visual(x).float(), dim=-1)
    return bool((cosine > AGREE).all())


def differentiable_tower(model: Any, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from preprocessed pictures (N, 3, H, W) to a model's features (N, D), differentiable in them.

    Args:
        model: An open_clip model.
        device: Its device.
    """
    import torch

    if can_fuse(model.visual, device):
        return FusedResNet(model.visual, torch.float32, differentiable=True)
    tower: Callable[[torch.Tensor], torch.Tensor] = model.encode_image
    return tower
