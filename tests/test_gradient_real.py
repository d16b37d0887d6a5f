"""The gradient baselines on the embedded model and on RN50's architecture: exact, harmless, and safe to kill."""

from __future__ import annotations

import signal
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from forked import MODELS
from trial_runs import start

from promptsearch.banks import Template
from promptsearch.evaluators import Encoder, default_cache, resolve_model
from promptsearch.search.gradient import (
    Checkpoint,
    CoOpOptions,
    FewShots,
    Learned,
    NamesOptions,
    PezOptions,
    Schedule,
    SparseOptions,
    TextTower,
    VisualPrompt,
    VptOptions,
    Words,
    context_layout,
    coop,
    learn_ensemble,
    learn_names,
    learn_visual_prompt,
    pez,
)
from promptsearch.search.gradient.names import name_layout

NAMES = ("airplane", "automobile", "pickup truck")


@cache
def model_of(kind: str) -> tuple[Any, Any]:
    """The embedded model with its trained weights, or RN50 with random ones."""
    if kind == "tiny":
        cache_ = default_cache()
        encoder = Encoder(resolve_model("tiny", cache_, device="cpu"), cache_)
        return encoder.model, encoder.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("RN50", pretrained=None)
    return model.eval().requires_grad_(False), open_clip.get_tokenizer("RN50")


@pytest.mark.parametrize("kind", ["tiny", "RN50"])
def test_untrained_parameters_give_the_plain_encoders_output(kind: str) -> None:
    model, tokenizer = model_of(kind)
    tower = TextTower(model, tokenizer)
    with torch.no_grad():
        expected = model.encode_text(tokenizer([f"a photo of a {n}." for n in NAMES]), normalize=True)
    context = tower.embeddings(tower.tokens("a photo of a"))
    assert torch.allclose(tower.encode(context_layout(tower, NAMES, 4), context), expected, atol=1e-5)
    specific = tower.encode(context_layout(tower, NAMES, 4, specific=True), context.repeat(3, 1))
    assert torch.allclose(specific, expected, atol=1e-5)
    layout, own = name_layout(tower, NAMES, NamesOptions(Template("a photo of a {}.")))
    names = torch.cat([tower.embeddings(o) for o in own])
    assert torch.allclose(tower.encode(layout, names), expected, atol=1e-5)
    side = model.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.encode_image(pixels, normalize=True)
        assert torch.allclose(VisualPrompt(model, VptOptions("border"), 0).encode(pixels), plain, atol=1e-5)


def test_every_method_leaves_the_weights_bit_identical() -> None:
    model, tokenizer = model_of("tiny")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tower = TextTower(model, tokenizer)
    labels = np.repeat(np.arange(3), 2)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, model.text_projection.shape[1])).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    quick = Schedule(2, rate=0.01, batch=3)
    shots = FewShots(NAMES, features, labels, 20.0)
    coop(tower, shots, CoOpOptions(vectors=2, schedule=quick), 0)
    names = learn_names(tower, shots, NamesOptions(schedule=quick), 0)
    pez(tower, Words(tower), shots, PezOptions(tokens=2, steps=3), 0)
    side = model.visual.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)
    pixels = torch.randn(6, 3, *size)
    shots = FewShots(NAMES, pixels, labels, 20.0)
    learn_visual_prompt(model, names.class_weights, shots, VptOptions(schedule=quick), 0)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("gumbel", [False, True])
def test_a_mixture_that_was_cut_off_ends_the_same(tmp_path: Path, gumbel: bool) -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(9, 3, 8)).astype(np.float32)
    features, labels = rng.normal(size=(12, 8)).astype(np.float32), np.arange(12) % 3
    templates = [f"{i} {{}}" for i in range(9)]
    given = (templates, bank, FewShots(NAMES, features, labels, 5.0), SparseOptions(2, steps=300, gumbel=gumbel), 3)
    whole, learned = learn_ensemble(*given)

    class Killed(Exception):
        pass

    def kill(done: int, total: int, what: str) -> None:
        if done == 200:
            raise Killed

    kept = Checkpoint(tmp_path / "mixture.pt", "k")
    with pytest.raises(Killed):
        learn_ensemble(*given, checkpoint=kept, progress=kill)
    again, resumed = learn_ensemble(*given, checkpoint=kept)
    assert again == whole and resumed.losses == learned.losses
    np.testing.assert_array_equal(resumed.class_weights, learned.class_weights)


def coop_process(home: Path, out: Path) -> subprocess.Popen[str]:
    args = ["coop", "--model", "tiny", "--dataset", "cifar10", "--shots", "4", "--vectors", "4", "--epochs", "40"]
    return start(*args, "--device", "cpu", "--quiet", "--save", out, imports=MODELS, PROMPTSEARCH_HOME=str(home))


def test_a_process_that_is_killed_while_it_trains_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = coop_process(tmp_path / "whole", tmp_path / "whole.safetensors")
    killed = coop_process(tmp_path / "home", tmp_path / "killed.safetensors")
    epochs = 0
    while epochs < 5 and killed.poll() is None:
        time.sleep(0.02)
        for file in (tmp_path / "home").rglob("*.pt"):
            epochs = len(torch.load(file, weights_only=True)["losses"])
    assert killed.poll() is None, killed.communicate(timeout=240)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=240)
    assert not (tmp_path / "killed.safetensors").exists()
    resumed = coop_process(tmp_path / "home", tmp_path / "killed.safetensors")
    for process in (whole, resumed):
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    first, second = Learned.load(tmp_path / "whole.safetensors"), Learned.load(tmp_path / "killed.safetensors")
    np.testing.assert_array_equal(first.tensors["context"], second.tensors["context"])
    np.testing.assert_array_equal(first.class_weights, second.class_weights)
    assert first.losses == second.losses and len(first.losses) == 40
