"""Prefix-shared text encoding gives what the model's own encode_text gives, or says why it is not used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP, convert_weights_to_lp
from tiny_model import TINY
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.encoding import text_encoder as text_module
from promptsearch.evaluators.encoding import text_encoder as tower_module
from promptsearch.evaluators.encoding.text_encoder import TextEncoder

EOT = 49407
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3, "eos_id": EOT}
TEXTS = [
    "a photo of a cat.",
    "a photo of a car.",
    "a photo of a",
    "a photo of a cat.",
    "a blurry picture, of! two dogs",
    "A Photo of a CAT.",
    "",
    "!",
    "déjà vu ﬁancée 東京 🦊👩‍👩‍👧 \u202eabc\u202c \x00 &amp;amp; e\u0301",
    "<end_of_text> in the middle <start_of_text>",
    "a very long text " * 30,
    "a very long text " * 30 + "that ends otherwise",
    *(f"{kind} of the {thing}{end}" for kind in ("a sketch", "an origami") for thing in "abcdefgh" for end in ".!?"),
]


def build(cls: type = CLIP, *, quick_gelu: bool = False, **text: Any) -> nn.Module:
    """A small model whose biases, norms and scales are random too, so that none can be forgotten unnoticed."""
    torch.manual_seed(0)
    return randomised(cls(embed_dim=24, vision_cfg=VISION, text_cfg={**TEXT, **text}, quick_gelu=quick_gelu))


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def tokenizer(context: int = 16) -> Callable[[list[str]], torch.Tensor]:
    return open_clip.SimpleTokenizer(context_length=context)


@torch.inference_mode()
def plain(model: Any, tokens: Callable[[list[str]], torch.Tensor], texts: list[str]) -> np.ndarray:
    return F.normalize(model.encode_text(tokens(texts)).float(), dim=-1).numpy()


def assert_same(model: Any, tokens: Callable[[list[str]], torch.Tensor], texts: list[str], **options: Any) -> None:
    encoder = TextEncoder(model, tokens, **options)
    assert encoder.shared and encoder.why_plain is None
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, plain(model, tokens, texts), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    config = json.loads((TINY / "open_clip_config.json").read_text())
    torch.manual_seed(0)
    return randomised(CLIP(**config["model_cfg"]))


@pytest.mark.parametrize("nodes", [None, 1, 20, 75])
def test_the_embedded_architecture(tiny: nn.Module, nodes: int | None) -> None:
    assert_same(tiny, tokenizer(24), TEXTS, nodes=nodes)


@pytest.mark.parametrize("block", [1, 5, 1000])
def test_any_size_of_attention_block(tiny: nn.Module, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_module, "BLOCK", block)
    assert_same(tiny, tokenizer(24), TEXTS)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_without_onednn(quick_gelu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_module, "_onednn", lambda *_: False)
    assert_same(build(quick_gelu=quick_gelu), tokenizer(), TEXTS)


def test_texts_are_tokenized_in_parts(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "TEXTS", 7)
    assert_same(tiny, tokenizer(24), TEXTS)


@pytest.mark.parametrize("cls", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize("pool", ["argmax", "eos", "last", "first"])
def test_every_pooling(cls: type, pool: str) -> None:
    assert_same(build(cls, pool_type=pool), tokenizer(), TEXTS)


def test_eos_pooling_without_an_eos_token_pools_the_first() -> None:
    assert_same(build(pool_type="eos", eos_id=49000), tokenizer(), TEXTS[:4])


@pytest.mark.parametrize(
    "options",
    [
        {"quick_gelu": True},
        {"ls_init_value": 0.3},
        {"proj_bias": True},
        {"proj_type": "none"},
        {"mlp_ratio": 2.0},
        {"act_kwargs": {"approximate": "tanh"}},
        {"norm_kwargs": {"eps": 1e-3}},
        {"block_type": "custom"},
        {"qk_norm": True},
        {"scale_heads": True},
        {"scale_attn_inner": True, "scale_attn": True, "scale_fc": True, "ls_init_value": 0.5},
    ],
    ids=lambda options: "+".join(options),
)
def test_every_kind_of_layer(options: dict[str, Any]) -> None:
    assert_same(build(CustomTextCLIP, **options), tokenizer(), TEXTS)


def test_rn50() -> None:
    model = randomised(open_clip.create_model("RN50", pretrained=None))
    texts = ["a photo of a cat.", "a photo of a dog.", "itap of my cat.", "x " * 100, "a photo of a cat."]
    assert_same(model, open_clip.get_tokenizer("RN50"), texts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pure", [False, True])
def test_low_precision(dtype: torch.dtype, pure: bool) -> None:
    torch.manual_seed(0)
    model = randomised(CLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT, cast_dtype=None if pure else dtype))
    if pure:
        model.to(dtype)
    else:
        convert_weights_to_lp(model, dtype)
    vectors, own = TextEncoder(model, tokenizer()).encode(TEXTS), plain(model, tokenizer(), TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * own).sum(axis=1).min() > 0.999


class Counting:
    """A tokenizer that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        return tokenizer()(texts)


