"""Doors of benchmarks/attack.py behind which a figure is wrong without a word: ties, tokens, keys, lists, servers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import shutil
import string
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.banks import printable
from promptsearch.errors import PromptSearchError

#: An attack of a door: its name, and a function that returns whether it was held off.
Attack = tuple[str, Callable[[], bool]]


def _refused(call: Callable[[], Any], expected: Callable[[Any], bool] = lambda found: True) -> bool:
    try:
        found = call()
    except PromptSearchError as e:
        said = printable(e)  # as the command line shows it
        return bool(said) and said.isprintable() and len(said) < 3000
    return expected(found)


def ties(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Logits of few values: every accuracy is that of pictures whose class alone is the most probable."""
    from promptsearch.evaluators.scoring.metrics import balanced, measure, predict, worst_class

    def same(logits: np.ndarray, labels: np.ndarray) -> bool:
        plain = [sum(row >= row[label]) == 1 for row, label in zip(logits, labels, strict=True)]
        by_class = [np.mean([h for h, own in zip(plain, labels, strict=True) if own == c]) for c in set(labels)]
        report, stacked = measure(logits, labels, 1.0), np.ascontiguousarray(logits.T)[None]
        figures = report.mean_per_class, balanced(stacked, labels, None)[0]
        least = report.worst_class, worst_class(stacked, labels, None)[0]
        return bool(
            ((predict(logits, labels) == labels) == plain).all()
            and np.allclose(figures, np.mean(by_class))
            and np.allclose(least, min(by_class))
        )

    while True:
        draw = np.random.default_rng(rng.randrange(2**32))
        n, classes = int(draw.integers(1, 30)), int(draw.integers(2, 9))
        logits = draw.integers(0, 3, (n, classes)).astype(np.float32)
        yield f"{n} pictures, {classes} classes", partial(same, logits, draw.integers(0, classes, n))


def tokens(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Texts of any characters: what open_clip's tokenizers cut off was counted as too long, and nothing else."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from promptsearch.evaluators.encoding.tokenizers import count_tokens

    made = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="</s>")
    fast.save_pretrained(home)
    known = {name: open_clip.get_tokenizer(name) for name in ("RN50", "coca_ViT-B-32", "PE-Core-S-16-384")}
    known["bytes"] = HFTokenizer(str(home), context_length=40)

    def counted(name: str, text: str) -> bool:
        tokenizer = known[name]
        row, pad = tokenizer([text])[0].tolist(), fast.pad_token_id if name == "bytes" else 0
        used = len(row) - next((i for i, t in enumerate(reversed(row)) if t != pad), len(row))
        return used == min(count_tokens(tokenizer, [text])[0], len(row))

    pieces = [*string.ascii_letters, "é", "猫", "🙂", "\N{ZERO WIDTH JOINER}", "1", "'s", "&amp;", "-", ". "]
    while True:
        words = ["".join(rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 40))]
        name = rng.choice(list(known))
        yield name, partial(counted, name, f"a {' '.join(words)}")


