"""Encoding on a Ray cluster gives the bits of one process, also when a worker is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_problem import make_problem
from PIL import Image

from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Cache, Encoder, TooLongError, open_problem, resolve_model
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding.picture_encoder import BATCH
from promptsearch.evaluators.encoding.ray_cluster import Cluster, Crew
from promptsearch.evaluators.encoding.ray_encoder import PIECE, EncodingWorker, RemoteEncoder
from promptsearch.version import __version__

os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # both as the command does before it imports Ray
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'promptsearch[ray]'")


@pytest.fixture
def encoder(cluster: Cluster, tmp_path: Path) -> RemoteEncoder:
    cache = Cache(tmp_path / "remote")
    return RemoteEncoder(resolve_model("tiny", cache, device="cpu"), cache, cluster)


def pictures(n: int) -> list[Image.Image]:
    small = np.random.default_rng(0).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    return [Image.fromarray(p).resize((32, 32)) for p in small]


def picture_folder(root: Path, train: int = 6, test: int = 120) -> Path:
    for split, n in (("train", train), ("test", test)):
        for i, picture in enumerate(pictures(2 * n)):
            folder = root / split / ("cat", "dog")[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{i}.png")
    return root


def test_a_killed_worker_changes_nothing(encoder: RemoteEncoder, tmp_path: Path) -> None:
    piece = PIECE["cpu"] * BATCH["cpu"]
    blocks = [pictures(5 * piece), pictures(piece + 9), [], pictures(3)]
    first = encoder.crew.call("ready")

    def streams() -> Iterator[Iterator[Image.Image]]:
        for n, block in enumerate(blocks):
            if n == 1:  # the pieces of block 0 are on the workers
                os.kill(first["pid"], signal.SIGKILL)
            yield iter(block)

    found = dict(encoder.encode_blocks(streams()))
    cache = Cache(tmp_path / "one")
    one = Encoder(resolve_model("tiny", cache, device="cpu"), cache)
    for n, block in enumerate(blocks):
        np.testing.assert_array_equal(found[n], one.encode_pictures(block))
    assert first["pid"] not in {encoder.crew.call("ready")["pid"] for _ in range(4)}
    assert encoder.info == one.info and not encoder.loaded


def test_texts_are_the_bits_of_one_process_and_in_the_cache(encoder: RemoteEncoder, tmp_path: Path) -> None:
    words = ("good", "bad", "dark", "small", "quick", "odd", "shy")
    texts = [f"a {a} {b} photo {i} of a {c}." for a in words for b in words for c in ("cat", "Dog") for i in range(22)]
    assert len(texts) > 2000  # two parts
    cache = Cache(tmp_path / "one")
    one = Encoder(resolve_model("tiny", cache, device="cpu"), cache)
    np.testing.assert_array_equal(encoder.encode_texts(texts), one.encode_texts(texts))
    few = ["a cat", "a dog", "a"]
    np.testing.assert_array_equal(encoder.encode_texts(few), one.encode_texts(few))
    again = Encoder(encoder.spec, Cache(tmp_path / "remote"))
    np.testing.assert_array_equal(again.encode_texts(texts), one.encode_texts(texts))
    assert not again.loaded
    with pytest.raises(TooLongError, match="tokens and the model reads 24") as e:
        encoder.encode_texts(["word " * 40])
    assert e.value.limit == 24


def test_a_worker_that_does_not_come_back_leaves_its_pieces_to_the_others(encoder: RemoteEncoder) -> None:
    many = pictures(6 * PIECE["cpu"] * BATCH["cpu"])
    expected = encoder.encode_pictures(many)
    gone = encoder.crew.workers[0]

    def streams() -> Iterator[Iterator[Image.Image]]:
        yield iter(many)
        ray.kill(gone)  # for good; it may have done all that it had in hand, and is given more
        yield iter(many)

    assert len(encoder.crew.workers) == 2
    found = dict(encoder.encode_blocks(streams()))
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], expected)
    assert len(encoder.crew.workers) == 1 and gone not in encoder.crew.workers


def test_what_is_finished_is_in_the_cache_when_the_rest_fails(cluster: Cluster, tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", test=540)
    (data / "test" / "dog" / "last.png").write_bytes(b"no picture")
    problem = open_problem("tiny", str(data), ray="auto", device="cpu")
    with pytest.raises(PromptSearchError, match="last.png.* cannot be decoded"):
        problem.source.features("test", np.arange(1081))
    again = open_problem("tiny", str(data), device="cpu")
    assert len(again.source.features("test", np.arange(1024))) == 1024 and not again.encoder.loaded


def test_a_search_on_the_cluster_is_the_search_of_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture_folder(tmp_path / "data", test=20)
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\na drawing of the {}.\n{}\nan odd {}.\n")
    documents = []
    for name, option in (("one", []), ("ray", ["--ray", "auto"])):
        monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / name))
        args = ["beam", "--dataset", str(data), "--model", "tiny", "--device", "cpu", "--bank", str(bank), *option]
        result = CliRunner().invoke(main, [*args, "--shots", "2", "--json", "--storage", str(tmp_path / f"{name}.db")])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        documents.append({k: v for k, v in document.items() if k not in ("run", "seconds")})
    assert documents[0] == documents[1]


def test_cells_that_learn_and_breed_are_those_of_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture_folder(tmp_path / "data", test=20)
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\na dark {}.\n")
    args = ["compare", "--model", "tiny", "--dataset", str(data), "--bank", str(bank), "--device", "cpu", "--json"]
    args += ["--methods", "coop,vpt,evolve", "--shots", "1", "--seeds", "1", "--trials", "6"]
    documents = []
    for name, option in (("one", []), ("ray", ["--ray", "auto"])):
        monkeypatch.setenv("PROMPTSEARCH_HOME", str(tmp_path / name))
        result = CliRunner().invoke(main, [*args, *option])
        assert result.exit_code == 0, result.output
        documents.append([{**cell, "seconds": None} for cell in json.loads(result.stdout)["cells"]])
    assert documents[0] == documents[1] and {"coop", "vpt", "evolve"} <= {c["method"] for c in documents[0]}


def test_another_model_under_the_same_name_is_refused() -> None:
    told = {"device": "cpu", "precision": "fp32", "batch": None, "threads": torch.get_num_threads()}
    worker = EncodingWorker(("tiny", None), "0" * 32, **told, version=__version__)
    with pytest.raises(PromptSearchError, match="tiny is a different model on .*give all machines the same weights"):
        worker.ready()
    worker = EncodingWorker(("tiny", None), "", **told, version="0.0.1")
    with pytest.raises(
        PromptSearchError, match="has promptsearch .*, but this machine has 0.0.1; install the same version"
    ):
        worker.ready()


def test_a_comparison_on_the_cluster_is_that_of_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["a photo of a {}.", "a dark {}.", "the {} far away", "many {}"]
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(lines) + "\n")
    make_problem(tmp_path / "cache", lines)
    args = ["compare", "--model", "tiny", "--dataset", "made", "--bank", str(bank), "--device", "cpu", "--json"]
    args += ["--methods", "hand-written,beam,random,climb", "--shots", "1,4", "--seeds", "2", "--trials", "6"]
    documents, killed = [], []
    work = Crew.run

    def kill(self: Crew, jobs: Iterator[Any]) -> Iterator[Any]:
        for n, found in enumerate(work(self, jobs)):
            yield found
            if n == 2:
                killed.append(self.workers[0])
                ray.kill(self.workers[0], no_restart=False)

    monkeypatch.setattr(Crew, "run", kill)
    for name, option in (("one", []), ("ray", ["--ray", "auto"])):
        monkeypatch.setenv("PROMPTSEARCH_HOME", str(tmp_path / name))
        result = CliRunner().invoke(main, [*args, *option])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        for row in (*document["table"], *document["cells"]):
            row.pop("seconds", None)
        documents.append({k: v for k, v in document.items() if k not in ("run", "elapsed")})
    assert killed and len(documents[0]["cells"]) == 16
    assert documents[0] == documents[1]


def test_room_for_no_worker(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--device cuda: the Ray cluster auto has no GPU"):
        open_problem("tiny", "cifar10", ray="auto", device="cuda")
    monkeypatch.setattr("promptsearch.evaluators.encoding.ray_encoder.one_process_threads", lambda: 64)
    problem = open_problem("tiny", str(picture_folder(tmp_path)), ray="auto")
    with pytest.raises(PromptSearchError, match="needs 64 cores.*the largest has 2.*OMP_NUM_THREADS"):
        problem.task(1, 0)


def test_a_stored_picture_brings_its_bytes(tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    stored = StoredPicture(None, str(tmp_path / "a.png"), "data set 'x', split 'train', picture 0", "negative")
    packed = stored.packed()
    expected = stored.open()
    (tmp_path / "a.png").unlink()
    assert packed.open().tobytes() == expected.tobytes()
    with pytest.raises(PromptSearchError, match="'train', picture 0 .*a.png.* cannot be decoded"):
        stored.packed()


@pytest.mark.parametrize("address", ["pack", "ray://", "host:port", "http://127.0.0.1:80", "host:123456", ""])
def test_what_is_no_address(address: str) -> None:
    result = CliRunner().invoke(main, ["beam", f"--ray={address}"])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert f"--ray {address}: not the address of a Ray cluster" in result.output and "--ray=local" in result.output


def alone(*args: str, code: str = "from promptsearch.cli import main; main()") -> subprocess.CompletedProcess[str]:
    """A process of its own: this one is connected to the tests' cluster."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=240)


