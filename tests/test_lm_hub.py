"""Language models from the hub, through the real client and a server on the loopback that stands in for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from loopback_hub import REVISION, Hub, loopback_hub

from promptsearch.lm import EMBEDDED, locate

EVOLVE = ["evolve", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "2", "--bank", "templates"]
EVOLVE += ["--population", "4", "--offspring", "4", "--trials", "14", "--select", "none", "--no-estimate", "--json"]

#: Carries out several commands in one process: exit code, stdout, stderr of each.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from promptsearch.cli import main
for args in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, args)
    print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""


def run(env: dict[str, str], *commands: list[str]) -> list[Any]:
    return [json.loads(line) for line in process(COMMANDS, env, json.dumps(commands)).splitlines()]


def process(code: str, env: dict[str, str], *args: str) -> str:
    """What code prints in a process of its own, in which the hub's client reads its settings."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked([*args], code=code, env=env, **streams) as running:
        out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    return out


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    with loopback_hub(tmp_path) as (handler, env):
        shutil.copytree(locate(EMBEDDED).folder, handler.folder / "someone" / "small-lm", ignore=_sources)
        (handler.folder / "someone" / "small-lm" / "pytorch_model.bin").write_bytes(b"the same again")
        yield handler, env


def _sources(folder: str, names: list[str]) -> list[str]:
    return [n for n in names if n.endswith((".py", ".yaml", ".md")) or n == "__pycache__"]


def test_an_id_is_downloaded_into_an_empty_cache_and_then_found_there(hub: Any, tmp_path: Path) -> None:
    handler, env = hub
    ((code, out, err), (again, second, _)) = run(
        env,
        [*EVOLVE, "--lm", "someone/small-lm", "--study", "one"],
        [*EVOLVE, "--lm", "embedded", "--study", "two"],
    )
    assert (code, again) == (0, 0), err
    ours, shipped = json.loads(out), json.loads(second)
    for document in (ours, shipped):  # only how fast it writes differs
        document["proposals"] = {k: v for k, v in document["proposals"].items() if not k.startswith("seconds")}
        usage = document["proposals"].get("usage", {})
        document["proposals"]["usage"] = {k: v for k, v in usage.items() if "second" not in k}
    assert ours["winner"] == shipped["winner"] and ours["proposals"] == shipped["proposals"]  # the very same model
    assert "model.safetensors" in handler.served and "pytorch_model.bin" not in handler.served
    assert (tmp_path / "hf" / "hub" / "models--someone--small-lm" / "snapshots" / REVISION / "config.json").exists()
    handler.served.clear()
    code = "from promptsearch.lm import locate; print(locate('someone/small-lm').fingerprint)"
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert process(code, offline).strip() == locate(EMBEDDED).fingerprint


def test_ids_that_cannot_be_had_are_one_line_with_the_remedy(hub: Any) -> None:
    handler, env = hub
    for name in ("gated-lm", "no-access", "cut-lm", "vision"):
        shutil.copytree(handler.folder / "someone" / "small-lm", handler.folder / "someone" / name)
    handler.gated |= {"someone/gated-lm": 401, "someone/no-access": 403}
    folder = handler.folder / "someone"
    (folder / "cut-lm" / "model.safetensors").rename(folder / "cut-lm" / "cut.safetensors")
    handler.cut.add("cut.safetensors")
    (folder / "vision" / "config.json").write_text('{"architectures": ["ViTModel"]}')
    wanted = {
        "nobody/nothing": (2, "neither a folder nor a hub repository that you can access"),
        "someone/gated-lm": (2, "gated; ask for access on its page and set HF_TOKEN"),
        "someone/no-access": (2, "gated; ask for access on its page and set HF_TOKEN"),
        "someone/cut-lm": (1, "the download from the hub failed"),
        "someone/vision": (2, "a ViTModel writes no text"),
        "some one/model": (2, "neither a folder nor a hub repository"),
    }
    answers = run(env, *([*EVOLVE, "--lm", name] for name in wanted))
    for (name, (code, message)), (exit_code, out, err) in zip(wanted.items(), answers, strict=True):
        errors = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert (exit_code, out, len(errors)) == (code, "", 1), err
        assert f"--lm {name}: " in errors[0] and message in errors[0], errors[0]


def test_told_to_stay_offline_with_an_empty_cache(hub: Any) -> None:
    ((code, _, err),) = run({**hub[1], "HF_HUB_OFFLINE": "1"}, [*EVOLVE, "--lm", "someone/small-lm"])
    assert code == 1 and "cannot be reached (HF_HUB_OFFLINE is set) and its cache has no copy" in err