def keys(rng: random.Random, home: Path) -> Iterator[Attack]:
    """A byte changed in a model's folder, or the order of its classes: never the same key of the cache."""
    from promptsearch.evaluators import Cache, resolve_model
    from promptsearch.evaluators.cache import MODELS

    folder = home / "model"
    shutil.copytree(MODELS / "zeroshot", folder)
    first = resolve_model(f"local-dir:{folder}", Cache(home / "cache")).fingerprint
    content = (folder / "open_clip_model.safetensors").read_bytes()
    config = (folder / "open_clip_config.json").read_text()

    def bit() -> bool:
        changed = bytearray(content)
        changed[rng.randrange(len(content) // 2, len(content))] ^= 1 << rng.randrange(8)
        (folder / "open_clip_model.safetensors").write_bytes(changed)
        found = resolve_model(f"local-dir:{folder}", Cache(home / "cache")).fingerprint
        (folder / "open_clip_model.safetensors").write_bytes(content)
        return found != first

    def setting(name: str, value: Any) -> bool:
        document = json.loads(config)
        document.setdefault("preprocess_cfg", {})[name] = value
        (folder / "open_clip_config.json").write_text(json.dumps(document))
        try:
            return _refused(
                lambda: resolve_model(f"local-dir:{folder}", Cache(home / "cache")).fingerprint, lambda f: f != first
            )
        finally:
            (folder / "open_clip_config.json").write_text(config)

    while True:
        yield "a bit of the weights", bit
        name, value = rng.choice([("mean", [rng.random()] * 3), ("std", [0.1 + rng.random()] * 3)])
        yield f"preprocessing: {name}", partial(setting, name, value)


def _png(rng: random.Random) -> bytes:
    from PIL import Image

    out, draw = io.BytesIO(), np.random.default_rng(rng.randrange(2**32))
    Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def lists(rng: random.Random, home: Path) -> Iterator[Attack]:
    """CSV files, JSON lines, CoOp's split files, parquet files and archives: of odd cells, or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from promptsearch.evaluators.data import open_dataset
    from promptsearch.evaluators.data.overlap import count_shared

    (home / "images").mkdir()
    pictures = [_png(rng) for _ in range(4)]
    for i, picture in enumerate(pictures):
        (home / "images" / f"{i}.png").write_bytes(picture)
    odd = ["../../etc/passwd", "/dev/zero", "", "images", "\x00", "\x1b[2J.png", "=1+1", "é.png", "http://localhost/x"]

    def cell() -> str:
        return rng.choice([f"images/{rng.randrange(4)}.png", f"images/{rng.randrange(4)}.png", rng.choice(odd)])

    def label() -> Any:
        return rng.choice(["cat", "ship", "cat", "ship", "Cat", "", 3, None, "\x1b[31m", "-1", 1.5])

    def write(kind: str) -> Path:
        file = home / {"csv": "l.csv", "jsonl": "l.jsonl", "coop": "split_zhou_X.json", "parquet": "l.parquet"}.get(
            kind, "l.tar"
        )
        rows = [(cell(), label()) for _ in range(rng.randint(1, 8))]
        if kind == "csv":
            out = io.StringIO()
            csv.writer(out).writerows([("path", "label"), *rows])
            file.write_text(out.getvalue())
        elif kind == "jsonl":
            file.write_text("\n".join(json.dumps({"path": p, "label": x}) for p, x in rows))
        elif kind == "coop":
            splits = {s: [[p, rng.choice([0, 1, 2, "x"]), str(x)] for p, x in rows] for s in ("train", "val", "test")}
            file.write_text(json.dumps(splits))
        elif kind == "parquet":
            column = [rng.choice([*pictures, pictures[0][:50], b"", None]) for _ in rows]
            pq.write_table(pa.table({"image": column, "label": [str(x) for _, x in rows]}), file)
        else:
            with tarfile.open(file, "w") as tar:
                for i, (_, x) in enumerate(rows):
                    for suffix, content in (("png", rng.choice(pictures)), ("cls", str(x).encode())):
                        member = tarfile.TarInfo(f"{rng.choice([i, i, '../x'])}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        return file

    def opened(kind: str, damaged: bool) -> bool:
        file = write(kind)
        if damaged:
            content = bytearray(file.read_bytes())
            for _ in range(rng.randint(1, 8)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            file.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)

        def read() -> None:
            data = open_dataset(str(file))
            for split in data.splits:
                for picture in data.stored(split, range(len(data.labels(split)))):
                    with contextlib.suppress(PromptSearchError):
                        assert picture.open().mode == "RGB"
            if set(data.splits) == {"train", "test"}:
                count_shared(data)

        held = _refused(read)
        file.unlink()
        return held

    while True:
        for kind in ("csv", "jsonl", "coop", "parquet", "tar"):
            yield kind, partial(opened, kind, False)
            yield f"{kind}, damaged", partial(opened, kind, True)


class _Server(ThreadingHTTPServer):
    """Answers what `acts` says of a request: status and body."""

    daemon_threads = True
    acts: Callable[[dict[str, Any]], tuple[int, bytes]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        status, body = self.server.acts(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(status)
        if status != 599:  # that one is endless
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        while status == 599:
            self.wfile.write(body)


def servers(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Errors of any status and shape, some without an end; parameters that are refused in any words."""
    import warnings

    from promptsearch.lm.server import ServerModel, ServerPlace

    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer = json.dumps({"choices": [{"message": {"content": "a {}."}, "finish_reason": "stop"}]}).encode()
    words = ["Unsupported parameter: '{}'", "unknown field `{}`", "{}: Extra inputs are not permitted", "invalid: {}"]

    def ask() -> Any:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        place = ServerPlace(url, "m", timeout=0.5, tries=2, wait=0.01, concurrency=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ServerModel(place).write([[{"role": "user", "content": "x"}]], rng.randrange(9))

    def error(status: int, body: bytes) -> bool:
        server.acts = lambda _: (status, body)
        return _refused(ask)

    def refused(names: tuple[str, ...], status: int, said: str) -> bool:
        def act(body: dict[str, Any]) -> tuple[int, bytes]:
            there = next((n for n in names if n in body or n.replace("x_", "x_completion_") in body), None)
            if there is None:
                return 200, answer
            return status, json.dumps({"error": {"message": said.format(there)}}).encode()

        server.acts = act
        return bool(ask() == ["a {}."])

    while True:
        status = rng.choice([200, 400, 401, 404, 422, 429, 500, 501, 503, 599])
        message = "".join(rng.choices(string.printable + "\x1b é", k=rng.randrange(200)))
        body = rng.choice([message.encode(), json.dumps({"error": {"message": message}}).encode(), b"[" * 50_000, b""])
        yield f"status {status}", partial(error, status, body or b" ")
        names = tuple(rng.sample(["temperature", "top_p", "seed", "max_tokens"], rng.randint(1, 3)))
        yield f"refuses {', '.join(names)}", partial(refused, names, rng.choice([400, 422]), rng.choice(words))


def storages(rng: random.Random, home: Path) -> Iterator[Attack]:
    """A shared storage that names a server and a variable: never asked without the user's own word."""
    from types import SimpleNamespace

    from promptsearch.commands.options import own_server

    def asked(told: dict[str, Any], here: dict[str, Any]) -> bool:
        writer = SimpleNamespace(lm="server:m")
        record = SimpleNamespace(
            name="r",
            url="postgresql://x/y",
            config=SimpleNamespace(search=SimpleNamespace(writer=writer)),
            get=lambda _: told,
        )
        return _refused(
            lambda: own_server(record, {"as_json": True, **here}, True),  # type: ignore[arg-type]
            lambda found: found["lm_url"] == here["lm_url"] and found.get("lm_key_env") == here["lm_key_env"],
        )

    while True:
        evil = "".join(rng.choices(string.printable + "\x1b", k=rng.randrange(30)))
        told = {
            "lm_url": rng.choice([f"http://evil.example/{evil}", evil, 3, None]),
            "lm_key_env": rng.choice(["AWS_SECRET", None, evil]),
        }
        mine = {"lm_url": rng.choice([None, "http://127.0.0.1/v1"]), "lm_key_env": rng.choice([None, "MY_KEY"])}
        yield "a server", partial(asked, told, mine)


#: The doors by name: from a random generator and an empty folder to endless attacks.
FIGURES: dict[str, Callable[[random.Random, Path], Iterator[Attack]]] = {
    "ties": ties,
    "tokens": tokens,
    "cache keys": keys,
    "lists": lists,
    "servers": servers,
    "storages": storages,
}
