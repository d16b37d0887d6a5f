"""Visual prompts and augmentation: empty prompts change nothing, gradients are right, errors are one line."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_model import TINY

from promptsearch.errors import InputError
from promptsearch.search.gradient import (
    AugmentedPictures,
    FewShots,
    Schedule,
    VisualPrompt,
    VptOptions,
    learn_visual_prompt,
    vpt_schedule,
)
from promptsearch.search.gradient.augment import random_box

VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}


@cache
def model_of(kind: str) -> torch.nn.Module:
    cfg = json.loads((TINY / "open_clip_config.json").read_text())["model_cfg"]
    if kind == "convnet":
        cfg["vision_cfg"] |= {"width": 8, "head_width": 32, "image_size": 32}
    else:
        cfg["vision_cfg"] = VIT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**cfg)
        for p in model.visual.parameters():
            p.data += 0.02 * torch.randn(p.shape)
    return model.eval().requires_grad_(False)


def pixels(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def plain(kind: str) -> torch.Tensor:
    with torch.no_grad():
        return model_of(kind).encode_image(pixels(), normalize=True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("convnet", VptOptions("border")),
        ("vit", VptOptions("border", border=5)),
        ("vit", VptOptions("shallow", tokens=0)),
        ("vit", VptOptions("deep", tokens=0)),
    ],
)
def test_an_empty_prompt_gives_the_pictures_own_features(kind: str, options: VptOptions) -> None:
    prompt = VisualPrompt(model_of(kind), options, 0)
    assert torch.allclose(prompt.encode(pixels()), plain(kind), atol=1e-5)
    assert np.allclose(prompt.encode_all(pixels().split(4)), plain(kind).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["shallow", "deep"])
def test_tokens_are_seen_as_in_a_plain_forward_pass(kind: str) -> None:
    visual = model_of("vit").visual
    prompt = VisualPrompt(model_of("vit"), VptOptions(kind, tokens=4), 1)
    tokens = prompt.tensors["tokens"]
    assert tokens.shape == (3 if kind == "deep" else 1, 4, 32)
    assert tokens.abs().max() <= (6 / (3 * 64 + 32)) ** 0.5 and tokens.std() > 0.05
    x = visual._embeds(pixels())
    for i, block in enumerate(visual.transformer.resblocks):
        if i == 0:
            x = torch.cat([x[:, :1], tokens[0].expand(6, -1, -1), x[:, 1:]], dim=1)
        elif kind == "deep":
            x = torch.cat([x[:, :1], tokens[i].expand(6, -1, -1), x[:, 5:]], dim=1)
        x = block(x)
    expected = F.normalize(visual.ln_post(x)[:, 0] @ visual.proj, dim=-1)
    assert torch.allclose(prompt.encode(pixels()), expected, atol=1e-5)
    assert not torch.allclose(expected, plain("vit"), atol=1e-2)
    assert torch.allclose(model_of("vit").encode_image(pixels(), normalize=True), plain("vit"))  # no hook is left


@pytest.mark.parametrize(
    ("tower", "kind"), [("convnet", "border"), ("vit", "border"), ("vit", "shallow"), ("vit", "deep")]
)
def test_learning_lowers_the_loss_and_leaves_the_model_alone(tower: str, kind: str) -> None:
    model = model_of(tower)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = F.normalize(torch.randn(3, 64, generator=torch.Generator().manual_seed(5)), dim=-1).numpy()
    labels = np.array([0, 0, 1, 1, 2, 2])
    options = VptOptions(kind, tokens=4)
    options = VptOptions(kind, tokens=4, schedule=Schedule(12, 2.0 if kind == "border" else 0.2, 6, 0.9, 0.0, 1, None))
    runs = [learn_visual_prompt(model, weights, FewShots([], pixels(), labels, 20.0), options, 0) for _ in range(2)]
    prompt, learned = runs[0]
    assert learned.losses[-1] < learned.losses[0]
    for name, tensor in learned.tensors.items():
        np.testing.assert_array_equal(tensor, runs[1][1].tensors[name])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    if kind == "border":  # the middle of the picture is not touched
        features = prompt.encode(pixels() + F.pad(torch.zeros(3, 24, 24), (4, 4, 4, 4)))
        assert features.shape == (6, 64)
        assert np.abs(learned.tensors["border"][:, 4:28, 4:28]).max() == 0 < np.abs(learned.tensors["border"]).max()


def test_default_schedule_and_errors() -> None:
    assert vpt_schedule(VptOptions()).rate == pytest.approx(5)  # 40 at a batch of 256
    assert vpt_schedule(VptOptions(), rate=7.0, epochs=3).rate_at(2) <= 7
    with pytest.raises(InputError, match="is a ModifiedResNet.*--kind border"):
        VisualPrompt(model_of("convnet"), VptOptions("deep"), 0)
    with pytest.raises(InputError, match="--border 17"):
        VisualPrompt(model_of("convnet"), VptOptions(border=17), 0)
    with pytest.raises(InputError, match="--kind middle"):
        VptOptions("middle")


def test_augmented_pictures_are_drawn_from_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(4)]
    preprocess = open_clip.image_transform(32, is_train=False)
    fresh = AugmentedPictures(model_of("vit"), preprocess, pictures)
    some = torch.tensor([0, 2, 2])
    first, again, other = (fresh(some, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first.shape == (3, 64) and torch.equal(first, again) and not torch.allclose(first, other)
    assert not torch.allclose(first[1], first[2])  # the same picture, cropped twice
    random = torch.Generator().manual_seed(0)
    boxes = np.array([random_box(50, 40, random) for _ in range(300)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all() and boxes[:, 2].max() == 50 and boxes[:, 3].max() == 40
    assert (w * h).min() < 0.15 * 2000 and (w * h).max() > 0.9 * 2000
    assert (w / h).min() > 0.6 and (w / h).max() < 1.6
