"""Doors of benchmarks/attack.py that strangers use: settings files, servers, pages, databases, spreadsheets."""

from __future__ import annotations

import json
import random
import sqlite3
import string
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptSearchError

#: An attack of a door: its name, and a function that returns whether it was held off.
Attack = tuple[str, Callable[[], bool]]

#: Characters that files, terminals, spreadsheets and JSON may trip over.
ODD = "={}[]\"'\\#\n\t\r\0\x1b\x07\u202e\ud800é猫🙂.,:;+-@" + string.ascii_lowercase + string.digits


def _refused(call: Callable[[], Any], expected: Callable[[Any], bool] = lambda found: True) -> bool:
    try:
        found = call()
    except PromptSearchError as e:
        return bool(str(e)) and "\n" not in str(e) and len(str(e)) < 3000
    return expected(found)


def _text(rng: random.Random, most: int = 30) -> str:
    return "".join(rng.choice(ODD) for _ in range(rng.randrange(most)))


def _json(rng: random.Random, keys: tuple[str, ...], depth: int = 4) -> Any:
    """Any document out of the keys that a reader looks for."""
    kind = rng.randrange(9 if depth else 6)
    if kind >= 6:
        items = range(rng.randrange(4))
        return (
            [_json(rng, keys, depth - 1) for _ in items]
            if kind == 8
            else {rng.choice(keys): _json(rng, keys, depth - 1) for _ in items}
        )
    return [None, rng.random() < 0.5, rng.randint(-3, 1 << 70), rng.random(), _text(rng), rng.choice(keys)][kind]


