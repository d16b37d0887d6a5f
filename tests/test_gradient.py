"""Learnt vectors: the forward pass is open_clip's own, gradients reach nothing else, training can be killed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import TINY

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.scoring.metrics import score_weights
from promptsearch.search.gradient import (
    BankHull,
    Checkpoint,
    CoOpOptions,
    FewShots,
    Learned,
    NamesOptions,
    PezOptions,
    Schedule,
    SparseOptions,
    TextTower,
    Words,
    context_layout,
    coop,
    decode_context,
    decode_names,
    learn_ensemble,
    learn_names,
    pez,
    published_epochs,
)
from promptsearch.search.gradient.hull import project_to_simplex
from promptsearch.search.gradient.names import name_layout

NAMES = ("cat", "aquarium fish", "airplane")
KINDS = ("CLIP", "CustomTextCLIP", "custom blocks", "eos pooling")


@cache
def model_of(kind: str = "CLIP") -> tuple[torch.nn.Module, open_clip.SimpleTokenizer]:
    """A random model of the embedded one's shape, its weights far enough from zero for gradients to be seen."""
    cfg = json.loads((TINY / "open_clip_config.json").read_text())["model_cfg"]
    cfg["vision_cfg"] |= {"width": 8, "head_width": 32}
    if kind == "custom blocks":
        cfg["text_cfg"] |= {"qk_norm": True, "scale_attn_inner": True, "scale_heads": True}
    if kind == "eos pooling":
        cfg["text_cfg"] |= {"pool_type": "eos", "eos_id": 49407}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.model.CustomTextCLIP(**cfg) if kind == "CustomTextCLIP" else open_clip.model.CLIP(**cfg)
        for name, p in model.named_parameters():
            if name.endswith(("weight", "bias")) and "visual" not in name and p.ndim < 3:
                p.data += 0.02 * torch.randn(p.shape)
    return model.eval().requires_grad_(False), open_clip.SimpleTokenizer(context_length=24)


@cache
def tower_of(kind: str = "CLIP") -> TextTower:
    return TextTower(*model_of(kind))


@cache
def words() -> Words:
    return Words(tower_of())


def plain(texts: list[str], kind: str = "CLIP") -> torch.Tensor:
    model, tokenizer = model_of(kind)
    with torch.no_grad():
        return model.encode_text(tokenizer(texts), normalize=True)


def shots(count: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic pictures around directions of their own for each class: (N, D) unit vectors, (N,) labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(NAMES)), count)
    centres = np.random.default_rng(99).normal(size=(len(NAMES), 64))
    x = centres[labels] + rng.normal(size=(len(labels), 64))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
def test_a_context_of_real_embeddings_gives_the_texts_own_features(kind: str, position: str, specific: bool) -> None:
    tower = tower_of(kind)
    layout = context_layout(tower, NAMES, 4, position, specific)
    context = tower.embeddings(tower.tokens("a photo of a")).repeat(len(NAMES) if specific else 1, 1)
    form = {"end": "a photo of a {}.", "middle": "a photo {} of a.", "front": "{} a photo of a."}[position]
    expected = plain([form.replace("{}", n) for n in NAMES], kind)
    assert torch.allclose(tower.encode(layout, context), expected, atol=1e-5)