@pytest.mark.parametrize("causal", [True, False])
def test_duplicates_are_encoded_once_and_order_is_kept(causal: bool) -> None:
    model, counting = build(CustomTextCLIP, no_causal_mask=not causal), Counting()
    texts = ["b", "a", "b", "c", "a"]
    vectors = TextEncoder(model, counting).encode(texts)
    assert sorted(counting.asked) == ["a", "b", "c"]
    np.testing.assert_allclose(vectors, plain(model, tokenizer(), texts), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize("causal", [True, False])
def test_one_text_and_no_text(causal: bool) -> None:
    model = build(CustomTextCLIP, no_causal_mask=not causal)
    encoder = TextEncoder(model, tokenizer())
    np.testing.assert_allclose(encoder.encode(["one"]), plain(model, tokenizer(), ["one"]), atol=1e-5, rtol=0)
    assert encoder.encode([]).shape == (0, 24)
    assert encoder.encode([]).dtype == np.float32


def leaky(model: Any) -> None:
    model.attn_mask[0, 1] = 0.0


def wrapped(model: Any) -> None:
    block = model.transformer.resblocks[1]
    block.mlp.c_fc = nn.utils.parametrizations.weight_norm(block.mlp.c_fc)


@pytest.mark.parametrize(("change", "reason"), [(leaky, "not causal"), (wrapped, "layer 1 .* ParametrizedLinear")])
def test_a_changed_tower_falls_back(change: Callable[[Any], None], reason: str) -> None:
    model = build()
    change(model)
    assert_plain(model, reason)


@pytest.mark.parametrize("pool", ["argmax", "last"])
def test_a_tower_that_is_not_causal_falls_back(pool: str) -> None:
    assert_plain(build(CustomTextCLIP, no_causal_mask=True, pool_type=pool), "not causal")
    assert_plain(build(CLIP, no_causal_mask=True, pool_type=pool), "not causal")


def test_a_class_token_falls_back() -> None:
    assert_plain(build(CustomTextCLIP, embed_cls=True), "class token")


def test_coca_falls_back() -> None:
    torch.manual_seed(0)
    vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    text = {**TEXT, "embed_cls": True, "output_tokens": True}
    decoder = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}
    model = CoCa(embed_dim=32, multimodal_cfg=decoder, text_cfg=text, vision_cfg=vision)
    assert_plain(randomised(model), "CoCa")


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler"])
def test_a_hugging_face_tower_falls_back(pooler: str, tmp_path: Path) -> None:
    BertConfig(
        vocab_size=50000, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    ).save_pretrained(tmp_path)
    text = {"hf_model_name": str(tmp_path), "hf_model_pretrained": False, "hf_pooler_type": pooler}
    torch.manual_seed(0)
    text_cfg = {**text, "hf_proj_type": "linear", "context_length": 16}
    model = CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=text_cfg)
    assert_plain(randomised(model), "HFTextEncoder")


class Wrapper(nn.Module):
    """Somebody's own text tower."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.text

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.tower(tokens)


def test_unknown_models_and_towers_fall_back() -> None:
    model: Any = build(CustomTextCLIP)
    model.text = Wrapper(model)
    assert_plain(model, "text tower is a Wrapper")

    class Other(CLIP):
        pass

    assert_plain(build(Other), "it is a Other")


def assert_plain(model: Any, reason: str) -> None:
    encoder = TextEncoder(model, tokenizer())
    assert not encoder.shared
    assert encoder.why_plain is not None
    assert re.search(reason, encoder.why_plain)
    np.testing.assert_allclose(encoder.encode(TEXTS), plain(model, tokenizer(), TEXTS), atol=1e-5, rtol=0)


def test_a_string_is_not_a_list_of_texts() -> None:
    encoder = TextEncoder(build(), tokenizer())
    with pytest.raises(InputError, match="'a photo'.*list"):
        encoder.encode("a photo")
    with pytest.raises(InputError, match="text 1 is 7"):
        encoder.encode(["a", 7])  # type: ignore[list-item]


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 24\), but the text tower needs 16 per text"):
        TextEncoder(build(), tokenizer(24)).encode(["a"])
    with pytest.raises(InputError, match="token 49407, but the text tower has only 100 tokens"):
        TextEncoder(build(vocab_size=100), tokenizer()).encode(["a"])


def test_a_tower_without_pooling_is_refused() -> None:
    with pytest.raises(InputError, match="one vector per text"):
        TextEncoder(build(CustomTextCLIP, output_tokens=True), tokenizer()).encode(["a"])


def test_a_vector_that_is_not_finite_names_the_text() -> None:
    model: Any = build()
    with torch.no_grad():
        model.token_embedding.weight[tokenizer()(["zebra"])[0, 1]] = float("nan")
    with pytest.raises(PromptSearchError, match="'a zebra'"):
        TextEncoder(model, tokenizer()).encode(["a cat", "a zebra", "a dog"])


def test_the_trie_of_some_texts() -> None:
    trie = TextEncoder(build(), tokenizer()).trie(["a cat", "a dog", "a"])
    assert len(trie) == 7  # start, a, (cat, end), (dog, end), end
    with pytest.raises(InputError, match="not causal"):
        TextEncoder(build(no_causal_mask=True), tokenizer()).trie(["a"])


def test_nodes_must_be_positive() -> None:
    with pytest.raises(InputError, match="nodes is 0"):
        TextEncoder(build(), tokenizer(), nodes=0)
