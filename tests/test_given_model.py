"""A model given as open_clip's (model, preprocess, tokenizer): its vectors are its own, whatever else is cached."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.factory import get_model_config
from open_clip.model import CLIP, CustomTextCLIP, convert_weights_to_lp
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_model import TINY

from promptsearch import PromptSearch
from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, Encoder
from promptsearch.reports.folder import preprocessing

SIDE, WIDTH = 32, 32
VISION: dict[str, Any] = {"image_size": SIDE, "layers": 1, "width": WIDTH, "patch_size": 16, "head_width": 16}
TEXT: dict[str, Any] = {"context_length": 24, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 1}
TOKENIZER = open_clip.SimpleTokenizer(context_length=24)
PREPROCESS = open_clip.image_transform(SIDE, is_train=False)
TEXTS = ["a photo of a cat.", "a sketch of the dog.", "ship"]


def clip(vision: dict[str, Any] = VISION, text: dict[str, Any] = TEXT, **more: Any) -> Any:
    """A small random CLIP; the same weights whenever the shapes are the same."""
    torch.manual_seed(0)
    return CLIP(WIDTH, vision, text, **more).eval()


def coca() -> Any:
    config = get_model_config("coca_ViT-B-32")
    config["vision_cfg"] |= {**VISION, "attn_pooler_heads": 2}
    config["text_cfg"] |= {"width": WIDTH, "heads": 2, "layers": 1}
    config["multimodal_cfg"] |= {"width": WIDTH, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
    parts = ("multimodal_cfg", "text_cfg", "vision_cfg")
    return CoCa(embed_dim=WIDTH, **{k: config[k] for k in parts}).eval()


def pictures(n: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(n)]


def plain(model: Any, tokenizer: Any, texts: list[str] = TEXTS) -> np.ndarray:
    """open_clip's own unit vectors of texts, one by one."""
    with torch.no_grad():
        rows = torch.cat([model.encode_text(tokenizer([t])) for t in texts]).float()
    return np.asarray(torch.nn.functional.normalize(rows, dim=-1))


MODELS: dict[str, Any] = {
    "GELU": clip,
    "QuickGELU": lambda: clip(quick_gelu=True),
    "four heads": lambda: clip(text=TEXT | {"heads": 4}),
    "the last token pooled": lambda: clip(text=TEXT | {"pool_type": "last"}),
    "no causal mask": lambda: clip(text=TEXT | {"no_causal_mask": True}),
    "a ResNet": lambda: clip(VISION | {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}),
    "custom text": lambda: CustomTextCLIP(WIDTH, VISION, TEXT).eval(),
    "as SigLIP": lambda: CustomTextCLIP(WIDTH, VISION, TEXT | {"pool_type": "last", "proj_bias": True}).eval(),
}


def test_models_of_the_same_weights_have_their_own_vectors(tmp_path: Path) -> None:
    """Activation, heads and pooling leave no trace in the weights; one cache serves all."""
    cache, met = Cache(tmp_path), set()
    for name, make in MODELS.items():
        model = make()
        encoder = Encoder.of_model(model, PREPROCESS, TOKENIZER, cache)
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), plain(model, TOKENIZER), atol=1e-5, err_msg=name)
        with torch.no_grad():
            images = model.encode_image(torch.stack([PREPROCESS(p) for p in pictures()]), normalize=True).numpy()
        np.testing.assert_allclose(encoder.encode_pictures(pictures()), images, atol=1e-5, err_msg=name)
        again = Encoder.of_model(make(), PREPROCESS, TOKENIZER, cache).spec.fingerprint
        assert name.startswith(("custom", "as")) or again == encoder.spec.fingerprint, name  # these are not seeded
        met.add(encoder.spec.fingerprint)
    assert len(met) == len(MODELS)


def test_coca_is_a_model_too(tmp_path: Path) -> None:
    model, tokenizer = coca(), open_clip.SimpleTokenizer(context_length=76)
    encoder = Encoder.of_model(model, PREPROCESS, tokenizer, Cache(tmp_path))
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), plain(model, tokenizer), atol=1e-5)


class Renaming(open_clip.SimpleTokenizer):
    """A tokenizer of one's own."""

    word = "dog"

    def __call__(self, texts: Any, context_length: int | None = None) -> Any:
        return super().__call__([t.replace("cat", self.word) for t in texts], context_length)


def test_tokenizers_of_one_type_have_their_own_vectors(tmp_path: Path) -> None:
    cache, model = Cache(tmp_path), clip()
    fox = Renaming(context_length=24)
    fox.word = "fox"
    for tokenizer in (
        TOKENIZER,
        open_clip.SimpleTokenizer(context_length=24, clean="whitespace"),
        Renaming(context_length=24),
        fox,
        lambda texts: TOKENIZER([t.replace("sketch", "oil painting") for t in texts]),
        lambda texts: TOKENIZER([t.replace("sketch", "graffiti") for t in texts]),
    ):
        encoder = Encoder.of_model(model, PREPROCESS, tokenizer, cache)
        texts = [*TEXTS, "A CAT"]
        np.testing.assert_allclose(encoder.encode_texts(texts), plain(model, tokenizer, texts), atol=1e-5)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "open_clip's fp16"])