def settings(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Settings files of random TOML, random bytes, great depth, and every option that a found file may not set."""
    from promptsearch.cli import main
    from promptsearch.commands.settings import NAMED_ONLY, SettingsFile, read_settings

    file = home / "promptsearch.toml"

    def read(content: bytes, found: bool = True, refused: bool = False) -> bool:
        file.write_bytes(content)
        return _refused(lambda: read_settings(SettingsFile(file, found), main), lambda _: not refused)

    def value() -> str:
        kinds = ["1", "-1.5", "inf", "true", "2024-01-01", '"x"', "[1, [2]]", "{a = 1}", "1" * rng.randrange(1, 6000)]
        return rng.choice(
            [*kinds, "[" * rng.randrange(5000), json.dumps(_text(rng)), "0x" + "f" * rng.randrange(1, 9000)]
        )

    while True:
        key = rng.choice(["shots", "seed", "bank", "quiet", "memory", "lm-omit", "beam", "runs", "x"])
        text = f"{rng.choice(['', '[beam]', '[runs.list]', '[[beam]]', '[runs]'])}\n{key} = {value()}\n"
        yield f"a value of {key}", partial(read, text.encode("utf-8", "replace"))
        yield "bytes", partial(read, rng.randbytes(rng.randrange(200)))
        yield "a text", partial(read, _text(rng, 200).encode("utf-8", "replace"))
        stranger = rng.choice(sorted(NAMED_ONLY))
        table = {"out": "[export]\n", "csv": "[compare]\n", "markdown": "[compare]\n", "figure": "[compare]\n"}
        table |= {"png": "[report]\n", "save": "[coop]\n", "yes": "[runs.delete]\n", "open": "[explore]\n"}
        text = f"{table.get(stranger, '')}{stranger} = {'true' if stranger in ('yes', 'open') else json.dumps('x')}\n"
        yield f"a stranger's {stranger}", partial(read, text.encode(), refused=True)


def replies(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Answers of a language model's server in any form; a thought is never a prompt."""
    from promptsearch.lm.server_reply import PARAMETERS, NoAnswer, read_answer, read_complaint
    from promptsearch.search.reply_parser import ProposalFilter

    keys = ("choices", "message", "content", "text", "error", "detail", "code", "finish_reason", "usage", "type", "loc")
    read = ProposalFilter(["cat"]).read

    def answered(raw: bytes, chats: bool) -> bool:
        complaint = read_complaint(raw)
        complaint.refuses(set(PARAMETERS), 400)
        try:
            answer = read_answer(raw, chats)
        except NoAnswer:
            return complaint.message.isprintable()
        read(answer.text)
        return complaint.message.isprintable()

    def thought(content: Any, finish: str) -> bool:
        choice = {"finish_reason": finish, "message": {"content": content, "reasoning_content": "a thought of a {}."}}
        return read(read_answer(json.dumps({"choices": [choice]}).encode(), True).text).template is None

    tags = ["<think>", "<thinking>", "<Reasoning>", "[THINK]", "<seed:think>", "◁think▷", "<|channel|>analysis"]
    while True:
        document = json.dumps(_json(rng, keys)).encode("utf-8", "surrogatepass")
        yield "a document", partial(answered, document, rng.random() < 0.5)
        yield "bytes", partial(answered, rng.randbytes(rng.randrange(300)), True)
        yield "depth", partial(answered, b'{"choices":' * rng.randrange(60_000), True)
        inner = f"{rng.choice(tags)} {_text(rng)} a photo of a {{}}."
        yield "a thought without an end", partial(thought, inner, rng.choice(["stop", "length"]))
        yield "an answer cut off", partial(thought, f"{_text(rng)} a photo of a {{}}", "length")


def page(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Questions to the page of `explore`: other origins, other types, no token, deep JSON, any document."""
    from promptsearch.banks import Bank, PromptSet
    from promptsearch.reports.server import HOST, bind, build_app, make_server

    asked: list[Any] = []

    class Explorer:
        task, held_out, problem = types.SimpleNamespace(support=[1]), [1], types.SimpleNamespace(notes=())

        def look(self, templates: list[str], against: tuple[str, ...] = ()) -> dict[str, Any]:
            asked.append(PromptSet(templates))
            return {"templates": list(PromptSet(templates).templates)}

    sock = bind(0)
    server = make_server(build_app(Explorer(), Bank.of("one", ["a {}."]), "x", token="secret"))  # type: ignore[arg-type]
    threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
    base = f"http://{HOST}:{sock.getsockname()[1]}"

    def ask(body: bytes, expected: set[int], path: str = "/secret/look", **headers: str) -> bool:
        before = len(asked)
        own = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(base + path, body, own), timeout=30) as answer:
                return answer.status in expected and (200 in expected or len(asked) == before)
        except urllib.error.HTTPError as e:
            return e.code in expected and (200 in expected or len(asked) == before)

    good = b'{"templates": ["a {}."]}'
    while True:
        origin = rng.choice(
            ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", base + ".evil.example"]
        )
        yield "another origin", partial(ask, good, {403}, Origin=origin)
        yield "another site", partial(ask, good, {403}, Sec_Fetch_Site=rng.choice(["cross-site", "same-site"]))
        kind = rng.choice(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"])
        yield "another type", partial(ask, good, {415}, Content_Type=kind)
        yield "another host", partial(ask, good, {400}, Host="evil.example")
        token = rng.choice(
            ["", "/secre", "/secrett", "/Secret", "/" + "".join(rng.choices(string.ascii_lowercase, k=6))]
        )
        yield "no token", partial(ask, good, {404, 405}, f"{token}/look")
        yield "depth", partial(ask, b"[" * rng.randrange(5_000, 50_000), {400})
        document = json.dumps(_json(rng, ("templates", "against", "a {}."))).encode()
        yield "a document", partial(ask, document, {200, 400, 422})
        yield "bytes", partial(ask, rng.randbytes(rng.randrange(300)), {400, 422})
        yield "its own", partial(ask, good, {200}, Origin=base)


def databases(rng: random.Random, home: Path) -> Iterator[Attack]:
    """A storage with changed bytes, and with values in its rows that promptsearch never wrote."""
    from promptsearch.config import RunConfig, SearchConfig
    from promptsearch.evaluators import Score
    from promptsearch.runs import RunRecord
    from promptsearch.runs.store.listing import summaries

    whole, db = home / "whole.db", home / "attacked.db"
    config = RunConfig(SearchConfig("random", objective="xent", select="none"), model="zeroshot", dataset="x")
    from promptsearch.banks import PromptSet

    record = RunRecord.open("r", str(whole), config, {"classes": ["cat"]})
    record.add([(PromptSet.of("a {}."), Score(0.5, 1.0))], 0, 1)
    record.storage.engine.dispose()
    with sqlite3.connect(whole) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    sound = whole.read_bytes()

    def read() -> bool:
        def all_of_it() -> None:
            summaries(str(db))
            found = RunRecord.load("r", str(db))
            _ = found.config, found.about, found.result, found.trials()

        return _refused(all_of_it)

    def bytes_changed() -> bool:
        changed = bytearray(sound)
        for _ in range(rng.choice([1, 10, 300])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        db.write_bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)
        return read()

    def row_changed(table: str, key: str, value: str) -> bool:
        db.write_bytes(sound)
        with sqlite3.connect(db) as connection:
            connection.execute(f"UPDATE {table} SET value_json = ? WHERE key = ?", (value, key))
        connection.close()
        return read()

    keys = ("command", "shots", "run", "winner", "test", "templates", "accuracy", "x")
    while True:
        yield "changed bytes", bytes_changed
        for table, key in (
            ("study_user_attributes", rng.choice(["config", "about", "result"])),
            ("trial_user_attributes", rng.choice(["prompt_set", "accuracy", "xent", "step"])),
        ):
            value = rng.choice([json.dumps(_json(rng, keys)), "{", '{"a":' * 20_000, _text(rng).replace("\ud800", "")])
            yield f"a changed {key}", partial(row_changed, table, key, value)


def spreadsheets(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Texts that become formulas where a CSV file is opened."""
    from promptsearch.reports.comparison import no_formula

    def held(text: str) -> bool:
        cell = no_formula(text)
        return cell[:1] not in tuple("=+-@\t\r＝＋－＠") and cell.replace("'", "") == text.replace("'", "")

    while True:
        text = "".join(rng.choice('=+-@;, \t\r\n"a{}＝＠|') for _ in range(rng.randrange(1, 12)))
        yield "a cell", partial(held, text)


def cells(rng: random.Random, home: Path) -> Iterator[Attack]:
    """The file of what a comparison learnt, with changed bytes: never read as if it were whole."""
    import warnings

    import numpy as np

    from promptsearch.runs.compare.cells import Cell, Cells

    kept, cell = Cells(None, home / "cells"), Cell("coop", "x", 1, 0, "y")
    arrays = {"row 0": np.arange(600, dtype=np.float32).reshape(20, 30)}
    kept._write(kept._file(cell.key), cell, arrays)
    sound = kept._file(cell.key).read_bytes()

    def changed() -> bool:
        content = bytearray(sound)
        for _ in range(rng.choice([1, 1, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        kept._file(cell.key).write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = kept.arrays(cell)
            except PromptSearchError:
                return not kept._file(cell.key).exists()
        return found.keys() == arrays.keys() and np.array_equal(found["row 0"], arrays["row 0"])

    while True:
        yield "flipped bits", changed


def consoles(rng: random.Random, home: Path) -> Iterator[Attack]:
    """Any text to a console of any encoding; what it lacks is an escape that JSON reads back."""
    from promptsearch.commands.terminal import write_anything

    write_anything()

    def written(text: str, encoding: str) -> bool:
        document = json.dumps(text, ensure_ascii=False).encode(encoding, "promptsearch.escapes").decode(encoding)
        return json.loads(document).encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")

    while True:
        text = _text(rng) + "".join(chr(rng.randrange(0x11_0000)) for _ in range(rng.randrange(8)))
        yield "a text", partial(written, text, rng.choice(["ascii", "latin-1", "cp1252", "cp437", "utf-8"]))


#: The doors by name: from a random generator and an empty folder to endless attacks.
STRANGERS: dict[str, Callable[[random.Random, Path], Iterator[Attack]]] = {
    "settings": settings,
    "server replies": replies,
    "explore": page,
    "databases": databases,
    "spreadsheets": spreadsheets,
    "learnt cells": cells,
    "consoles": consoles,
}
