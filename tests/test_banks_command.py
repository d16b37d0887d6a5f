"""`promptsearch banks`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from promptsearch.banks import PHRASE_BANKS, load_bank, load_phrases
from promptsearch.commands.banks import banks
from promptsearch.errors import InputError


def run(*args: str) -> Result:
    return CliRunner().invoke(banks, args)


def test_list_names_all_banks() -> None:
    before = "open_clip" in sys.modules
    result = run("list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "templates",
        "grammar",
        "openai-cifar",
        "openai-imagenet",
        "simple-imagenet",
        *PHRASE_BANKS,
    ]
    rows = {r["name"]: r["size"] for r in json.loads(run("list", "--json").stdout)}
    assert rows["templates"] == len(load_bank("templates")) and rows["openai-imagenet"] == 80
    assert ("open_clip" in sys.modules) == before


def test_show_prints_a_bank_that_loads_again(tmp_path: Path) -> None:
    for name in ("templates", "grammar"):
        again = tmp_path / f"{name}.txt"
        again.write_text(run("show", name).stdout)
        assert load_bank(again).templates == load_bank(name).templates


def test_show_as_json(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("patterns: ['[q] {}']\nslots: {q: ['', old, new]}\nclass_names: {cat: [kitten]}\n")
    shown = json.loads(run("show", str(path), "--json", "--limit", "2").stdout)
    assert shown["templates"] == [{"template": "{}", "line": 1}, {"template": "old {}", "line": 1}]
    assert shown["grammar"] == {"patterns": ["[q] {}"], "slots": {"q": ["", "old", "new"]}, "size": 3}
    assert shown["class_names"] == {"cat": ["kitten"]} and shown["size"] == 3 and shown["source"] == str(path)
    assert shown["hash"] == load_bank(path).hash


def test_show_with_a_limit() -> None:
    lines = run("show", "grammar", "--limit", "3").stdout.splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 3
    assert any(line.startswith("# pattern: a [quality]") for line in lines)
    assert any(line.startswith("# [det]: a | the") for line in lines)
    assert lines[-1].startswith("# and ") and run("show", "templates", "--limit", "-1").exit_code == 2


def test_check_says_ok_or_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a {}\n")
    assert run("check", str(path)).stdout == f"ok: bank mine, 1 template, hash {load_bank(path).hash[:16]}\n"
    path.write_text("a {}\na\n")
    result = run("check", str(path))
    assert isinstance(result.exception, InputError) and f"{path}:2: no {{}}" in str(result.exception)
    assert result.stdout == ""


def test_built_in_phrases_are_listed_and_shown_as_a_file_of_phrases(tmp_path: Path) -> None:
    rows = json.loads(run("list", "--json").output)
    sizes = {r["name"]: r["size"] for r in rows if r["kind"] == "phrases"}
    assert sizes.keys() == {"cifar10", "cifar100", "pacs"}
    shown = run("show", "pacs").output
    assert shown.startswith("# phrase bank pacs, ") and "house\tcottage\n" in shown
    file = tmp_path / "mine.txt"
    file.write_text(shown)
    assert load_phrases(file).hash == load_phrases("pacs").hash
    checked = run("check", "--phrases", str(file)).output
    assert checked.startswith(f"ok: phrase bank mine, {sizes['pacs']} phrases for 7")
    assert json.loads(run("show", "pacs", "--json").output)["size"] == sizes["pacs"]
    assert run("show", "pacs", "--limit", "2").output.endswith(f"# and {sizes['pacs'] - 2} more\n")
