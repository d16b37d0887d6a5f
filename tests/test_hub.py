"""Finding out whether the hub is there, going offline, and real downloads from a hub on the loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from promptsearch.evaluators.data import hub

ROOT = Path(__file__).resolve().parent.parent
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing asked yet, no variable set that would answer."""
    monkeypatch.setattr(hub, "_answer", None)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    for scheme in ("HTTP", "HTTPS", "ALL"):
        monkeypatch.delenv(f"{scheme}_PROXY", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".lower(), raising=False)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answering(code: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    return Handler


def closed_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.mark.parametrize(
    ("code", "reachable"), [(200, True), (404, True), (501, True), (429, True), (403, False), (503, False)]
)
def test_an_answer_means_reachable_unless_it_is_a_gateways(
    monkeypatch: pytest.MonkeyPatch, code: int, reachable: bool
) -> None:
    with serving(answering(code)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        found, reason = hub.hub_reachable()
    assert found is reachable
    assert reason == "" if reachable else str(code) in reason


def test_the_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(200)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert hub.hub_reachable() == (True, "")
    assert hub.hub_reachable() == (True, "")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_told_to_stay_offline(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "true")
    assert hub.hub_reachable() == (False, f"{variable} is set")


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    found, reason = hub.hub_reachable()
    assert not found and "refuses the connection" in reason


@pytest.mark.parametrize("endpoint", ["huggingface.co", "file:///etc/passwd", "https://", "http://[::", "http://a b:x"])
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    found, reason = hub.hub_reachable(timeout=1)
    assert not found and reason


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{s.getsockname()[1]}")
        start = time.monotonic()
        found, reason = hub.hub_reachable(timeout=0.3)
    assert time.monotonic() - start < 15
    assert not found and "no answer from 127.0.0.1" in reason


def test_a_silent_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        release.wait(20)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    found, reason = hub.hub_reachable(timeout=0.3)
    release.set()
    assert time.monotonic() - start < 15
    assert not found and reason == "no answer from huggingface.co within 0.3 s"


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert hub.hub_reachable() == (False, "the name huggingface.co cannot be resolved")


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_proxies_are_used(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with serving(answering(200)) as proxy:
        monkeypatch.setenv(variable, proxy)
        assert hub.hub_reachable() == (True, "")
    monkeypatch.setattr(hub, "_answer", None)
    assert not hub.hub_reachable()[0]


def test_go_offline_reaches_what_is_imported_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    hub.go_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert huggingface_hub.is_offline_mode() and datasets.config.HF_HUB_OFFLINE
    with pytest.raises(huggingface_hub.errors.OfflineModeIsEnabled):
        huggingface_hub.HfApi().model_info("someone/model")


def test_find_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--someone--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(REVISION)
    (repo / "snapshots" / REVISION).mkdir(parents=True)
    file = repo / "snapshots" / REVISION / "model.safetensors"
    file.write_bytes(b"weights")
    assert hub.find_cached("someone/model", "model.safetensors", "model") == file
    assert hub.find_cached("someone/model", "other.safetensors", "model") is None
    assert hub.find_cached("someone/model", "model.safetensors", "dataset") is None


def hub_of(folder: Path, repo: str, sent: list[tuple[str, int]] | None = None) -> type[BaseHTTPRequestHandler]:
    """As much of the hub as the real client asks for one data set of parquet files.

    What is sent of each file goes to `sent`: its name and the number of bytes.
    """
    sent = [] if sent is None else sent

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            files = {file.name: file for file in folder.iterdir()}
            resolve, api = f"/datasets/{repo}/resolve/", f"/api/datasets/{repo}"
            if path == "/":
                self.answer(200, b"")
            elif path.startswith(resolve) and (name := path[len(resolve) :].partition("/")[2]) in files:
                content = files[name].read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
                    part = content[int(wanted[1]) : int(wanted[2]) + 1]
                    sent.append((name, len(part)))
                    span = f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(content)}"
                    self.answer(206, part, ETag=tag, **{"Content-Range": span})
                    return
                if self.command != "HEAD":
                    sent.append((name, len(content)))
                self.answer(200, content, ETag=tag)
            elif path in (api, f"{api}/revision/{REVISION}"):
                self.answer(200, json.dumps({"id": repo, "sha": REVISION}).encode())
            elif path == f"{api}/tree/{REVISION}":
                rows = [
                    {"type": "file", "path": n, "size": f.stat().st_size, "oid": "0" * 40} for n, f in files.items()
                ]
                self.answer(200, json.dumps(rows).encode())
            else:
                self.answer(404, b"{}", **{"X-Error-Code": "EntryNotFound" if repo in path else "RepoNotFound"})

        do_HEAD = do_GET

        def answer(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            fixed = {"Content-Length": str(len(body)), "Content-Type": "application/json", "X-Repo-Commit": REVISION}
            for name, value in {**fixed, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    return Handler


OPENING = """
import importlib.util, json, sys, time
if importlib.util.find_spec("promptsearch") is None:
    spec = importlib.util.spec_from_file_location("promptsearch", sys.argv[1] + "/__init__.py",
                                                  submodule_search_locations=[sys.argv[1]])
    sys.modules["promptsearch"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["promptsearch"])
from promptsearch.evaluators.data.datasets import dataset_cached, open_dataset
from promptsearch.errors import InputError, PromptSearchError
import datasets
answers = []
for wanted in sys.argv[2:]:
    start = time.monotonic()
    try:
        data = open_dataset(wanted)
        answer = {"classes": data.class_names, "labels": data.labels("test").tolist(),
                  "fingerprint": data.fingerprint("train"), "cached": dataset_cached(wanted),
                  "pixels": [p.getpixel((0, 0))[0] for p in data.pictures("train", [3, 1])]}
    except PromptSearchError as error:
        answer = {"error": str(error), "exit_code": 2 if isinstance(error, InputError) else 1}
    answers.append({**answer, "seconds": time.monotonic() - start})
print(json.dumps(answers))
"""


def opened(home: Path, endpoint: str, *specs: str, script: str = OPENING) -> list[dict[str, Any]]:
    """What `open_dataset` does in a fresh process, where the hub's client reads its settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    command = [sys.executable, "-c", script, str(ROOT), *specs]
    done = subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_unreachable_hub_fails_within_seconds(tmp_path: Path) -> None:
    answers = opened(tmp_path / "home", closed_port(), "cifar10", "someone/pets")
    for answer in answers:
        assert answer["exit_code"] == 1
        assert answer["seconds"] < 15  # with the retries of the client 23
        for words in ("refuses the connection", "dataset PATH", "HF_ENDPOINT", "model zeroshot"):
            assert words in answer["error"]


def test_download_then_without_the_hub(tmp_path: Path) -> None:
    home, repo = tmp_path / "home", "someone/TinyShapes"
    (tmp_path / "repo").mkdir()
    for split, n in (("train", 6), ("test", 4)):
        pictures = [Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)) for i in range(n)]
        columns = {"img": pictures, "label": [i % 2 for i in range(n)]}
        features = Features({"img": ImageFeature(), "label": ClassLabel(names=["red_box", "disc"])})
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "repo" / f"{split}-00000-of-00001.parquet")
    with serving(hub_of(tmp_path / "repo", repo)) as endpoint:
        first, config, unknown = opened(home, endpoint, repo, f"{repo}:nope", "someone/else")
    assert first["classes"] == ["red box", "disc"]
    assert first["labels"] == [0, 1, 0, 1]
    assert first["pixels"] == [30, 10]
    assert f"{repo}@{REVISION}" in first["fingerprint"] and "train" in first["fingerprint"]
    assert first["cached"]
    assert config["exit_code"] == 2 and "'nope' not found" in config["error"] and "default" in config["error"]
    assert unknown["exit_code"] == 2 and "someone/else" in unknown["error"]

    (again,) = opened(home, endpoint, repo)
    assert again.pop("seconds") < 15
    first.pop("seconds")
    assert again == first


def test_of_a_large_data_set_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    repo, sent = "someone/Large", list[tuple[str, int]]()
    (tmp_path / "repo").mkdir()
    rng = np.random.default_rng(0)
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=["red_box", "disc"])})
    for split, n in (("train", 400), ("test", 4), ("validation", 100)):
        pixels = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
        pixels[:, 0, 0, 0] = 10 * np.arange(n) % 250
        columns = {"img": [Image.fromarray(p) for p in pixels], "label": [i % 2 for i in range(n)]}
        made = Dataset.from_dict(columns, features=features)
        made.to_parquet(tmp_path / "repo" / f"{split}-00000-of-00001.parquet", batch_size=20)
    size = {f.name.split("-")[0]: f.stat().st_size for f in (tmp_path / "repo").iterdir()}
    large = "import promptsearch.evaluators.data.hub_data as h\nh.LARGE = 100_000\n"
    where = OPENING.replace("import datasets\n", f"import datasets\n{large}")
    with serving(hub_of(tmp_path / "repo", repo, sent)) as endpoint:
        (whole,) = opened(tmp_path / "whole", endpoint, repo)
        fetched = {name: sum(n for file, n in sent if file.startswith(name)) for name in size}
        assert fetched == size
        sent.clear()
        (lazy,) = opened(tmp_path / "lazy", endpoint, repo, script=where)
    fetched = {name: sum(n for file, n in sent if file.startswith(name)) for name in size}
    assert fetched["validation"] == 0 and fetched["test"] == size["test"]
    assert 0 < fetched["train"] < size["train"] / 4, (fetched, size)
    assert whole["pixels"] == lazy["pixels"] == [30, 10]
    for same in ("classes", "labels", "fingerprint"):
        assert lazy[same] == whole[same]


def test_a_broken_download(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 cut off here")
    with serving(hub_of(tmp_path / "repo", "someone/broken")) as endpoint:
        (answer,) = opened(tmp_path / "home", endpoint, "someone/broken")
    assert answer["exit_code"] == 1
    assert "could not be loaded from the hub" in answer["error"]
