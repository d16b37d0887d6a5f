"""SigLIP, EVA, MobileCLIP and CLIP in the formats of open_clip and of transformers: the same features as theirs."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_world import CLASSES, make_pictures, run
from PIL import Image

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Encoder, default_cache, open_problem, resolve_model
from promptsearch.reports.export import Winner, to_python, to_transformers
from promptsearch.runs.classifier import class_weights

TEXTS = ["a photo of a cat.", "a photo of a dog, and a ship", "one"]
LETTERS = [chr(c) for c in range(33, 127)]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), np.uint8)) for h, w in ((40, 61), (64, 32), (33, 33))]


def write_tokenizer(folder: Path, start: str, end: str) -> int:
    """Write a tokenizer of letters in transformers' format; its number of tokens."""
    from transformers import CLIPTokenizer

    marks = [*LETTERS, *(c + "</w>" for c in LETTERS), start, end]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(marks)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    made = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), bos_token=start, eos_token=end, pad_token=end
    )
    made.save_pretrained(folder)
    config = folder / "tokenizer_config.json"  # SigLIP reads the padding too: it has no mask
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_input_names": ["input_ids"]}))
    return len(marks)


def write_transformers(folder: Path, kind: str, **processor: Any) -> Any:
    """Save a small random CLIP or SigLIP of transformers with its processor, and return both."""
    import torch
    import transformers as tf

    folder.mkdir(exist_ok=True)
    size = write_tokenizer(folder, "<|startoftext|>", "<|endoftext|>")
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": size, "max_position_embeddings": 64}
    text |= {"eos_token_id": size - 1, "bos_token_id": size - 2, "pad_token_id": size - 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "clip":
            model: Any = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
        else:
            model = tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision))
            model.logit_scale.data.fill_(4.2)
            model.logit_bias.data.fill_(-11.0)
    model.eval().save_pretrained(folder)
    if kind == "clip":
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor

        settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    else:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil as Processor

        settings = {"size": {"height": 32, "width": 32}}
    made = Processor(**{**settings, **processor})
    made.save_pretrained(folder)
    return model, made


def unit(found: Any) -> np.ndarray:
    vectors = getattr(found, "pooler_output", found).detach().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("processor", [{}, {"resample": 2, "image_mean": [0.4, 0.5, 0.6]}], ids=["plain", "own"])
def test_folders_of_transformers_give_its_own_features(tmp_path: Path, kind: str, processor: dict[str, Any]) -> None:
    import torch
    from transformers import AutoTokenizer

    model, processor = write_transformers(tmp_path / "model", kind, **processor)
    encoder = Encoder(resolve_model(f"local-dir:{tmp_path}/model", default_cache(), device="cpu"), default_cache())
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")(
        TEXTS, padding="max_length", max_length=64, return_tensors="pt"
    )
    with torch.inference_mode():
        pixels = torch.as_tensor(np.stack(processor(pictures(), return_tensors="np")["pixel_values"]))
        images = unit(model.get_image_features(pixel_values=pixels))
        texts = unit(model.get_text_features(input_ids=tokens["input_ids"]))
    np.testing.assert_allclose(encoder.encode_pictures(pictures()), images, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-4)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    assert encoder.info["context_length"] == 64
    with pytest.raises(InputError, match="tokens and the model reads 64"):
        encoder.encode_texts(["x" * 90])


