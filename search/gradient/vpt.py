"""Visual prompts: a border of learnt pixels, or learnt tokens in a ViT. The model's weights and prompts are frozen.

A border (Bahng et al. 2022) is added to the preprocessed picture. Tokens (VPT, Jia et al. 2022) follow the class token
at the input (shallow), or at the input of every layer (deep).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.errors import InputError
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.training import (
    Checkpoint,
    FewShots,
    Progress,
    Schedule,
    few_shot_loss,
    generator,
    no_progress,
    train,
)

if TYPE_CHECKING:
    import torch

#: Encodes preprocessed pictures (N, 3, H, W) to features (N, D).
Tower = Callable[["torch.Tensor"], "torch.Tensor"]

KINDS = ("border", "shallow", "deep")
BORDER = 30 / 224  # share of the side; 30 pixels in the paper
BORDER_RATE = 40 / 256  # learning rate per picture of a batch, as in the paper
TOKEN_RATE = 0.1 / 256  # not the paper's, which chooses a rate for every data set


@dataclass(frozen=True)
class VptOptions:
    """Options of a visual prompt.

    Attributes:
        kind: "border", "shallow" or "deep".
        border: Width of the border in pixels of the preprocessed picture; None for 30/224 of its side.
        tokens: Number of tokens, per layer if `kind` is "deep".
        schedule: Training schedule; None for SGD with momentum 0.9, 100 epochs with 10 of warm-up, cosine decay, batch
            32 and a learning rate of 5 for a border and 0.0125 for tokens.

    Raises:
        InputError: An option is out of range.
    """

    kind: str = "border"
    border: int | None = None
    tokens: int = 10
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"--kind {self.kind}: choose from {', '.join(KINDS)}")
        if self.tokens < 0:
            raise InputError(f"--tokens {self.tokens}: the number of tokens must be 0 or larger")
        if self.border is not None and self.border < 1:
            raise InputError(f"--border {self.border}: the border must be at least 1 pixel wide")


def vpt_schedule(options: VptOptions, epochs: int = 100, rate: float | None = None, batch: int = 32) -> Schedule:
    """Return the default schedule of a visual prompt with some values replaced.

    Args:
        options: Options of the visual prompt.
        epochs: Number of epochs.
        rate: Learning rate; None for the default at this batch size.
        batch: Pictures per batch.
    """
    each = BORDER_RATE if options.kind == "border" else TOKEN_RATE
    warmup = min(10, epochs // 2)
    return Schedule(epochs, each * batch if rate is None else rate, batch, 0.9, 0.0, warmup, None)


def takes_tokens(model: Any) -> bool:
    """Return whether a model's picture tower is open_clip's own ViT, into which tokens can be inserted."""
    from open_clip.transformer import VisionTransformer

    return isinstance(model.visual, VisionTransformer)


class VisualPrompt:
    """A model's picture tower with a visual prompt.

        prompt = VisualPrompt(model, VptOptions("border"), seed=0)
        features = prompt.encode(pixels)  # (B, 3, H, W) preprocessed to (B, D) unit vectors

    A border starts at zero, tokens at uniform(±sqrt(6 / (3 · patch² + width))).

    Args:
        model: An open_clip model.
        options: Kind and size of the visual prompt.
        seed: Seed of the initial tokens.
        tower: Replaces `model.encode_image`; differentiable in the pictures. Used for borders only, because tokens are
            inserted into the model's own tower.

    Raises:
        InputError: The picture tower is not a ViT and `kind` is not "border", or the border is wider than half the
            picture.
    """

    def __init__(self, model: Any, options: VptOptions, seed: int, tower: Tower | None = None) -> None:
        import torch

        self.model, self.options = model, options
        self._tower: Tower = tower or model.encode_image
        self.tensors: dict[str, torch.Tensor]
        visual = model.visual
        device = next(model.parameters()).device
        if options.kind == "border":
            side = visual.image_size
            height, width = (side, side) if isinstance(side, int) else tuple(side)
            wide = round(BORDER * height) if options.border is None else options.border
            if 2 * wide > min(height, width):
                raise InputError(
                    f"--border {wide}: this model's pictures are {height}×{width}; give at most half of that"
                )
            self._mask = torch.ones(height, width, device=device)
            self._mask[wide : height - wide, wide : width - wide] = 0
            self.tensors = {"border": torch.zeros(3, height, width, device=device)}
            return
        if not takes_tokens(model):
            raise InputError(
                f"--kind {options.kind}: the picture tower of this model is a {type(visual).__name__}, but tokens need "
                "open_clip's own ViT; use --kind border"
            )
        patch, width = visual.conv1.kernel_size, visual.conv1.out_channels
        layers = len(visual.transformer.resblocks) if options.kind == "deep" else 1
        bound = math.sqrt(6 / (3 * patch[0] * patch[1] + width))
        drawn = torch.rand((layers, options.tokens, width), generator=generator(seed, 0, 5))
        self.tensors = {"tokens": ((2 * drawn - 1) * bound).to(device)}

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode preprocessed pictures (B, 3, H, W) to unit vectors (B, D), differentiable in `tensors`."""
        import torch.nn.functional as F

        if "border" in self.tensors:
            return F.normalize(self._tower(pixels + self._mask * self.tensors["border"]).float(), dim=-1)
        with self._tokens_in_place():
            return F.normalize(self.model.encode_image(pixels).float(), dim=-1)

    def encode_all(self, batches: Iterable[torch.Tensor]) -> np.ndarray:
        """Encode batches of preprocessed pictures to unit vectors (n, D), without gradients."""
        import torch

        with torch.inference_mode():
            return np.concatenate([self.encode(b.to(self._device)).cpu().numpy() for b in batches])

    @property
    def _device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    @contextlib.contextmanager
    def _tokens_in_place(self) -> Iterator[None]:
        """Insert the tokens by hooks: added at the input, replaced before each deeper layer, removed at the output."""
        import torch

        transformer, tokens = self.model.visual.transformer, self.tensors["tokens"]
        count = tokens.shape[1]
        by_batch = getattr(transformer, "batch_first", True)

        def put(x: torch.Tensor, layer: int, skip: int) -> torch.Tensor:
            mine = tokens[layer].to(x.dtype).expand(len(x), -1, -1)
            return torch.cat([x[:, :1], mine, x[:, 1 + skip :]], dim=1)  # (B, 1 + p + patches, W)

        def replace(layer: int) -> Any:
            def hook(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
                x = args[0] if by_batch else args[0].transpose(0, 1)
                x = put(x, layer, count)
                return (x if by_batch else x.transpose(0, 1), *args[1:])

            return hook

        handles = [transformer.register_forward_pre_hook(lambda _, args: (put(args[0], 0, 0), *args[1:]))]
        handles += [
            transformer.resblocks[i].register_forward_pre_hook(replace(i)) for i in range(1, len(tokens)) if count
        ]
        handles.append(
            transformer.register_forward_hook(lambda _, __, out: torch.cat([out[:, :1], out[:, 1 + count :]], dim=1))
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def learn_visual_prompt(
    model: Any,
    class_weights: np.ndarray,
    shots: FewShots,
    options: VptOptions,
    seed: int,
    *,
    tower: Tower | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> tuple[VisualPrompt, Learned]:
    """Learn a visual prompt by few-shot cross-entropy, without augmentation.

    Args:
        model: An open_clip model.
        class_weights: (C, D) frozen class weights of unit length, those of a hand-written prompt.
        shots: The labelled pictures, preprocessed.
        options: What is learnt, and how.
        seed: Seed of the initial tokens and of the batches.
        tower: See `VisualPrompt`.
        checkpoint: Where the state is saved after each epoch; None to save nothing.
        progress: Called after each epoch.

    Returns:
        The visual prompt, and the class weights with its tensors.

    Raises:
        InputError: An option does not fit the model.
        PromptSearchError: The training diverged.
    """
    import torch

    prompt = VisualPrompt(model, options, seed, tower)
    device = prompt._device
    weights = torch.as_tensor(class_weights, device=device)
    pixels, labels = torch.as_tensor(shots.features), shots.labels
    y = torch.as_tensor(labels, device=device)
    schedule = options.schedule or vpt_schedule(options)

    def loss(batch: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return few_shot_loss(prompt.encode(pixels[batch].to(device)), weights, y[batch], shots.logit_scale)

    losses = train(prompt.tensors, loss, len(labels), schedule, seed, checkpoint=checkpoint, progress=progress)
    steps = schedule.epochs * max(1, len(labels) // schedule.batch)
    tensors = {name: t.cpu().numpy() for name, t in prompt.tensors.items()}
    about = {**asdict(options), "schedule": asdict(schedule)}
    return prompt, Learned(np.asarray(class_weights), tensors, losses, steps, about)
