"""Settings files: whatever is in one, it is read, or refused in one line that names the file; strangers' set little."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.cli import main
from promptsearch.commands.settings import NAMED_ONLY, SettingsFile, _commands, _options, find_settings, read_settings
from promptsearch.errors import InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "above" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    if code:
        assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    return result


#: An option of every kind that sends, writes, answers or loads, as a stranger would set it.
HOSTILE = {
    "lm-url": 'lm-url = "http://evil.example/v1"',
    "lm-key-env": 'lm-key-env = "AWS_SECRET_ACCESS_KEY"',
    "storage": 'storage = "postgresql://evil.example/runs"',
    "ray": 'ray = "ray://evil.example:10001"',
    "out": '[export]\nout = "/etc/passwd"',
    "out of runs": '[runs.export]\nout = "/etc/passwd"',
    "report": '[report]\nout = "/etc/passwd"',
    "csv": '[compare]\ncsv = "/etc/passwd"',
    "markdown": '[compare]\nmarkdown = "/etc/passwd"',
    "figure": '[compare]\nfigure = "/etc/passwd"',
    "png": '[report]\npng = "/etc"',
    "save": '[coop]\nsave = "/etc/passwd"',
    "yes": "[runs.delete]\nyes = true",
    "open": "[explore]\nopen = true",
    "weights": 'weights = "evil.pt"',
    "set": '[search]\nset = ["hook=1"]',
    "by command": '[evolve]\nlm-url = "http://evil.example/v1"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["promptsearch.toml", "pyproject.toml"])
def test_a_found_file_may_not_send_write_or_answer(here: Path, name: str, text: str) -> None:
    if name == "pyproject.toml":
        first, _, rest = text.partition("\n")
        text = f"[tool.promptsearch]\n{text}" if not rest else f"[tool.promptsearch.{first[1:]}\n{rest}"
    (here.parent / name).write_text(text)
    error = run("banks", "list", code=2).stderr
    assert name in error and "cannot be set by a settings file that you did not name" in error and "--config" in error
    run("--config", str(here.parent / name), "banks", "list")  # it was named: it may


HARMLESS = """
    wait phrases move-phrases class-names transfer allow-fewer test-share split-seed start
    link private top unknown-below
    against augment bank batch border crowding dataset depth device each elite encode-batch enqueue ensemble epochs
    estimate fluency-lm fluency-weight fork generations gumbel held-out hull immigrants init json kg kind label-column
    limit lm lm-api lm-concurrency lm-model lm-omit lm-timeout lm-tokens lm-tries memory methods model name objective
    offspring pareto patience picture-column pictures pool population port position precision proposer quiet rate
    sample sampler seed seeds select shots shown specific startup steps study temperature template timeout to tokens
    top-p train trials unlabelled vectors verbose width