def test_an_address_where_nothing_or_something_else_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        result = alone("beam", "--model", "tiny", "--ray", f"127.0.0.1:{port}")
        thread.join()
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert f"--ray 127.0.0.1:{port}: what answers there is not Ray; start one there with `ray start" in result.stderr
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    code = (
        "import atexit, os; from promptsearch.cli import main\n"
        "atexit.register(lambda: print(os.environ.get('RAY_AUTH_MODE')))\n"
        "main()"
    )
    result = alone("beam", "--model", "tiny", "--ray", f"ray://127.0.0.1:{port}", code=code)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stdout == "token\n"  # else Ray's client would not look for it, and be refused without a word
    assert "nothing answers there (Connection refused); start one there" in result.stderr


def test_ray_is_imported_only_where_it_is_asked_for_and_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"  # as where it is not installed
        "from promptsearch.cli import main; main()"
    )
    assert alone("--help", code=code).returncode == 0
    assert alone("beam", "--help", code=code).returncode == 0
    result = alone("beam", "--model", "tiny", "--ray=auto", code=code)
    assert result.returncode == 1
    assert result.stderr == "Error: --ray auto: Ray is not installed; pip install 'promptsearch[ray]'\n"


def test_a_cluster_of_its_own_ends_with_the_command() -> None:
    code = (
        "import click, ray\n"
        "from promptsearch.commands.options import ray_option\n"
        "from promptsearch.evaluators.encoding.ray_cluster import cluster_at\n"
        "@click.command()\n"
        "@ray_option\n"
        "def command(ray): print(cluster_at(ray).ray.cluster_resources()['CPU'] >= 1)\n"
        "command(['--ray'], standalone_mode=False); print(ray.is_initialized())"
    )
    result = alone(code=code)
    assert (result.stdout, result.stderr) == ("True\nFalse\n", "")
