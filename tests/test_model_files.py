"""Models from files: every token counted, every input in the fingerprint, no code run, wrong files named."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer
from safetensors.torch import save_file
from tiny_model import TINY
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Cache, Encoder, TooLongError, resolve_model
from promptsearch.evaluators.encoding.model_spec import check_keys, read_config
from promptsearch.evaluators.encoding.tokenizers import count_tokens, remembering
from promptsearch.evaluators.encoding.weights_file import read_torchscript, trained_with_quick_gelu

CORPUS = "a photo of a cat ship truck very . toy drawing the"


def word_level(special: bool = True, words: str = CORPUS) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator([words], trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"]))
    if special:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        bos_token="[CLS]", eos_token="[SEP]",
    )  # fmt: skip


def byte_level() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([CORPUS], trainers.BpeTrainer(special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet))
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="</s>")


def unigram() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(
        [CORPUS] * 5, trainers.UnigramTrainer(special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(folder)
    return str(folder)


def siglip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SigLipTokenizer:
    made = SigLipTokenizer.__new__(SigLipTokenizer)  # its vocabularies are downloads
    made.tokenizer, made.context_length = PreTrainedTokenizerFast.from_pretrained(saved(unigram(), folder)), 24
    return made


MAKE: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "SimpleTokenizer": lambda folder, m: SimpleTokenizer(context_length=24),
    "SimpleTokenizer canonicalize": lambda folder, m: SimpleTokenizer(context_length=24, clean="canonicalize"),
    "WordTokenizer": lambda folder, m: remembering(SimpleTokenizer(context_length=24)),
    "HFTokenizer words": lambda folder, m: HFTokenizer(saved(word_level(), folder), context_length=24),
    "HFTokenizer bytes": lambda folder, m: HFTokenizer(saved(byte_level(), folder), context_length=24),
    "HFTokenizer unigram canonicalize": lambda folder, m: HFTokenizer(
        saved(unigram(), folder), context_length=24, clean="canonicalize"
    ),
    "HFTokenizer strip_sep": lambda folder, m: HFTokenizer(
        saved(word_level(), folder), context_length=24, strip_sep_token=True
    ),
    "HFTokenizer clips": lambda folder, m: HFTokenizer(
        saved(word_level(False), folder), context_length=24, tokenizer_mode="clips"
    ),
    "SigLipTokenizer": siglip,
}

TEXTS = [
    "a photo of a cat.",
    "",
    " ".join(["very"] * 30) + " cat",
    "a photo of a 金毛寻回犬幼犬甲",
    "🐈" * 9,
    "ﬃ" * 9,
    "&nGt;" * 5,
    "&amp;" * 20,
    "naïve café" * 3,
    "x" * 60,
    "A" * 22,
    "a-b-c-d-e-f-g-h-i-j-k-l-m",
]


@pytest.mark.parametrize("kind", MAKE)
def test_every_token_of_every_tokenizer_is_counted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is read whole exactly where a longer context would change nothing but padding."""
    tokenizer = MAKE[kind](tmp_path, monkeypatch)
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    for text, count in zip(TEXTS, count_tokens(tokenizer, TEXTS), strict=True):
        assert count == count_tokens(tokenizer, [text])[0]
        short, long = (np.asarray(inner([text], context_length=n))[0] for n in (24, 400))
        ends = 1 if "clips" in kind else 0  # the class token behind the padding
        body = long[: len(long) - ends]
        real = len(body) if not len(body) else int(np.max(np.flatnonzero(body != body[-1]), initial=-1)) + 1 + ends
        assert real in (count, count - 1), (text, real, count)  # a last token that is the padding's cannot be told
        if count <= 24:
            assert (short[: count - ends] == long[: count - ends]).all()
        else:
            assert real > 24 or real == count - 1


def tiny_copy(home: Path, tokenizer: Any = None, **text: Any) -> Path:
    """The embedded model as a folder of its own, perhaps with another tokenizer or other keys of text_cfg."""
    home.mkdir()
    config = json.loads((TINY / "open_clip_config.json").read_text())
    shutil.copy(TINY / "open_clip_model.safetensors", home)
    if tokenizer is not None:
        tokenizer.save_pretrained(home)
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "x"
    config["model_cfg"]["text_cfg"].update(text)
    (home / "open_clip_config.json").write_text(json.dumps(config))
    return home