def test_a_search_and_its_exports_with_a_folder_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script of `export --to transformers` says the label that `predict` says."""
    write_transformers(tmp_path / "model", "siglip")
    data = make_pictures(tmp_path, train=4, test=2)
    (tmp_path / "bank.txt").write_text("a photo of a {}.\n")
    args = ["beam", "--model", f"local-dir:{tmp_path}/model", "--dataset", data, "--bank", tmp_path / "bank.txt"]
    run(*args, "--shots", 2, "--no-estimate", "--study", "own", "--device", "cpu", "--quiet")
    files = sorted(map(str, (data / "test" / CLASSES[0]).iterdir()))
    ours = [line.split(",")[1] for line in run("predict", "own", *files).stdout.splitlines()[1:]]
    script = tmp_path / "classify.py"
    run("export", "own", "--to", "transformers", "--out", script)
    monkeypatch.setattr(sys, "argv", [str(script), *files])
    capsys.readouterr()
    runpy.run_path(str(script), run_name="__main__")
    assert [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()] == ours
    for form in ("folder", "onnx", "python"):
        assert "transformers wrote" in run("export", "own", "--to", form, "--out", tmp_path / "x", code=2).stderr
    run("export", "own", "--to", "open-clip", "--out", tmp_path / "weights.safetensors")


def test_folders_of_transformers_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", default_cache()
    write_transformers(folder, "clip")
    spec = f"local-dir:{folder}"
    place = folder / "preprocessor_config.json"
    if not place.exists():
        place = folder / "processor_config.json"
    kept = {name: (folder / name).read_bytes() for name in ("config.json", place.name, "model.safetensors")}
    settings = json.loads(kept[place.name])
    settings = settings.get("image_processor", settings)
    config = json.loads(kept["config.json"])
    changes: list[tuple[str, bytes, str]] = [
        ("config.json", b"{", "not readable as JSON"),
        ("config.json", b"[]", "no JSON object"),
        *(("config.json", json.dumps({**config, "model_type": t}).encode(), "model_type") for t in ("bert", 3, None)),
        ("config.json", json.dumps({**config, "model_type": "siglip2"}).encode(), "NaFlex.*take one of a fixed size"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    ]
    for name, value in [
        ("do_resize", False),
        ("do_normalize", "yes"),
        ("rescale_factor", 1),
        ("resample", 9),
        ("image_mean", [0.5]),
        ("image_std", "wide"),
        ("size", {"longest_edge": 32}),
        ("size", {"shortest_edge": True}),
        ("size", {"height": 32, "width": 10**9}),
        ("crop_size", {"height": 0, "width": 32}),
    ]:
        changes.append(("preprocessor_config.json", json.dumps({**settings, name: value}).encode(), name))
    for name, content, words in changes:
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            resolve_model(spec, cache, device="cpu")
        if name in kept:
            (folder / name).write_bytes(kept[name])
        else:
            (folder / name).unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="no model.safetensors"):
        resolve_model(spec, cache, device="cpu")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    for text in ({"num_hidden_layers": 900, "hidden_size": 16384}, {"num_hidden_layers": 3}):
        changed = {**config, "text_config": {**config["text_config"], **text}}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(PromptSearchError, match="parameters, but|Missing key"):
            Encoder(resolve_model(spec, cache, device="cpu"), cache).encode_texts(["a"])
    (folder / "config.json").write_bytes(kept["config.json"])
    place.unlink()
    with pytest.raises(InputError, match="no preprocessor_config.json"):
        resolve_model(spec, cache, device="cpu")


#: The architectures by what is peculiar to them, in small: towers of timm, SigLIP's bias, texts that are not causal.
KINDS: dict[str, dict[str, Any]] = {
    "SigLIP": {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 2},
        "text_cfg": {
            "context_length": 40,
            "vocab_size": 190,
            "hf_tokenizer_name": "timm/small",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 16,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    "MobileCLIP": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "fastvit_t8",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
        },
    },
    "EVA": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "eva02_tiny_patch14_224",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
    "MetaCLIP": {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 2},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_architectures_of_open_clip_are_read_as_open_clip_reads_them(tmp_path: Path, kind: str) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder, config = tmp_path / "model", json.loads(json.dumps(KINDS[kind]))
    folder.mkdir()
    if kind == "SigLIP":
        config["text_cfg"]["vocab_size"] = write_tokenizer(folder, "<|startoftext|>", "<|endoftext|>")
    mean = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"} if kind == "SigLIP" else {}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": mean}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    made.logit_scale.data.fill_(4.5)
    save_file({k: v.contiguous() for k, v in made.state_dict().items()}, folder / "open_clip_model.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    encoder = Encoder(resolve_model(f"local-dir:{folder}", default_cache(), device="cpu"), default_cache())
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(p) for p in pictures()]), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_pictures(pictures()), images.numpy(), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts.numpy(), atol=2e-5)
    assert (
        encoder.logit_scale == pytest.approx(np.exp(4.5)) and encoder.info["context_length"] == tokenizer.context_length
    )

    # A bias that all classes share cancels in the softmax: scores and probabilities are those of scale * cosine + bias.
    data = make_pictures(tmp_path, train=4, test=2)
    problem = open_problem(f"local-dir:{folder}", str(data), device="cpu")
    task = problem.task(2, 0)
    from promptsearch.evaluators import Evaluator

    evaluator = Evaluator(task, problem.encoder.encode_texts, problem.encoder.logit_scale)
    weights = class_weights(PromptSet.of("a photo of a {}."), task.class_names, problem.encoder.encode_texts)
    logits = torch.from_numpy(task.support.features @ weights.T) * model.logit_scale.exp().item()
    logits = logits + (getattr(model, "logit_bias", None) or torch.zeros(()))
    expected = torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(task.support.labels)).item()
    (score,) = evaluator.score([PromptSet.of("a photo of a {}.")])
    assert score.xent == pytest.approx(expected, abs=1e-4)


def test_the_transformers_export_names_the_same_weights_or_refuses(tmp_path: Path) -> None:
    def script(model: str) -> str:
        return to_transformers(Winner(PromptSet.of("a photo of a {}."), ("cat", "dog"), "mine", model, "pets"))

    for model, checkpoint in [
        ("ViT-B-32:openai", "openai/clip-vit-base-patch32"),
        ("ViT-B-16-SigLIP:webli", "google/siglip-base-patch16-224"),
        ("ViT-B-16-SigLIP2-256:webli", "google/siglip2-base-patch16-256"),
        ("ViT-B-32-quickgelu:metaclip_400m", "facebook/metaclip-b32-400m"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ]:
        assert f"MODEL = {checkpoint!r}" in script(model)
    for model in ("EVA02-B-16:merged2b_s8b_b131k", "MobileCLIP-S1:datacompdr", "hf-hub:timm/ViT-B-16-SigLIP"):
        with pytest.raises(InputError, match="transformers does not have"):
            script(model)
    import open_clip

    from promptsearch.reports.export import _CHECKPOINTS

    known = set(open_clip.list_pretrained(as_str=True))
    assert _CHECKPOINTS.keys() <= known, sorted(_CHECKPOINTS.keys() - known)
    with pytest.raises(InputError, match="transformers wrote"):
        write_transformers(tmp_path / "model", "clip")
        to_python(Winner(PromptSet.of("a {}."), ("cat", "dog"), "mine", f"local-dir:{tmp_path}/model", "pets"))
