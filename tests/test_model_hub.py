"""Models from the hub, through the real client and a server on the loopback that stands in for it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from promptsearch.evaluators.models import RN50_REPO, TINY

REVISION = "0123456789abcdef0123456789abcdef01234567"

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


class Hub(BaseHTTPRequestHandler):
    """`/{repo}/resolve/{revision}/FILE` from a folder; `cut` files end before their length."""

    folder: Path
    cut: set[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = self.folder / repo / rest.partition("/")[2]
        if not rest or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if file.name in self.cut else content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    handler = type("H", (Hub,), {"folder": tmp_path / "hub", "cut": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    env |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    yield handler, env
    server.shutdown()
    server.server_close()


def encode(model: str, cache: Path, env: dict[str, str]) -> str:
    command = [sys.executable, "-c", ENCODE, model, str(cache)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def own(model: torch.nn.Module, context_length: int) -> np.ndarray:
    tokens = open_clip.SimpleTokenizer(context_length=context_length)(["a photo of a cat.", "two"])
    with torch.no_grad():
        return model.eval().encode_text(tokens, normalize=True).numpy()


def test_rn50_comes_from_its_repository_with_quick_gelu_and_then_from_the_cache(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    torch.manual_seed(0)
    model = open_clip.create_model("RN50-quickgelu", pretrained=None)
    folder = handler.folder / RN50_REPO
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
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
    assert said.startswith("refused: --model hf-hub:nobody/nothing cannot be downloaded")
    assert "--weights FILE" in said and "HF_ENDPOINT" in said


def test_a_download_that_is_cut_is_one_line_with_remedies(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    folder = handler.folder / RN50_REPO
    folder.mkdir(parents=True)
    save_file({"x": torch.zeros(300_000)}, folder / "open_clip_model.safetensors")
    handler.cut.add("open_clip_model.safetensors")
    said = encode("RN50", tmp_path / "c", env)
    assert said.startswith("refused: --model RN50:openai cannot be downloaded")