@given(st.lists(st.text("abcdefghij .,!", min_size=1, max_size=20), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_texts_are_encoded_as_by_the_model(texts: list[str]) -> None:
    tower = tower_of()
    features = tower.encode(tower.layout([tower.tokens(t) for t in texts]))
    assert torch.allclose(features, plain(texts), atol=1e-5)


def plain_gradient(context: torch.Tensor, x: torch.Tensor, y: torch.Tensor, kind: str) -> torch.Tensor:
    """CoOp's gradient through open_clip's own tower: full context, embeddings put in by a hook."""
    model, tokenizer = model_of(kind)
    text = model if kind != "CustomTextCLIP" else model.text
    context = context.clone().requires_grad_(True)
    ids = tokenizer(["a photo of a " + n + "." for n in NAMES])

    def put_in(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        return torch.cat([out[:, :1], context.expand(len(NAMES), -1, -1), out[:, 5:]], dim=1)

    handle = text.token_embedding.register_forward_hook(put_in)
    try:
        weights = model.encode_text(ids, normalize=True)
    finally:
        handle.remove()
    return torch.autograd.grad(F.cross_entropy(20 * x @ weights.T, y), context)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_through_open_clip(kind: str) -> None:
    tower = tower_of(kind)
    features, labels = shots()
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    context = 0.1 * torch.randn(4, tower.width, generator=torch.Generator().manual_seed(1))
    layout = context_layout(tower, NAMES, 4)
    ours = context.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(20 * x @ tower.encode(layout, ours).T, y), ours)
    expected = plain_gradient(context, x, y, kind)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradient, expected, atol=1e-5 * float(expected.abs().max()) + 1e-6)


def test_names_start_as_the_templates_own() -> None:
    tower = tower_of()
    for template in ("a photo of a(n) {}.", "{} in the dark", "the {}"):
        layout, own = name_layout(tower, NAMES, NamesOptions(Template(template)))
        start = torch.cat([tower.embeddings(o) for o in own])
        expected = plain([Template(template).fill(n) for n in NAMES])
        assert torch.allclose(tower.encode(layout, start), expected, atol=1e-5)
    with pytest.raises(InputError, match="put spaces around"):
        name_layout(tower, NAMES, NamesOptions(Template("many {}s")))


def test_published_schedule() -> None:
    assert [published_epochs(k) for k in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    # Against torch's own cosine, stepped as CoOp's code steps it after one constant epoch.
    p = torch.nn.Parameter(torch.zeros(1))
    optim = torch.optim.SGD([p], lr=0.002)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 50)
    expected = [1e-5]
    for _ in range(49):
        expected.append(optim.param_groups[0]["lr"])
        optim.step()
        cosine.step()
    assert [Schedule(50).rate_at(e) for e in range(50)] == pytest.approx(expected, rel=1e-6)
    linear = Schedule(10, warmup=4, warmup_rate=None, rate=1.0)
    assert [linear.rate_at(e) for e in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


QUICK = CoOpOptions(vectors=4, schedule=Schedule(8, rate=0.05, batch=5))


@pytest.mark.parametrize(
    "options",
    [QUICK, replace(QUICK, specific=True), replace(QUICK, position="middle"), replace(QUICK, init="a photo of a")],
    ids=["unified", "specific", "middle", "text"],
)
def test_coop_learns_repeats_itself_and_leaves_the_model_alone(options: CoOpOptions) -> None:
    model, tokenizer = model_of()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    features, labels = shots()
    few = FewShots(NAMES, features, labels, 20.0)
    first, again, other = (coop(tower_of(), few, options, seed) for seed in (3, 3, 4))
    assert first.losses[-1] < first.losses[0]
    np.testing.assert_array_equal(first.class_weights, again.class_weights)
    assert not np.array_equal(first.class_weights, other.class_weights)
    assert first.steps == 8 * 2 and len(first.losses) == 8  # 12 pictures: two full batches of 5, the rest left out
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    np.testing.assert_allclose(np.linalg.norm(first.class_weights, axis=1), 1, atol=1e-5)


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    features, labels = shots()
    whole = coop(tower_of(), FewShots(NAMES, features, labels, 20.0), QUICK, 3)

    class Killed(Exception):
        pass

    def kill(done: int, total: int, what: str) -> None:
        if done == 3:
            raise Killed

    kept = Checkpoint(tmp_path / "a" / "coop.pt", "k")
    with pytest.raises(Killed):
        coop(tower_of(), FewShots(NAMES, features, labels, 20.0), QUICK, 3, checkpoint=kept, progress=kill)
    calls: list[int] = []
    few = FewShots(NAMES, features, labels, 20.0)
    resumed = coop(tower_of(), few, QUICK, 3, checkpoint=kept, progress=lambda d, t, w: calls.append(d))
    assert calls == [3, 4, 5, 6, 7, 8]  # an epoch is kept when the first loss after it shows that it is good
    np.testing.assert_array_equal(resumed.class_weights, whole.class_weights)
    assert resumed.losses == whole.losses
    with pytest.raises(InputError, match="other options"):
        Checkpoint(kept.path, "other").load()
    kept.path.write_bytes(kept.path.read_bytes()[:100])
    with pytest.raises(PromptSearchError, match="damaged"):
        kept.load()


def test_pulls_bring_the_class_features_closer() -> None:
    features, labels = shots()
    hand = plain([f"a photo of a {n}." for n in NAMES]).numpy()
    bank = np.stack([plain([t.replace("{}", n) for n in NAMES]).numpy() for t in TEMPLATES])
    hull = BankHull(torch.from_numpy(bank))
    free = coop(tower_of(), FewShots(NAMES, features, labels, 20.0), QUICK, 0, bank=bank)
    near = coop(tower_of(), FewShots(NAMES, features, labels, 20.0), replace(QUICK, kg=8.0), 0, hand_written=hand)
    assert np.square(near.class_weights - hand).sum() < np.square(free.class_weights - hand).sum()
    held = coop(tower_of(), FewShots(NAMES, features, labels, 20.0), replace(QUICK, hull=30.0), 0, bank=bank)
    assert hull.distance(torch.from_numpy(held.class_weights)) < hull.distance(torch.from_numpy(free.class_weights))
    assert held.tensors["mixture"].sum() == pytest.approx(1, abs=1e-4)


TEMPLATES = ("a photo of a {}.", "a dark {}", "{} drawn by hand", "the {} far away", "many small {} things")


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_projection_is_the_nearest_point_of_the_simplex(values: list[float]) -> None:
    v = torch.tensor(values)
    w = project_to_simplex(v)
    assert w.min() >= 0 and float(w.sum()) == pytest.approx(1, abs=1e-4)
    gap = v - w  # optimal: equal where w > 0, not larger elsewhere
    assert (gap <= gap[w > 0].min() + 1e-4).all() and gap[w > 0].max() - gap[w > 0].min() < 1e-4


def test_a_mixture_of_the_bank_lies_in_its_hull() -> None:
    bank = F.normalize(torch.randn(6, 3, 16, generator=torch.Generator().manual_seed(2)), dim=-1)
    hull = BankHull(bank)
    w = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    assert torch.allclose(hull.mixture(hull.point(w), rounds=500), w, atol=1e-3)
    assert hull.distance(hull.point(w)) < 1e-5
    outside = (2 * bank[1]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(hull.distance(outside), outside)
    nudged = [float(hull.distance(outside.detach() + e * gradient)) for e in (1e-2, -1e-2)]
    assert (nudged[0] - nudged[1]) / 2e-2 == pytest.approx(float(gradient.square().sum()), rel=1e-2)


@pytest.mark.parametrize("gumbel", [False, True])
def test_the_learnt_ensemble_has_real_templates_and_finds_the_right_ones(gumbel: bool) -> None:
    rng = np.random.default_rng(0)
    features, labels = shots(16)
    bank = rng.normal(size=(12, len(NAMES), 64)).astype(np.float32)
    for good in (3, 7):  # two templates that point at the classes, each half
        centres = np.stack([features[labels == c].mean(0) for c in range(len(NAMES))])
        bank[good] = 30 * centres + 0.5 * bank[good]
    bank /= np.linalg.norm(bank, axis=2, keepdims=True)
    templates = [f"template {i} of a {{}}" for i in range(len(bank))]
    options = SparseOptions(size=2, steps=150, gumbel=gumbel)
    found, learned = learn_ensemble(templates, bank, FewShots(NAMES, features, labels, 20.0), options, 0)
    again, _ = learn_ensemble(templates, bank, FewShots(NAMES, features, labels, 20.0), options, 0)
    assert set(found.templates) == {templates[3], templates[7]} and found == again
    assert isinstance(found, PromptSet) and found.weights is not None
    assert learned.about["kept"] > 0.9  # little is lost by leaving the other templates out
    with pytest.raises(InputError, match="has only 12 templates"):
        learn_ensemble(templates, bank, FewShots(NAMES, features, labels, 20.0), SparseOptions(size=13), 0)


def test_words_are_tokenized_to_themselves() -> None:
    rng = np.random.default_rng(0)
    picked = rng.choice(words().ids.numpy(), 40).tolist()
    assert tower_of().tokens(words().text(picked)) == picked
    for metric in ("cosine", "euclidean"):
        assert words().nearest(tower_of().embeddings(picked), metric) == picked
    with pytest.raises(InputError, match="manhattan"):
        words().nearest(torch.zeros(1, 48), "manhattan")


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
def test_a_context_of_words_is_decoded_to_a_text_with_its_features(position: str, specific: bool) -> None:
    tower = tower_of()
    options = CoOpOptions(vectors=3, position=position, specific=specific)
    said = ["old wooden toy", "big red dog", "very small blue"][: 3 if specific else 1]
    context = tower.embeddings([t for s in said for t in tower.tokens(s)])
    templates = decode_context(words(), context.numpy(), len(NAMES), options)
    assert len(templates) == len(said)
    texts = [Template(templates[c % len(templates)]).fill(n) for c, n in enumerate(NAMES)]
    features = tower.encode(context_layout(tower, NAMES, 3, position, specific), context)
    assert torch.allclose(features, plain(texts), atol=1e-5)


def test_names_are_learnt_and_read_back() -> None:
    features, labels = shots()
    options = NamesOptions(vectors=2, schedule=Schedule(8, rate=0.01, batch=12, momentum=0, weight_decay=0))
    first, again = (learn_names(tower_of(), FewShots(NAMES, features, labels, 20.0), options, 1) for _ in range(2))
    assert first.losses[-1] < first.losses[0]
    np.testing.assert_array_equal(first.class_weights, again.class_weights)
    assert first.tensors["counts"].tolist() == [2, 2, 2]
    decoded = decode_names(words(), first.tensors["names"], first.tensors["counts"])
    assert [len(tower_of().tokens(n)) for n in decoded] == [2, 2, 2]
    start = torch.cat([tower_of().embeddings(tower_of().tokens(n)) for n in NAMES])
    assert decode_names(words(), start.numpy(), np.array([1, 2, 1])) == list(NAMES)


def test_pez_ends_with_a_text_that_scores_as_it_was_scored(tmp_path: Path) -> None:
    features, labels = shots()
    options = PezOptions(tokens=4, steps=250, rate=0.01)
    template, learned = pez(tower_of(), words(), FewShots(NAMES, features, labels, 20.0), options, 0)
    assert learned.about["best_loss"] == min(learned.losses) < learned.losses[0]
    texts = [Template(template).fill(n) for n in NAMES]
    np.testing.assert_allclose(learned.class_weights, plain(texts).numpy(), atol=1e-5)
    _, xent = score_weights(learned.class_weights, features, labels, 20.0)
    assert xent == pytest.approx(learned.about["best_loss"], abs=1e-4)

    class Killed(Exception):
        pass

    def kill(done: int, total: int, what: str) -> None:
        raise Killed

    kept = Checkpoint(tmp_path / "pez.pt", "k")
    with pytest.raises(Killed):
        pez(tower_of(), words(), FewShots(NAMES, features, labels, 20.0), options, 0, checkpoint=kept, progress=kill)
    resumed, _ = pez(tower_of(), words(), FewShots(NAMES, features, labels, 20.0), options, 0, checkpoint=kept)
    assert resumed == template


def test_bad_input_is_one_line() -> None:
    features, labels = shots()
    with pytest.raises(InputError, match="class 'aquarium fish' needs 25 positions.*context length is 24"):
        coop(tower_of(), FewShots(NAMES, features, labels, 20.0), CoOpOptions(vectors=20), 0)
    with pytest.raises(InputError, match="--position back"):
        CoOpOptions(position="back")
    with pytest.raises(InputError, match="--rate"):
        Schedule(3, rate=-1)
    with pytest.raises(InputError, match="options.hull the argument bank"):
        coop(tower_of(), FewShots(NAMES, features, labels, 20.0), CoOpOptions(hull=1.0), 0)
    cfg = json.loads((TINY / "open_clip_config.json").read_text())["model_cfg"]
    cfg["text_cfg"] |= {"no_causal_mask": True}
    with pytest.raises(InputError, match="need a causal text tower"):
        TextTower(open_clip.model.CustomTextCLIP(**cfg), model_of()[1])


def test_a_diverging_training_stops_and_keeps_the_epoch_before(tmp_path: Path) -> None:
    features, labels = shots()
    kept = Checkpoint(tmp_path / "c.pt", "k")
    calls = []

    def spoilt(batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        calls.append(1)
        return torch.from_numpy(features)[batch] * (float("nan") if len(calls) > 5 else 1)

    with pytest.raises(PromptSearchError, match="epoch 2, step 1 is nan.*has the last good epoch, 1"):
        coop(tower_of(), FewShots(NAMES, spoilt, labels, 20.0), QUICK, 0, checkpoint=kept)
    state = kept.load()
    assert state is not None and len(state["losses"]) == 2 and torch.isfinite(state["learnt"]["context"]).all()


@pytest.mark.parametrize(
    ("at", "message"), [(6, "epoch 3, step 0 is nan"), (16, "after epoch 7, the last one, is nan")]
)
def test_what_an_epochs_last_step_spoilt_is_not_kept(tmp_path: Path, at: int, message: str) -> None:
    """The loss that shows it is the next one: at the beginning of the next epoch, or behind them all."""
    features, labels = shots()
    kept = Checkpoint(tmp_path / "c.pt", "k")
    calls: list[int] = []

    def spoilt(batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        calls.append(1)
        return torch.from_numpy(features)[batch] * (float("nan") if len(calls) > at else 1)

    with pytest.raises(PromptSearchError, match=message):
        coop(tower_of(), FewShots(NAMES, spoilt, labels, 20.0), QUICK, 0, checkpoint=kept)
    state = kept.load()
    assert state is not None and len(state["losses"]) == at // 2 - 1


def test_what_was_learnt_is_saved_and_loaded(tmp_path: Path) -> None:
    learned = Learned(np.eye(3, 4, dtype=np.float32), {"context": np.ones((2, 5), np.float32)}, [1.0, 0.5], 2, {"a": 1})
    file = tmp_path / "new" / "coop.safetensors"
    learned.save(file, {"model": "tiny"})
    again = Learned.load(file)
    np.testing.assert_array_equal(again.class_weights, learned.class_weights)
    np.testing.assert_array_equal(again.tensors["context"], learned.tensors["context"])
    assert (again.losses, again.steps, again.about) == ([1.0, 0.5], 2, {"a": 1, "model": "tiny"})
    (tmp_path / "bad").write_bytes(b"x" * 40)
    for path in (tmp_path / "none", tmp_path / "bad"):
        with pytest.raises(InputError):
            Learned.load(path)
