"""Models from the hub, through the real client and a server on the loopback that stands in for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from forked import BASE, MODELS, Forked
from loopback_hub import Hub, loopback_hub
from safetensors.torch import save_file
from tiny_model import TINY

from promptsearch.evaluators.encoding.model_spec import RN50_REPO

ENCODE = """
import json, sys
from pathlib import Path
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Cache, Encoder, resolve_model
try:
    cache = Cache(Path(sys.argv[2]))
    encoder = Encoder(resolve_model(sys.argv[1], cache), cache)
    print(json.dumps(encoder.encode_texts(["a photo of a cat.", "two"]).tolist()))
except PromptSearchError as e:
    print("refused:", e)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    with loopback_hub(tmp_path_factory.mktemp("running")) as running:
        yield running


@pytest.fixture
def hub(running: tuple[type[Hub], dict[str, str]], tmp_path: Path) -> tuple[type[Hub], dict[str, str]]:
    """A hub with an empty folder and a client with an empty cache, at the address and path of the other tests'."""
    handler, env = running
    handler.folder, handler.cut = tmp_path / "hub", set()
    (tmp_path / "hf").mkdir()
    home = Path(env["HF_HOME"])
    home.unlink(missing_ok=True)
    home.symlink_to(tmp_path / "hf")
    return handler, env


def encode(model: str, cache: Path, env: dict[str, str]) -> str:
    """The answer of a process, whose client read the hub's address while it was imported."""
    read = {name: value for name, value in env.items() if name.startswith("HF_")}
    settings = f"import os; os.environ.pop('HF_HUB_OFFLINE', None); os.environ.update({read!r})"
    imports = BASE if "HF_HUB_OFFLINE" in env else f"{settings}\n{MODELS}"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked([model, str(cache)], code=ENCODE, env=env, imports=imports, **streams) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip().splitlines()[-1]


def own(model: torch.nn.Module, context_length: int) -> np.ndarray:
    tokens = open_clip.SimpleTokenizer(context_length=context_length)(["a photo of a cat.", "two"])
    with torch.no_grad():
        return model.eval().encode_text(tokens, normalize=True).numpy()


def test_rn50_comes_from_its_repository_with_quick_gelu_and_then_from_the_cache(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    torch.manual_seed(0)
    model = open_clip.create_model("RN50-quickgelu", pretrained=None).half()
    folder = handler.folder / RN50_REPO
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")  # in half precision: 200 MB instead of 400
    model.float()  # the weights that the file holds, which are computed with in single precision
    np.testing.assert_allclose(json.loads(encode("RN50", tmp_path / "c1", env)), own(model, 77), atol=1e-5)
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    np.testing.assert_allclose(json.loads(encode("RN50", tmp_path / "c2", offline)), own(model, 77), atol=1e-5)


def test_a_model_of_the_hub_by_its_id(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    config = json.loads((TINY / "open_clip_config.json").read_text())
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**config["model_cfg"])
    folder = handler.folder / "someone" / "small"
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    ours = json.loads(encode("hf-hub:someone/small", tmp_path / "c", env))
    np.testing.assert_allclose(ours, own(model, 24), atol=1e-5)


def test_a_repository_that_is_not_there_is_one_line_with_remedies(hub: Any, tmp_path: Path) -> None:
    said = encode("hf-hub:nobody/nothing", tmp_path / "c", hub[1])
    assert said.startswith("refused: model hf-hub:nobody/nothing cannot be downloaded")
    assert "weights FILE" in said and "HF_ENDPOINT" in said


def test_a_download_that_is_cut_is_one_line_with_remedies(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    folder = handler.folder / RN50_REPO
    folder.mkdir(parents=True)
    save_file({"x": torch.zeros(300_000)}, folder / "open_clip_model.safetensors")
    handler.cut.add("open_clip_model.safetensors")
    said = encode("RN50", tmp_path / "c", env)
    assert said.startswith("refused: model RN50:openai cannot be downloaded")


def test_a_tokenizer_of_the_hub_is_in_the_fingerprint_and_its_code_never_runs(hub: Any, tmp_path: Path) -> None:
    """Two models of the hub with the same weights and config, whose tokenizers differ."""
    handler, env = hub
    from test_model_files import tiny_copy, word_level

    said = {}
    for name, words in (("one", "a photo of a cat two"), ("other", "two of of of of cat cat cat photo photo a a")):
        owner = handler.folder / "owner"
        owner.mkdir(exist_ok=True, parents=True)
        word_level(words=words).save_pretrained(owner / f"{name}-words")
        tiny_copy(owner / name, hf_tokenizer_name=f"owner/{name}-words")
        said[name] = encode(f"hf-hub:owner/{name}", tmp_path / "cache", env)
        assert said[name].startswith("[["), said[name]
        assert encode(f"hf-hub:owner/{name}", tmp_path / "cache", env) == said[name]
    assert said["one"] != said["other"]

    about = handler.folder / "owner" / "evil-words"
    word_level().save_pretrained(about)
    config = json.loads((about / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (about / "tokenizer_config.json").write_text(json.dumps(config))
    (about / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name, kwargs in (("quiet", {}), ("asking", {"tokenizer_kwargs": {"trust_remote_code": True}})):
        tiny_copy(handler.folder / "owner" / name, hf_tokenizer_name="owner/evil-words", **kwargs)
        answer = encode(f"hf-hub:owner/{name}", tmp_path / "cache", env)
        assert answer.startswith("refused:") and "code" in answer
    assert not (tmp_path / "ran").exists()
