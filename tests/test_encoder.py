"""Features equal open_clip's own; weights that are wrong are refused in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pictures
from safetensors.torch import load_file, save_file
from tiny_model import TINY

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Cache, Encoder, default_cache, open_problem, resolve_model

TEXTS = ["a photo of a cat.", "a dark photo of the airplane.", "ship", "a photo of a cat."]


def pictures(n: int, side: int = 40) -> list[Pictures.Image]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    return [Pictures.fromarray(p).resize((side, side)) for p in small]


def reference(source: str, tag: str | None) -> tuple[np.ndarray, np.ndarray]:
    """open_clip's own features, one text and one picture at a time, as its documentation does it."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(source, pretrained=tag)
    model.eval()
    tokenizer = open_clip.get_tokenizer(source)
    with torch.no_grad():
        texts = torch.cat([model.encode_text(tokenizer([t]), normalize=True) for t in TEXTS])
        images = torch.cat([model.encode_image(preprocess(p)[None], normalize=True) for p in pictures(5)])
    return texts.numpy(), images.numpy()


@pytest.mark.parametrize(("spec", "source"), [("tiny", f"local-dir:{TINY}"), ("RN50:random", "RN50")])
def test_features_equal_open_clips(tmp_path: Path, spec: str, source: str) -> None:
    cache = Cache(tmp_path)
    encoder = Encoder(resolve_model(spec, cache), cache)
    texts, images = reference(source, None)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_pictures(pictures(5)), images, atol=1e-5)
    again = Encoder(resolve_model(spec, cache), cache)
    np.testing.assert_array_equal(again.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    assert not again.loaded  # all from the cache
    assert again.logit_scale == pytest.approx(encoder.logit_scale)


def test_bf16_pictures_are_close_and_cached_apart(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    plain = Encoder(resolve_model("tiny", cache), cache)
    half = Encoder(resolve_model("tiny", cache, precision="bf16"), cache)
    a, b = plain.encode_pictures(pictures(8)), half.encode_pictures(pictures(8))
    assert (a * b).sum(1).min() > 0.999 and not np.array_equal(a, b)
    assert plain.spec.picture_key != half.spec.picture_key


def test_a_prompt_longer_than_the_tower_names_template_and_class(tmp_path: Path) -> None:
    problem = open_problem("tiny", "cifar10", cache=default_cache())
    evaluator = problem.evaluator(problem.task(1, 0))
    long = "a photo of a {} " + "very " * 20 + "far away."
    with pytest.raises(InputError, match="template 'a photo of a .*class name 'airplane' has 30 tokens.*reads 24"):
        evaluator.score([PromptSet.of(long)])
    encoder = problem.encoder
    encoder.encode_texts(["word " * 22])  # 22 and the two ends: exactly what it reads
    with pytest.raises(InputError, match="25 tokens"):
        encoder.encode_texts(["word " * 23])


def test_lengths_asked_one_by_one_are_kept_and_end_as_one_block(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    encoder = Encoder(resolve_model("tiny", cache), cache)
    short, long = [f"a photo of cat number {i}." for i in range(30)], "a photo of a " + "very " * 30 + "small cat."
    assert all(encoder.fits([t]) for t in short) and not encoder.fits([long])
    encoder.close()
    assert len(list((tmp_path / "lengths").rglob("*.safetensors"))) == 1
    again = Encoder(resolve_model("tiny", cache), cache)
    assert again.fits(short) and not again.fits([short[0], long]) and "tokenizer" not in vars(again)


def test_a_vector_that_is_not_finite_names_its_picture(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.conv1.weight"][0] = float("inf")
    save_file(state, folder / "open_clip_model.safetensors")
    cache = Cache(tmp_path / "cache")
    encoder = Encoder(resolve_model(f"local-dir:{folder}", cache), cache)
    with pytest.raises(PromptSearchError, match="not finite for picture 0"):
        encoder.encode_pictures(pictures(3))


def test_no_picture_and_many_pictures(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    encoder = Encoder(resolve_model("tiny", cache), cache)
    assert encoder.encode_pictures(iter(())).shape == (0, 64)
    many = pictures(70)
    np.testing.assert_allclose(encoder.encode_pictures(iter(many))[:5], encoder.encode_pictures(many[:5]), atol=1e-5)


def tiny_state() -> dict[str, torch.Tensor]:
    return load_file(TINY / "open_clip_model.safetensors")


def folder_with(tmp_path: Path, **config: object) -> Path:
    """A small model of RN50's family that the package has never seen, with random weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    cfg = json.loads((TINY / "open_clip_config.json").read_text())
    cfg["model_cfg"] |= {"embed_dim": 32, **config}
    cfg["model_cfg"]["vision_cfg"]["width"] = 8
    cfg["model_cfg"]["vision_cfg"]["head_width"] = 32
    (folder / "open_clip_config.json").write_text(json.dumps(cfg))
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**cfg["model_cfg"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def picture_folder(tmp_path: Path) -> Path:
    """A parquet data set of three made-up classes in the hub's form."""
    folder = tmp_path / "data"
    folder.mkdir()
    features = Features({"picture": Image(), "kind": ClassLabel(names=["red_thing", "green_thing", "blue_thing"])})
    rng = np.random.default_rng(3)
    for split, n in (("train", 36), ("test", 30)):
        rows = {"picture": [], "kind": [i % 3 for i in range(n)]}
        for i in range(n):
            a = rng.integers(0, 90, (24, 24, 3), dtype=np.uint8)
            a[..., i % 3] += 120
            rows["picture"].append(Pictures.fromarray(a))
        Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def test_the_whole_job_on_a_model_and_pictures_never_seen(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from promptsearch.cli import main

    args = ["beam", "--model", f"local-dir:{folder_with(tmp_path)}", "--dataset", str(picture_folder(tmp_path))]
    result = CliRunner().invoke(main, [*args, "--bank", "templates", "--shots", "4", "--depth", "2", "--json"])
    assert result.exit_code == 0, result.output
    doc = json.loads(result.stdout)
    assert doc["test_pictures"] == 30 and doc["evaluations"] > 100
    assert doc["model"].startswith("local-dir:") and doc["notes"] == []


def test_weights_from_a_file_are_those_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = open_clip.create_model("RN50-quickgelu", pretrained=None)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")
    texts = ["a photo of a cat.", "two"]
    with torch.no_grad():
        expected = model.eval().encode_text(open_clip.get_tokenizer("RN50")(texts), normalize=True).numpy()
    for file in ("w.safetensors", "w.pt"):
        cache = Cache(tmp_path / file.replace(".", "-"))
        spec = resolve_model("RN50", cache, weights=tmp_path / file)  # RN50 means QuickGELU
        np.testing.assert_allclose(Encoder(spec, cache).encode_texts(texts), expected, atol=1e-5)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def bad_weights(kind: str, file: Path) -> None:
    state = tiny_state()
    if kind == "another shape":
        state["text_projection"] = torch.zeros(7, 7)
        save_file(state, file)
    elif kind == "missing keys":
        save_file({k: v for k, v in state.items() if "visual" not in k}, file)
    elif kind == "truncated":
        save_file(state, file)
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "truncated pt":
        torch.save(state, file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "a pickle that runs code":
        file.write_bytes(pickle.dumps(Malicious(file.parent / "ran")))
    elif kind == "a torch file that runs code":
        torch.save({"state_dict": Malicious(file.parent / "ran")}, file)
    else:
        file.write_bytes(b"not weights at all")


@pytest.mark.parametrize(
    ("kind", "suffix", "message"),
    [
        ("another shape", "safetensors", "do not fit.*size mismatch.*text_projection"),
        ("missing keys", "safetensors", "do not fit.*Missing key"),
        ("truncated", "safetensors", "cannot be loaded"),
        ("truncated pt", "bin", "weights .*open_clip_pytorch_model.bin"),
        ("a pickle that runs code", "bin", "refused"),
        ("a torch file that runs code", "bin", "refused"),
        ("nonsense", "bin", "weights .*open_clip_pytorch_model.bin"),
    ],
)
def test_bad_weights_are_one_line_and_run_nothing(tmp_path: Path, kind: str, suffix: str, message: str) -> None:
    name = "open_clip_model.safetensors" if suffix == "safetensors" else "open_clip_pytorch_model.bin"
    (tmp_path / "open_clip_config.json").write_text((TINY / "open_clip_config.json").read_text())
    bad_weights(kind, tmp_path / name)
    cache = Cache(tmp_path / "cache")
    encoder = Encoder(resolve_model(f"local-dir:{tmp_path}", cache), cache)
    with pytest.raises(PromptSearchError, match=message) as e:
        encoder.encode_texts(["a cat"])
    assert "\n" not in str(e.value)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_config_or_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="open_clip_config.json is missing"):
        resolve_model(f"local-dir:{tmp_path}", Cache(tmp_path / "c"))
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    with pytest.raises(InputError, match="no weights there"):
        resolve_model(f"local-dir:{tmp_path}", Cache(tmp_path / "c"))
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        resolve_model(f"local-dir:{tmp_path}", Cache(tmp_path / "c"))


def test_other_weights_are_another_fingerprint(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    cache = Cache(tmp_path / "cache")
    one = resolve_model(f"local-dir:{folder}", cache).fingerprint
    state = load_file(folder / "open_clip_model.safetensors")
    state["logit_scale"] += 1
    save_file(state, folder / "open_clip_model.safetensors")
    assert resolve_model(f"local-dir:{folder}", cache).fingerprint != one
    assert resolve_model("tiny", cache).fingerprint not in (one, "")


def test_pictures_are_encoded_once_and_survive_a_new_process(tmp_path: Path) -> None:
    data = picture_folder(tmp_path)
    cache = Cache(tmp_path / "cache")
    first = open_problem("tiny", str(data), cache=cache)
    task = first.task(3, 0)
    second = open_problem("tiny", str(data), cache=cache)
    again = second.task(3, 0)
    np.testing.assert_array_equal(task.support.features, again.support.features)
    assert not second.encoder.loaded
    assert again.open_test().features.shape == (30, 64) and second.encoder.loaded


@pytest.mark.parametrize("option", [{"picture_column": "nope"}, {"label_column": "nope"}])
def test_columns_that_are_not_there(tmp_path: Path, option: dict[str, str]) -> None:
    with pytest.raises(InputError, match="nope"):
        open_problem("tiny", str(picture_folder(tmp_path)), cache=Cache(tmp_path / "c"), **option)


def test_a_folder_with_one_bad_picture_names_it(tmp_path: Path) -> None:
    data = picture_folder(tmp_path)
    problem = open_problem("tiny", str(data), cache=Cache(tmp_path / "cache"))
    model = problem.encoder.model
    own, calls = model.encode_image, []

    def spoilt(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        out = own(x)
        if len(calls) == 2:
            out[1] = float("nan")  # the batch is of 3, so this is the fifth missing picture
        return out

    problem.encoder.picture_encoder.size, problem.encoder.picture_encoder._fused, model.encode_image = 3, None, spoilt
    with pytest.raises(PromptSearchError, match=r"split .train., picture 17; check that picture"):
        problem.source.features("train", np.array([20, 3, 5, 7, 17, 11]))


def test_running_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    encoder = Encoder(resolve_model("tiny", cache), cache, batch=5)
    too_much = lambda x: torch.empty(10**15)  # noqa: E731  (the allocator's own words)
    encoder.picture_encoder._fused = encoder.model.encode_image = too_much
    with pytest.raises(
        PromptSearchError, match="cpu ran out of memory with 5 pictures at a time; use a smaller --encode-batch"
    ):
        encoder.encode_pictures(pictures(7))
    encoder.model.ln_final.forward = too_much
    with pytest.raises(PromptSearchError, match="ran out of memory with 320 text prefixes.*a smaller --encode-batch"):
        encoder.encode_texts(["a cat"])
    with pytest.raises(InputError, match="--encode-batch 0: must be at least 1"):
        Encoder(resolve_model("tiny", cache), cache, batch=0)


def test_the_inner_loop_never_waits_for_the_device(tmp_path: Path) -> None:
    """On torch's meta device nothing can be read back: what would wait for a GPU raises there."""
    from promptsearch.evaluators.encoding.picture_encoder import PictureEncoder
    from promptsearch.evaluators.encoding.text_encoder import TextEncoder

    cache = Cache(tmp_path)
    spec = resolve_model("RN50:random", cache)
    encoder = Encoder(spec, cache)
    text = TextEncoder(encoder.model, encoder.tokenizer)
    trie = text.trie(TEXTS)
    encoder.model.to("meta")
    pictures = PictureEncoder(encoder.model, encoder.preprocess, "meta")
    assert pictures._unit_vectors(torch.zeros(2, 224, 224, 3, dtype=torch.uint8)).shape == (2, 1024)
    assert text._tower is not None and text._tower.features(trie, torch.device("meta")).shape == (4, 1024)
    with pytest.raises(RuntimeError, match="meta"):
        pictures._unit_vectors(torch.zeros(2, 3, 224, 224)).sum().item()  # such a wait is noticed
