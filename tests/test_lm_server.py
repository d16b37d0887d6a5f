"""Language models behind a server: one that fails in every way there is, and a real `transformers serve`."""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from faulty_server import FaultyServer, faulty_server
from forked import MODELS, Forked

from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.lm import EMBEDDED, locate
from promptsearch.lm.bounds import retry_after
from promptsearch.lm.server import ServerModel, ServerPlace

TALK: list[dict[str, str]] = [{"role": "user", "content": "Shorten: a dark photo of a {}."}]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def model(server: FaultyServer, **kw: Any) -> ServerModel:
    return ServerModel(ServerPlace(server.url, "m", **{"wait": 0.01, "timeout": 5.0, **kw}))


@pytest.mark.parametrize("fault", ["500", "429", "html", "nojson", "other", "odd", "cut", "drop", "new"])
def test_what_passes_is_tried_again(server: FaultyServer, fault: str) -> None:
    server.faults = [fault, fault]
    lm = model(server)
    assert "{}" in lm.write([TALK], 0)[0]
    assert lm.usage["calls"] == 1 and lm.usage["tokens read"] == 10 and lm.usage["tokens written"] == 5


@pytest.mark.parametrize("fault", ["hang", "endless", "trickle"])
def test_no_answer_is_waited_for_without_end(server: FaultyServer, fault: str) -> None:
    server.faults = [fault]
    assert "{}" in model(server, timeout=0.5 if fault != "endless" else 5.0).write([TALK], 0)[0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("500", "it answers 500 .out of luck. .2 attempts.*resume from the recorded trials"),
        ("429", "it answers 429"),
        ("html", "it answers HTML .*usually ends in /v1"),
        ("nojson", "no JSON"),
        ("other", "not in OpenAI's form"),
        ("odd", "not in OpenAI's form"),
        ("cut", "the connection was cut"),
        ("drop", "no connection"),
        ("hang", "no answer within 0.3 s"),
        ("trickle", "did not end within 0.3 s"),
        ("400", "rejects the request with 400 .the context is too short"),
    ],
)
def test_what_stays_is_an_error_with_the_remedy(server: FaultyServer, fault: str, message: str) -> None:
    server.always = fault
    with pytest.raises(PromptSearchError, match=message):
        model(server, tries=2, timeout=0.3 if fault in ("hang", "trickle") else 5.0).write([TALK] * 3, 0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "set the key in OPENAI_API_KEY"),
        ("403", r"requires an API key .403: this key may not.; set the key in OPENAI_API_KEY"),
        ("404", "--lm-model"),
    ],
)
def test_what_is_wrong_is_said_at_once(server: FaultyServer, fault: str, message: str) -> None:
    server.always = fault
    with pytest.raises(InputError, match=message):
        model(server).write([TALK], 0)
    assert len(server.requests) == 1


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(PromptSearchError, match="no connection"):
        ServerModel(ServerPlace(url, "m", tries=2, wait=0.01)).write([TALK], 0)


def test_retry_after_is_obeyed(server: FaultyServer) -> None:
    server.faults = ["429"]
    started = time.monotonic()
    model(server).write([TALK], 0)
    assert time.monotonic() - started >= 0.2


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = email.utils.format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after({"retry-after": soon}) or 0) <= 30
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert (retry_after({"retry-after": "7"}), retry_after({"retry-after": "soon"}), retry_after({})) == (7, None, None)


def test_calls_are_made_so_many_at_a_time(server: FaultyServer) -> None:
    server.always = "slow"
    answers = model(server, concurrency=3).write([TALK] * 9, 0)
    assert len(answers) == 9 and 1 < server.most <= 3