"""


def test_every_option_is_known_to_be_harmless_or_is_refused() -> None:
    """A new option must be looked at: is it one that sends, writes, answers or loads?"""
    every = set().union(*(_options(c) for c in _commands(main)))
    assert every - set(HARMLESS.split()) - NAMED_ONLY.keys() == set()
    assert NAMED_ONLY.keys() <= every
    writes = {
        key
        for command in _commands(main)
        for key, option in _options(command).items()
        if isinstance(option.type, click.Path) and not option.type.exists
    }
    assert writes <= NAMED_ONLY.keys() | {"weights", "class-names"}


def test_the_file_that_was_read_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("banks", "list").stderr == ""
    file = here.parent / "promptsearch.toml"
    file.write_text("shots = 3\n")
    assert run("banks", "list").stderr == f"settings of {file}\n"
    assert run("--config", str(file), "banks", "list").stderr == ""


BAD = {
    "a date": ("shots = 2024-01-01", "shots = datetime.date(2024, 1, 1): not a single value"),
    "a time": ("bank = 07:32:00", "not a single value"),
    "a list": ("shots = [1, 2]", "not a single value"),
    "a list of lists": ('[search]\nset = [["a"]]', "not a single value"),
    "a table for a value": ("[beam.width]\na = 1", "not a single value"),
    "a value for a table": ("beam = 3", "write a table [beam]"),
    "a value for a table below": ("[runs]\nlist = 3", "write a table [runs.list]"),
    "tables of tables": ("[[beam]]\nwidth = 3", "write a table [beam]"),
    "a text for a number": ('shots = "many"', "not a valid integer"),
    "a fraction": ("shots = 1.5", "not a valid integer"),
    "infinity": ("shots = inf", "not a valid integer"),
    "no number": ("seed = nan", "not a valid integer"),
    "a bool": ("shots = true", "not a single value"),
    "a number for a bool": ("quiet = 1", "write true or false"),
    "NUL": ('bank = "a\\u0000b"', "cannot be printed"),
    "escapes": ('bank = "\\u001b[2Jx"', "cannot be printed"),
    "a raw NUL": ("bank = 'a\0b'", "not TOML"),
    "depth": ("a = " + "[" * 20_000, "nested too deeply"),
    "depth of tables": ("a = " + "{a=" * 20_000, "nested too deeply"),
    "digits": ("seed = " + "1" * 5000, "not TOML"),
    "hexadecimal digits": ("seed = 0x" + "f" * 9000, "not a value of this option"),
    "a long key": ("x" * 100_000 + " = 1", "no command has an option"),
    "a long text": (f'shots = "{"x" * 100_000}"', "not a valid integer"),
    "twice": ("shots = 1\nshots = 2", "not TOML"),
    "no choice": ('[evolve]\nlm-omit = "tea"', "lm-omit = 'tea'"),
    "outside": ("[explore]\nport = 70000", "port = 70000"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_line_that_names_it(here: Path, text: str, message: str) -> None:
    (here / "mine.toml").write_text(text)
    error = run("--config", "mine.toml", "banks", "list", code=2).stderr
    assert "mine.toml" in error and message in error and len(error) < 500 + len(message), error[:1000]


BYTES = {
    "UTF-8": b"shots = 3\n",
    "UTF-8 with a mark": "shots = 3\n".encode("utf-8-sig"),
    "lines of Windows": b"shots = 3\r\n",
    "no last line's end": b"shots = 3",
}


@pytest.mark.parametrize("raw", BYTES.values(), ids=BYTES)
def test_files_of_any_editor_are_read(here: Path, raw: bytes) -> None:
    (here / "promptsearch.toml").write_bytes(raw)
    assert "[default: 3]" in " ".join(run("beam", "--help").stdout.split())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("shots = 3".encode("utf-16"), "UTF-16"),
        (b"shots = \xff", "not TOML"),
        ("bank = 'é'".encode("latin-1"), "not TOML"),
        (b"#" * (1 << 20) + b"#", "more than 1 MB"),
    ],
)
def test_files_that_are_no_text_are_refused(here: Path, raw: bytes, message: str) -> None:
    (here / "promptsearch.toml").write_bytes(raw)
    assert message in run("banks", "list", code=2).stderr


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\npromptsearch = 3", "[[tool]]\npromptsearch = 3"])
def test_a_pyproject_of_another_shape(here: Path, text: str) -> None:
    (here / "pyproject.toml").write_text(f"# [tool.promptsearch]\n{text}")
    assert "write [tool.promptsearch]" in run("banks", "list", code=2).stderr


def test_what_is_no_file_is_passed_over(here: Path) -> None:
    (here / "promptsearch.toml").mkdir()
    os.mkfifo(here.parent / "promptsearch.toml")
    (here.parent.parent / "promptsearch.toml").symlink_to("promptsearch.toml")
    run("banks", "list")
    assert "no such file" in run("--config", "nowhere.toml", "banks", "list", code=2).stderr


VALUES = st.recursive(
    st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.dates() | st.datetimes() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["shots", "seed", "quiet", "lm-omit", "memory", "bank", "beam", "runs", "list", "width", "json"])


def _toml(value: object) -> str:
    """Any value as TOML."""
    import json

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)  # type: ignore[attr-defined]


@given(st.dictionaries(KEYS, VALUES, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_toml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_text("\n".join(f"{k} = {_toml(v)}" for k, v in values.items()), "utf-8")
    _read(file)


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_bytes(raw)
    _read(file)


def _read(file: Path) -> None:
    try:
        read = read_settings(SettingsFile(file, found=True), main)
    except InputError as e:
        assert str(file) in str(e) and len(str(e)) < 1000
    else:
        assert read.keys() == main.commands.keys()


def test_nothing_is_found_where_the_folder_is_gone(here: Path) -> None:
    here.rmdir()
    assert find_settings() is None