def encoder_of(folder: Path, cache: Path) -> Encoder:
    return Encoder(resolve_model(f"local-dir:{folder}", Cache(cache)), Cache(cache))


@pytest.mark.parametrize("make", [word_level, byte_level, unigram], ids=lambda f: f.__name__)
def test_a_text_that_is_cut_off_is_refused_whatever_the_tokenizer(make: Any, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_copy(tmp_path / "m", make()), tmp_path / "cache")
    with pytest.raises(TooLongError, match="tokens and the model reads 24"):
        encoder.encode_texts(["very " * 30 + "cat"])
    assert not encoder.fits(["very " * 30 + "cat"]) and encoder.fits(["a cat"])
    assert encoder.encode_texts(["a cat"]).shape[0] == 1


def test_scripts_of_several_bytes_are_counted(tmp_path: Path) -> None:
    encoder = Encoder(resolve_model("tiny", Cache(tmp_path)), Cache(tmp_path))
    for text in ("a photo of a 金毛寻回犬幼犬甲.", "🐈" * 12, "ǅ" * 11):
        with pytest.raises(TooLongError):
            encoder.encode_texts([text])


@pytest.mark.parametrize("text", ["a <end_of_text> cat", "a <END_OF_TEXT>cat", "<start_of_text> a cat"])
def test_marks_of_the_tokenizer_in_a_text(text: str, tmp_path: Path) -> None:
    encoder = Encoder(resolve_model("tiny", Cache(tmp_path)), Cache(tmp_path))
    with pytest.raises(InputError, match="special token of the model's tokenizer"):
        encoder.encode_texts([text])
    assert not encoder.fits([text]) and encoder.fits(["a <cat> [ship] | truck"])
    words = encoder_of(tiny_copy(tmp_path / "m", word_level()), tmp_path / "cache")
    with pytest.raises(InputError, match="special token"):
        words.encode_texts(["a photo [SEP] of a cat"])


def test_tokenizer_files_are_in_the_fingerprint(tmp_path: Path) -> None:
    one = tiny_copy(tmp_path / "one", word_level())
    words = "the drawing toy . very truck truck ship ship cat cat of of photo photo photo a"
    other = tiny_copy(tmp_path / "other", word_level(words=words))
    cache = tmp_path / "cache"
    first, second = encoder_of(one, cache), encoder_of(other, cache)
    assert first.spec.fingerprint != second.spec.fingerprint
    text = ["a photo of a cat"]
    assert (first.encode_texts(text) != second.encode_texts(text)).any()
    before = first.spec.fingerprint
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = one / name
        file.write_text(file.read_text() + "\n")
        after = encoder_of(one, cache).spec.fingerprint
        assert after != before
        before = after
    (one / ".gitattributes").write_text("new")
    assert encoder_of(one, cache).spec.fingerprint == before


def test_the_weights_that_are_loaded_are_those_of_the_fingerprint(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "m")
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.safetensors")
    torch.save({"other": torch.zeros(1)}, folder / "open_clip_pytorch_model.bin")
    encoder = encoder_of(folder, tmp_path / "cache")
    assert encoder.spec.weights == folder / "open_clip_pytorch_model.safetensors"
    assert encoder.encode_texts(["a cat"]).shape[0] == 1


def test_a_folder_without_tokenizer_files_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer in .* \(tokenizer.json …\); save it there too"):
        encoder_of(tiny_copy(tmp_path / "m", hf_tokenizer_name="x"), tmp_path / "cache")
    broken = tiny_copy(tmp_path / "b", word_level())
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(PromptSearchError, match="the tokenizer in .* cannot be loaded"):
        encoder_of(broken, tmp_path / "cache").encode_texts(["a cat"])


EVIL = """
import pathlib
from transformers import PreTrainedTokenizerFast as Evil
pathlib.Path({mark!r}).write_text("ran")
"""


@pytest.mark.parametrize("way", ["asked", "not asked"])
def test_code_that_comes_with_a_tokenizer_never_runs(way: str, tmp_path: Path) -> None:
    kwargs = {"tokenizer_kwargs": {"trust_remote_code": True}} if way == "asked" else {}
    folder = tiny_copy(tmp_path / "m", word_level(), **kwargs)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "evil.py").write_text(EVIL.format(mark=str(tmp_path / "ran")))
    says = "tokenizer_kwargs may not hold trust_remote_code" if way == "asked" else "needs code of its own, .*never run"
    with pytest.raises(PromptSearchError, match=says):
        encoder_of(folder, tmp_path / "cache").encode_texts(["a cat"])
    assert not (tmp_path / "ran").exists()