def test_models_of_other_precisions_encode_pictures(tmp_path: Path, cast: str) -> None:
    exact, model = clip(), clip()
    model = getattr(model, cast)() if cast.isidentifier() else model
    if not cast.isidentifier():
        convert_weights_to_lp(model)
    known = Encoder.of_model(exact, PREPROCESS, TOKENIZER, Cache(tmp_path))
    ours = Encoder.of_model(model, PREPROCESS, TOKENIZER, Cache(tmp_path))
    assert np.abs(ours.encode_pictures(pictures()) - known.encode_pictures(pictures())).max() < 0.02
    assert np.abs(ours.encode_texts(TEXTS) - known.encode_texts(TEXTS)).max() < 0.02


def test_what_is_no_triple_is_said_to_be_none(tmp_path: Path) -> None:
    from torchvision.transforms import Compose, Resize, ToTensor
    from transformers import CLIPConfig, CLIPModel

    model = clip()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    other = CLIPModel(CLIPConfig(vision_config=sizes, text_config=sizes | {"vocab_size": 100}, projection_dim=16))
    training = open_clip.image_transform(SIDE, is_train=True)
    for triple, message in (
        ((model, TOKENIZER, PREPROCESS), "its preprocess fails ('Image' object is not iterable); give an open_clip"),
        ((model, PREPROCESS, PREPROCESS), "its tokenizer fails"),
        ((model, PREPROCESS, None), "its tokenizer is of type NoneType; give an open_clip triple"),
        ((model, training, TOKENIZER), "its preprocess gives another result each time, as for training; give the tran"),
        ((model, Compose([Resize(8), ToTensor()]), TOKENIZER), "its preprocess does not make pictures of one shape"),
        (
            (model, Compose([Resize((8, 8)), ToTensor()]), TOKENIZER),
            "its preprocess makes (8, 8) pixels, and it ne",
        ),
        ((model, PREPROCESS, lambda texts: texts), "its tokenizer does not make token ids (n, L)"),
        ((torch.nn.DataParallel(model), PREPROCESS, TOKENIZER), "a DataParallel is a wrapper; give its .module"),
        (("RN50", PREPROCESS, TOKENIZER), "a str is no model of open_clip; give an open_clip triple"),
        ((other, PREPROCESS, TOKENIZER), "a CLIPModel is no model of open_clip; give"),
    ):
        with pytest.raises(InputError, match=f"^model: {re.escape(message)}"):
            PromptSearch(triple, bank=["a {}."]).fit(pictures(2), ["cat", "dog"])


def test_exports_of_a_given_model_are_right_or_refused(tmp_path: Path) -> None:
    """What names the model or its preprocessing cannot hold objects."""
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    model, tokenizer = clip(), TOKENIZER
    of_ones_own = Compose([Resize((SIDE, SIDE)), ToTensor(), Normalize((0.5,) * 3, (0.5,) * 3)])
    for preprocess in (PREPROCESS, of_ones_own):
        ps = PromptSearch((model, preprocess, tokenizer), bank=["a {}."], estimate=False)
        ps.set_params(storage=str(tmp_path / "runs.db"), study=f"run {id(preprocess)}")
        ps.fit(pictures(4), ["cat", "dog"] * 2)
        ps.export("open_clip", tmp_path / "weights.safetensors")
        classifier = load_file(tmp_path / "weights.safetensors")["classifier"].numpy()
        np.testing.assert_allclose(classifier.T, ps.class_weights_)
        for form, message in (
            ("folder", "format folder: a model that was given as objects has no configuration to write; name it"),
            ("python", "its model was given as objects, which a script cannot load; use format open-clip"),
        ):
            with pytest.raises(InputError, match=re.escape(message)):
                ps.export(form, tmp_path / form)
        with pytest.raises(InputError, match="its model was given as objects, which no run holds; call fit with the"):
            PromptSearch.load(f"run {id(preprocess)}", storage=str(tmp_path / "runs.db"))
        if preprocess is of_ones_own:
            with pytest.raises(InputError, match="given with a preprocess of its own, which no file holds; use format"):
                ps.export("onnx", tmp_path / "own")
            continue
        assert preprocessing(ps._encoder)["size"] == [SIDE, SIDE]  # as the ONNX model's script uses it


def test_a_fitted_estimator_is_used_with_its_own_model_only(tmp_path: Path) -> None:
    """A pickle holds no model: it opens the named one again, which may have been replaced."""
    folder = tmp_path / "clip"
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("pack"))
    ps = PromptSearch(f"local-dir:{folder}", bank=["a {}.", "a photo of a {}."], device="cpu", estimate=False)
    features = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    ps.fit(pictures(6), ["cat", "dog"] * 3)
    kept, known = pickle.dumps(ps), ps.predict_proba(pictures())
    np.testing.assert_array_equal(pickle.loads(kept).predict_proba(pictures()), known)
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file({k: v * 1.01 if v.ndim > 1 else v for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    assert (pickle.loads(kept).predict(features) == ps.predict(features)).all()  # features need no model
    for changed in (pickle.loads(kept), copy.deepcopy(ps).set_params(model="zeroshot")):
        with pytest.raises(InputError, match="is not the model that this PromptSearch was fitted with"):
            changed.predict(pictures())