def test_the_key_comes_from_the_environment_alone(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    model(server, key_env="MY_KEY").write([TALK], 0)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    model(server).write([TALK], 0)
    assert server.keys == ["Bearer secret-1", "Bearer secret-2"]
    with pytest.raises(InputError, match="--lm-key-env NOT_SET: this environment variable is not set"):
        model(server, key_env="NOT_SET")


def test_each_prompt_has_a_seed_of_its_own(server: FaultyServer) -> None:
    for seed in (1, 1, 2):
        model(server, concurrency=1).write([TALK] * 2, seed)
    seeds = [r["seed"] for r in server.requests]
    assert seeds[:2] == seeds[2:4] and len(set(seeds)) == 4


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"url": "localhost:11434"}, "--lm-url localhost:11434: not an http"),
        ({"url": "http://[bad/v1"}, "not an http"),
        ({"url": "http://me:secret@host/v1"}, "must not contain a key, password or query"),
        ({"api": "tea"}, "--lm-api tea: choose from chat, completions"),
        ({"timeout": 0.0}, "--lm-timeout 0.0"),
        ({"timeout": float("nan")}, "--lm-timeout nan"),
        ({"tries": 0}, "--lm-tries 0"),
        ({"concurrency": 0}, "--lm-concurrency 0"),
    ],
)
def test_bad_places(place: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        ServerPlace(**{"url": "http://localhost/v1", "model": "m", **place})
    assert "secret" not in str(error.value)


EVOLVE = ["evolve", "--bank", "templates", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "2"]
EVOLVE += ["--population", "4", "--offspring", "4", "--trials", "24", "--no-estimate", "--lm-model", "m"]


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert "Traceback" not in result.output
    return result


def test_a_run_survives_a_faulty_server_with_the_same_result(server: FaultyServer) -> None:
    server.says = lambda body: f"a photo number {body['seed'] % 1000} of a {{}}."
    options = [*EVOLVE, "--lm-url", server.url, "--lm-concurrency", "1", "--json"]
    calm = json.loads(run(*options, "--study", "calm").stdout)
    server.faults = ["500", "ok", "cut", "ok", "nojson", "429", "ok", "drop", "html"]
    stormy = json.loads(run(*options, "--study", "stormy").stdout)
    assert stormy["winner"] == calm["winner"] and stormy["runners_up"] == calm["runners_up"]
    assert stormy["proposals"]["usage"]["tries that failed"] == 6
    asked = len(server.requests)
    more = json.loads(run("runs", "resume", "stormy", "--trials", "32", "--json").stdout)  # its server is known
    assert more["evaluations"] == 32 and len(server.requests) > asked


def test_a_server_that_breaks_down_costs_no_trial(server: FaultyServer) -> None:
    server.faults = ["ok"] * 7 + ["404"] * 50
    options = [*EVOLVE, "--lm-url", server.url, "--study", "mine"]
    broken = run(*options)
    assert broken.exit_code == 2 and broken.stderr.count("Error: ") == 1 and "404" in broken.stderr
    before = json.loads(run("runs", "show", "mine", "--json").stdout)
    assert before["state"] == "unfinished" and before["trials"] >= 8
    server.faults = []
    whole = json.loads(run(*options, "--json").stdout)
    assert whole["evaluations"] == 24


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("html", 1, "it answers HTML (is this the address of its API? it usually ends in /v1) (1 attempt)"),
        ("400", 1, "it rejects the request with 400 (the context is too short"),
        ("401", 2, "it requires an API key (401: no key); set the key in OPENAI_API_KEY, or name its variable with"),
    ],
)
def test_what_a_run_says_of_a_bad_server(server: FaultyServer, fault: str, code: int, message: str) -> None:
    server.always = fault
    broken = run(*EVOLVE, "--lm-url", server.url, "--lm-tries", "1", "--study", "mine")
    errors = [line for line in broken.stderr.splitlines() if line.startswith("Error: ")]
    assert broken.exit_code == code and len(errors) == 1 and message in errors[0], broken.stderr
    kept = json.loads(run("runs", "show", "mine", "--json").stdout)["trials"]
    assert kept >= 4  # what was scored before the model was asked


def test_answers_without_text_are_in_the_result_with_the_servers_words(server: FaultyServer) -> None:
    def act(body: dict[str, Any]) -> tuple[int, Any]:
        texts = [
            {"content": f"a photo number {body['seed'] % 1000} of a {{}}."},
            {"content": None, "refusal": "I cannot help with that."},
            {"content": None, "tool_calls": [{"function": {"name": "draw"}}]},
        ]
        return 200, {"choices": [{"message": texts[len(server.requests) % 3], "finish_reason": "stop"}]}

    server.acts = act
    options = [*EVOLVE, "--lm-url", server.url, "--lm-concurrency", "1", "--study", "mine"]
    document = json.loads(run(*options, "--json").stdout)
    proposals = document["proposals"]
    assert proposals["rejected"]["refused"] > 0 < proposals["rejected"]["tool call"]
    assert "empty reply" not in proposals["rejected"]
    assert proposals["said"] == {
        "refused": "I cannot help with that.; finish_reason stop",
        "tool call": "it calls draw; finish_reason stop",
    }
    shown = run("runs", "show", "mine").stdout
    assert shown.count("I cannot help with that.") == 1 and "refused" in shown and "it calls draw" in shown


HOSTILE = [
    "a <script>alert(1)</script> {}.",
    "a [bold red]photo[/] of a {} [/nothing]",
    "a {} \x1b[31mred\x1b[0m",
    "\x00{}\ud800",
    "{0.__class__.__mro__} and %s and ${HOME} and `id`",
    "'; DROP TABLE trials; -- {}",
    "a photo of a {}.\n" + "endless " * 100_000,
    "</think></think>",
    "🙂 a {} in the rain 🌧",
]


