"""`promptsearch explore`: the page in a real browser, what it answers, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, page_of, wait_for
from click.testing import CliRunner
from made_problem import make_problem
from PIL import Image
from trial_runs import start

from promptsearch.banks import Bank, PromptSet
from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.evaluators import open_problem
from promptsearch.reports.explorer import Explorer

pytest.importorskip("starlette", reason="starlette is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

TOKEN = "made-for-the-tests"
TEMPLATES = ["a photo of a {}.", "a sketch of a {}.", 'a <b onclick="x">{}</b> $x$.']


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PROMPTSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        env.setenv("HF_HUB_OFFLINE", "1")
        problem = open_problem("tiny", "cifar10-dark", device="cpu")
        yield Explorer(problem, shots=4, seed=0, held_out=300)


@pytest.fixture(scope="module")
def address(explorer: Explorer) -> Iterator[str]:
    from promptsearch.reports.server import HOST, bind, build_app, make_server

    def picture(index: int) -> Image.Image:
        return Image.new("RGB", (32, 32), (index % 255, 90, 120))

    sock = bind(0)
    server = make_server(build_app(explorer, Bank.of("three", TEMPLATES), "tiny on <dark>", picture, TOKEN))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield f"http://{HOST}:{sock.getsockname()[1]}/{TOKEN}/"
    server.should_exit = True
    thread.join(20)
    sock.close()


def ask(address: str, question: Any, **headers: str) -> tuple[int, Any]:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    request = urllib.request.Request(address + "look", body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def test_a_person_types_and_sees_it_at_once(address: str, explorer: Explorer) -> None:
    with chromium() as browser, page_of(browser, viewport={"width": 1100, "height": 900}) as (page, complaints):

        def answered() -> None:
            wait_for(page, "document.body.dataset.answered && !document.getElementById('error').textContent")

        page.goto(address)
        answered()
        assert "+0.00" in page.inner_text("#difference") and "tiny on <dark>" in page.inner_text(".eyebrow")
        page.fill("#prompts", "a dark photo of a {}.\na {} at night.")
        wait_for(page, "document.getElementById('difference').textContent !== '+0.00'")
        answered()
        found = explorer.look(["a dark photo of a {}.", "a {} at night."])
        value, low, high = found["held_out"]["difference"]
        assert page.inner_text("#difference").replace("−", "-") == f"{100 * value:+.2f}"
        assert page.inner_text("#held") == f"{100 * found['held_out']['accuracy'][0]:.1f} %"
        assert page.inner_text("#xent") == f"{found['support']['xent']:.4f}"
        assert page.evaluate("document.querySelectorAll('#classes .point').length") == 2 * len(found["classes"])
        assert page.evaluate("document.querySelectorAll('#gained img').length") == min(
            24, found["flips"]["gained"]["count"]
        )
        wait_for(page, "[...document.images].every(i => i.naturalWidth === 32)")

        page.click("#pin")
        wait_for(page, "document.getElementById('difference').textContent === '+0.00'")
        assert page.inner_text("#against") == "a dark photo of a {}. · a {} at night."
        page.fill("#filter", "onclick")
        assert page.inner_text("#bank").strip().startswith(TEMPLATES[2])
        page.click("#bank button:first-child")
        wait_for(page, "document.getElementById('difference').textContent !== '+0.00'")
        page.fill("#filter", "sketch")
        page.click("#bank button[title]")
        assert page.input_value("#prompts") == f"{TEMPLATES[2]}\n{TEMPLATES[1]}"
        assert page.evaluate("document.querySelectorAll('main b[onclick]').length") == 0
        assert complaints == []

        wait_for(page, "!document.body.classList.contains('stale')")
        page.fill("#prompts", "no place for a name")
        wait_for(page, "document.getElementById('error').textContent.includes('{}')")
        assert page.evaluate("document.body.classList.contains('stale')")  # the figures are of what was typed before
        page.fill("#prompts", " ")
        wait_for(page, "document.getElementById('error').textContent.startsWith('Type a prompt')")
        page.fill("#prompts", "a photo of a {}.")
        page.click("#unpin")
        wait_for(page, "document.getElementById('difference').textContent === '+0.00'")
        page.click("#theme")
        page.reload()
        answered()
        assert page.input_value("#prompts") == "a photo of a {}."  # kept in the address


def test_what_is_answered_is_what_the_evaluator_says(address: str, explorer: Explorer) -> None:
    status, found = ask(address, {"templates": ["a dark photo of a {}."]})
    assert status == 200 and found["names"] == list(explorer.task.class_names)
    prompts = PromptSet.of("a dark photo of a {}.")
    assert found["support"] == explorer.evaluator.score([prompts])[0].to_dict()
    hits = explorer.evaluator.hits(prompts, explorer.held_out)
    assert found["held_out"]["accuracy"][0] == pytest.approx(hits.mean(), abs=1e-6)
    assert sum(c["after"] * c["pictures"] for c in found["classes"]) == pytest.approx(hits.sum())


def test_held_out_pictures_were_not_drawn_and_the_test_stays_shut(explorer: Explorer) -> None:
    drawn = np.concatenate([explorer.task.support.indices, explorer.task.validation.indices])
    assert len(explorer.held_out) == 300 and not np.isin(explorer.held_out.indices, drawn).any()
    assert explorer.task.test_opened == 0
    none = Explorer(explorer.problem, shots=4, seed=0, held_out=0).look(["a {}."])
    assert none["pictures"] == {"support": 40, "held_out": 0} and none["held_out"]["accuracy"][0] > 0


@pytest.mark.parametrize(
    "question",
    [
        {"templates": []},
        {"templates": ["{} {}"]},
        {"templates": "a {}."},
        {"templates": ["a {}."] * 65},
        {"templates": [1]},
        {"templates": [["a {}."]]},
        {"templates": ["a {}."], "against": [None]},
        {"templates": ["a \ud800 {}."]},
        {"templates": ["a \0 {}."]},
        [1],
    ],
)
def test_a_wrong_question_is_answered_with_one_line(address: str, question: Any) -> None:
    status, said = ask(address, question)
    assert status == 422 and len(json.loads(said)["error"].splitlines()) == 1


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff", b"NaN,", b"[" * 50_000, b'{"templates":' + b"[" * 50_000, b'{"a":' * 15_000, b"1" * 5000],
)
def test_what_is_no_json_or_too_deep_is_a_bad_request(address: str, body: bytes) -> None:
    status, said = ask(address, body)
    assert status == 400 and len(json.loads(said)["error"].splitlines()) == 1


OTHERS = {
    "another origin": {"Origin": "http://evil.example"},
    "no origin": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "https": {"Origin": "https://127.0.0.1"},
    "a suffix": {"Origin": "http://127.0.0.1.evil.example"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "the same site": {"Sec-Fetch-Site": "same-site"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "text": {"Content-Type": "text/plain"},
    "no type": {"Content-Type": ""},
    "another name": {"Host": "evil.example"},
}


@pytest.mark.parametrize("headers", OTHERS.values(), ids=OTHERS)
def test_pages_of_other_origins_are_refused(address: str, headers: dict[str, str], explorer: Explorer) -> None:
    asked = explorer.evaluator.evaluations if hasattr(explorer.evaluator, "evaluations") else None
    status, _ = ask(address, {"templates": ["a {} of theirs."]}, **headers)
    assert status in (400, 403, 415)
    assert asked == (explorer.evaluator.evaluations if asked is not None else None)
    if "Content-Type" not in headers:
        for path in ("picture/3", "bank", "explore.js"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(address + path, headers=headers))


def test_without_the_token_there_is_nothing(address: str) -> None:
    bare = address.removesuffix(f"{TOKEN}/")
    for path in ("", "bank", "look", "picture/3", "explore.js", f"{TOKEN}x/bank", f"{TOKEN[:-1]}/bank"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(bare + path)
    assert ask(bare, {"templates": ["a {}."]})[0] == 404
    own = {"Origin": bare.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert ask(address, {"templates": ["a {}."]}, **own)[0] == 200


def test_answers_may_not_leave_their_page(address: str) -> None:
    with urllib.request.urlopen(address) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_too_large_and_what_is_no_picture(address: str) -> None:
    assert ask(address, b"x" * 100_001)[0] == 422
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + "picture/9999999999x")


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["explore", "--model", "tiny", "--port", port])
    assert result.exit_code == 2
    assert result.stderr == f"Error: --port {port}: is in use; choose another, or 0 for any free port\n"


def test_too_many_templates() -> None:
    from promptsearch.reports.explorer import _ensemble

    with pytest.raises(InputError, match="65 templates"):
        _ensemble([f"a {{}} {i}." for i in range(65)])


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    """On a made-up problem: no torch."""
    make_problem(tmp_path / "cache", ["a picture of a {}."])
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\n")
    problem = ["--model", "tiny", "--dataset", "made", "--shots", "4", "--bank", bank]
    process = start("explore", *problem, "--port", "0", "--quiet", PYTHONUNBUFFERED="1")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/[\w-]{22}/) ", line)
        assert found, (line, process.stderr and process.stderr.read())
        status, answer = ask(found[1], {"templates": ["a photo of a {}."], "against": ["a picture of a {}."]})
        assert status == 200 and answer["names"] == ["cat", "dog", "ship", "truck"]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in stderr and process.returncode in (0, 130)


def _opened(address: str, sent: bytes) -> socket.socket:
    """A connection over which so much was sent."""
    port = int(address.split(":")[2].split("/")[0])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def test_clients_that_leave_or_wait_keep_nothing_from_ending(tmp_path: Path) -> None:
    """Half a header, half a body, an idle connection, one that left in the middle: Ctrl-C ends it, and no word."""
    from promptsearch.reports.server import GRACE

    assert GRACE < 3
    make_problem(tmp_path / "cache", ["a picture of a {}."])
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\n")
    problem = ["--model", "tiny", "--dataset", "made", "--shots", "4", "--bank", bank]
    process = start("explore", *problem, "--port", "0", "--quiet", PYTHONUNBUFFERED="1")
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" ")[0]
        path = "/" + address.split("/", 3)[3]
        head = f"POST {path}look HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
        for sent in (b"", b"GET", head, head + b"Content-Length: 100\r\n\r\n{", b"\x00\xff\r\n\r\n"):
            _opened(address, sent).close()  # left
        open_still = [_opened(address, s) for s in (b"", head, head + b"Content-Length: 100\r\n\r\n{")]
        assert ask(address, {"templates": ["a photo of a {}."]})[0] == 200
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)  # without GRACE the server would wait for them without end
        assert len(open_still) == 3
    finally:
        process.kill()
    assert stderr == "" and process.returncode in (0, 130), stderr


def test_ctrl_c_does_not_wait_for_what_is_computed() -> None:
    """An answer that would take a minute is given up with the server."""
    code = """
import sys, threading, time, types, urllib.request, _thread
from promptsearch.banks import Bank
from promptsearch.reports.server import bind, build_app, make_server
class Slow:
    task = types.SimpleNamespace(support=[1]); held_out = [1]; problem = types.SimpleNamespace(notes=[])
    def look(self, templates, against=()): began.set(); time.sleep(60)
began, sock = threading.Event(), bind(0)
app = build_app(Slow(), Bank.of("one", ["a {}."]), "x")
url = f"http://127.0.0.1:{sock.getsockname()[1]}/look"
def ask():
    request = urllib.request.Request(url, b'{"templates": []}', {"Content-Type": "application/json"})
    try: urllib.request.urlopen(request)
    except OSError: pass
threading.Thread(target=ask, daemon=True).start()
def interrupt():
    began.wait()
    time.sleep(0.2)
    print("asked", flush=True)
    _thread.interrupt_main()
threading.Thread(target=interrupt, daemon=True).start()
started = time.monotonic()
try: make_server(app).run(sockets=[sock])
except KeyboardInterrupt: pass
print("computing", app.state.computing, flush=True)
"""
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline().strip() == b"asked"
    out, err = process.communicate(timeout=30)  # the answer would take longer
    assert b"Traceback" not in err, err