BAD = {
    "layers": ({"text_cfg": {"layers": 1_000_000}}, "layers 1000000 must be a whole number from 1 to 1000"),
    "many layers": ({"text_cfg": {"layers": 900, "width": 8000}}, "parameters, but the weights file has"),
    "wide": ({"vision_cfg": {"layers": [9, 9, 9, 900], "width": 900}}, "parameters, but the weights file has"),
    "vocabulary": ({"text_cfg": {"vocab_size": 9_999_999}}, "parameters, but the weights file has"),
    "word": ({"text_cfg": {"width": "x"}}, "width 'x' must be a whole number"),
    "negative": ({"vision_cfg": {"image_size": -3}}, "image_size -3 must be"),
    "nan": ({"text_cfg": {"mlp_ratio": float("nan")}}, "mlp_ratio nan must be"),
    "truth": ({"embed_dim": True}, "embed_dim True must be"),
    "stages": ({"vision_cfg": {"layers": [1, 2]}}, "four stages"),
    "no width": ({"text_cfg": {"width": None}}, "width None must be a whole number"),
    "no layers": ({"vision_cfg": {"layers": None}}, "layers None must be a whole number"),
    "no words": ({"text_cfg": {"vocab_size": None}}, "vocab_size None must be a whole number"),
    "no length": ({"text_cfg": {"context_length": None}}, "context_length None must be a whole number"),
    "trust": ({"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}, "may not hold trust_remote_code = True"),
    "file": ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}}, "may not hold bpe_path"),
    "mask": ({"text_cfg": {"tokenizer_kwargs": {"reduction_mask": "random"}}}, "may not hold reduction_mask"),
    "act": ({"text_cfg": {"act_kwargs": {"inplace": True}}}, "may not hold inplace"),
    "tower": ({"text_cfg": {"hf_model_name": "/tmp/evil"}}, "is not a plain model name"),
    "timm": ({"vision_cfg": {"timm_model_name": "hf-hub:evil/model"}}, "is not a plain model name"),
    "mode": ({"text_cfg": {"tokenizer_mode": "other"}}, "tokenizer_mode 'other' is unknown"),
    "mean": ({"preprocess_cfg": {"mean": "x"}}, "mean 'x' must be three numbers"),
    "std": ({"preprocess_cfg": {"std": [0, 1, 1]}}, "must be above 0"),
    "size": ({"preprocess_cfg": {"size": 10**9}}, "must be a whole number"),
    "interpolation": ({"preprocess_cfg": {"interpolation": "magic"}}, "choose from bicubic"),
    "no tower": ({"vision_cfg": None}, "has no vision_cfg"),
    "list": ({"text_cfg": []}, "has no text_cfg"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_config_that_asks_too_much_is_one_line(kind: str, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "m")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    change, says = BAD[kind]
    for key, value in change.items():
        at = config if key == "preprocess_cfg" else config["model_cfg"]
        at[key] = {**at.get(key, {}), **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=says) as refused:
        resolve_model(f"local-dir:{folder}", Cache(tmp_path / "cache"))
    assert "open_clip_config.json" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("<!DOCTYPE html><html>", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("[" * 100_000, "not readable as JSON"),
        ("{" * 10, "not readable as JSON"),
        ("[]", "has no model_cfg"),
        ('{"model_cfg": 3}', "has no model_cfg"),
        (" " * 1_100_000, "larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_config(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "open_clip_config.json"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_config(file)


def test_every_architecture_of_open_clip_is_allowed() -> None:
    for name in open_clip.list_models():
        check_keys({"model_cfg": open_clip.get_model_config(name)}, name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["embed_dim", "layers", "width", "heads", "image_size", "patch_size", "tokenizer_kwargs", "mean", "std", "size"]


@given(st.sampled_from(["model_cfg", "text_cfg", "vision_cfg", "preprocess_cfg"]), st.sampled_from(KEYS), JSON)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_a_config_is_taken_or_refused_in_one_line(section: str, key: str, value: Any) -> None:
    config = json.loads((TINY / "open_clip_config.json").read_text())
    config.setdefault("preprocess_cfg", {})
    at = config["model_cfg"] if section.endswith("t_cfg") or section == "vision_cfg" else config
    at = config["model_cfg"] if section == "model_cfg" else at.setdefault(section, {})
    at[key] = value
    try:
        check_keys(config, "config")
    except InputError as e:
        assert "\n" not in str(e)


def archive_of(state: dict[str, torch.Tensor], path: Path) -> Path:
    """A TorchScript archive with these tensors under OpenAI's names, half precision, and what OpenAI's have beside."""

    class Node(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Node()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        at = root
        for part in parents:
            if part not in dict(at.named_children()):
                at.add_module(part, Node())
            at = getattr(at, part)
        at.register_buffer(leaf, tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor)
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(77))
    torch.jit.script(root).save(str(path))
    return path


def test_openais_torchscript_archive_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("RN50-quickgelu")
    path = archive_of(model.state_dict(), tmp_path / "RN50.pt")
    found = read_torchscript(path)
    assert found.keys() == model.state_dict().keys()
    spec = resolve_model("RN50", Cache(tmp_path / "cache"), weights=path)
    assert spec.source == "RN50-quickgelu"
    loaded = Encoder(spec, Cache(tmp_path / "cache")).model.state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        assert torch.equal(loaded[name], expected.to(loaded[name].dtype)), name


def test_an_archive_of_another_model_or_with_code_of_its_own(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "other.pt"))
    spec = resolve_model("RN50", Cache(tmp_path / "cache"), weights=tmp_path / "other.pt")
    with pytest.raises(PromptSearchError, match="TorchScript archive.* do not fit RN50-quickgelu.*state dict"):
        _ = Encoder(spec, Cache(tmp_path / "cache")).model

    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").write_text, ("ran",))

    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"x": Evil()}))
        archive.writestr("evil/constants.pkl", b"")
    spec = resolve_model("RN50", Cache(tmp_path / "cache"), weights=tmp_path / "evil.pt")
    with pytest.raises(PromptSearchError, match="is no part of a model"):
        _ = Encoder(spec, Cache(tmp_path / "cache")).model
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!doctype html><html><head>", "web page, not a download"),
        (b"  \n<HTML>", "web page"),
        (b'<?xml version="1.0"?><Error>', "server's XML answer"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("name", ["RN50.pt", "w.safetensors", "w.bin"])
def test_files_that_are_no_weights_say_what_they_are(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        resolve_model("RN50", Cache(tmp_path / "cache"), weights=tmp_path / name)
    folder = tiny_copy(tmp_path / "m")
    (folder / "open_clip_model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=says):
        resolve_model(f"local-dir:{folder}", Cache(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["safetensors", "pt", "checkpoint.pt"])
@pytest.mark.parametrize(
    ("name", "half", "quick", "certain"),
    [
        ("RN50", False, True, True),
        ("RN50x4", False, True, True),
        ("RN50x16", False, True, True),
        ("RN50x64", False, True, True),
        ("ViT-L-14-336", False, True, True),
        ("RN101", True, True, False),
        ("ViT-B-32", True, True, False),
        ("ViT-B-16", True, True, False),
        ("ViT-L-14", True, True, False),
        ("ViT-B-32", False, False, False),
        ("RN101", False, False, False),
        ("ViT-H-14", True, False, True),
        ("ViT-B-32-quickgelu", True, False, True),
    ],
)
def test_quick_gelu_for_openais_weights(
    name: str, half: bool, quick: bool, certain: bool, form: str, tmp_path: Path
) -> None:
    numbers = torch.randn(8, 8)
    state = {"text_projection": numbers.half().float() if half else numbers}
    path = tmp_path / f"weights.{form}"
    if form == "safetensors":
        save_file(state, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
        torch.save(state if form == "pt" else wrapped, path)
    assert trained_with_quick_gelu(name, path) == (quick, certain)
    spec = resolve_model(name, Cache(tmp_path / "cache"), weights=path)
    assert spec.source == (f"{name}-quickgelu" if quick else name)
    assert (spec.note is None) == certain
    assert certain or ("--model local-dir:FOLDER" if quick else f"--model {name}-quickgelu") in str(spec.note)


def test_any_bytes_are_no_torchscript(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02garbage")
        archive.writestr("x/constants.pkl", b"")
    (tmp_path / "x.pt").write_bytes(out.getvalue())
    with pytest.raises(InputError, match="TorchScript archive cannot be read"):
        read_torchscript(tmp_path / "x.pt")