def test_whatever_a_model_says_breaks_neither_the_record_nor_the_report(server: FaultyServer, tmp_path: Path) -> None:
    server.says = lambda body: HOSTILE[body["seed"] % len(HOSTILE)].replace("{}", f"{body['seed'] % 7} {{}}")
    db = tmp_path / "said.db"
    options = [*EVOLVE, "--lm-url", server.url, "--trials", "28", "--storage", str(db), "--study", "said"]
    result = run(*options, "--select", "none")
    assert result.exit_code == 0, (result.stderr, result.exception)
    shown = [result, *(run("runs", what, "said", "--storage", str(db)) for what in ("show", "best", "export"))]
    shown.append(run("report", "said", "--storage", str(db), "--out", str(tmp_path / "said.html")))
    assert all(r.exit_code == 0 and "\x1b" not in r.stdout for r in shown)
    assert "DROP TABLE" in shown[3].stdout and "[bold red]photo[/]" in shown[3].stdout  # shown as they are
    assert "<script>alert" not in (tmp_path / "said.html").read_text("utf-8")
    assert db.stat().st_size < 3_000_000  # of what has no end only the beginning is kept
    again = json.loads(run(*options, "--select", "none", "--json").stdout)
    assert again["evaluations"] == 28 and again["proposals"]["rejected"]["not printable"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--lm-url", "nowhere"], "not an http"),
        (["--lm-url", "http://localhost:1/v1", "--temperature", "-1"], "--temperature -1"),
        (["--lm", "embedded"], "--lm-model m"),
        (["--lm", "embedded", "--lm-url", "http://localhost:1/v1"], "exclude each other"),
        (["--lm-url", "http://localhost:1/v1", "--lm-key-env", "NOT_SET"], "NOT_SET"),
    ],
)
def test_bad_options(args: list[str], message: str) -> None:
    result = run(*EVOLVE, *args)
    assert result.exit_code == 2 and message in result.stderr


#: A chat template by which the embedded model, which follows no instructions, reads the last line of a conversation.
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content.split('\n')[-1] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nIn other words:' }}{% endif %}"
)


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's folder with a chat template, by which an answer ends with its line."""
    folder = tmp_path_factory.mktemp("talking")
    for file in locate(EMBEDDED).folder.glob("*.*"):
        if file.suffix in (".json", ".safetensors"):
            shutil.copy(file, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for name, change in (
        ("tokenizer_config.json", {"chat_template": CHAT}),
        ("generation_config.json", {"eos_token_id": [0, tokenizer["model"]["vocab"]["Ċ"]]}),
    ):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **change}))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, talking: Path) -> Iterator[str]:
    """A real `transformers serve` of that folder."""
    home = tmp_path_factory.mktemp("served")
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    code = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    args = ["serve", str(talking), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    log = (home / "log").open("w+")
    process = Forked(args, code=code, imports=MODELS, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, Path(log.name).read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_transformers_serve_writes_for_a_run(api: str, served: str, talking: Path) -> None:
    where = [str(talking), "--lm-url", served, "--lm-api", api, "--lm-concurrency", "1"]
    result = run(*EVOLVE[:-1], *where, "--trials", "18", "--json")
    assert result.exit_code == 0, result.output
    proposals = json.loads(result.stdout)["proposals"]
    assert proposals["usage"]["calls"] >= 8 and "tries that failed" not in proposals["usage"]
    assert proposals["usage"]["tokens read"] > 100
    assert sum(proposals["rejected"].values()) < 0.7 * proposals["proposed"]


def test_a_context_that_is_too_long_ends_the_run_in_one_line(talking: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(talking, tmp_path / "wordy")
    settings = folder / "tokenizer_config.json"
    chat = "{% for m in messages %}{{ m.content * 20 }}{% endfor %}"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": chat}))
    options = [a for a in EVOLVE if a not in ("--lm-model", "m")]
    result = run(*options, "--lm", str(folder), "--study", "wordy")
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and len(errors) == 1, result.stderr
    assert "do not fit into the context of 320" in errors[0] and "name one with a longer context" in errors[0]
    assert json.loads(run("runs", "show", "wordy", "--json").stdout)["trials"] >= 4


def test_a_local_model_with_a_chat_template_writes_for_a_run(talking: Path) -> None:
    result = run(*[a for a in EVOLVE if a not in ("--lm-model", "m")], "--lm", str(talking), "--json")
    assert result.exit_code == 0, result.output
    proposals = json.loads(result.stdout)["proposals"]
    assert proposals["usage"]["calls"] >= 3
    assert sum(proposals["rejected"].values()) < 0.7 * proposals["proposed"]
