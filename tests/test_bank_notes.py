"""What `banks check` notes, and lists of templates in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from promptsearch.banks import Bank, builtin_banks, load_bank
from promptsearch.banks.notes import bank_notes
from promptsearch.cli import main
from promptsearch.errors import InputError


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ('"a photo of a {}."', "quotes around the template"),
        ("'a photo of a {}.'", "quotes around"),
        ("“a photo of a {}.”", "quotes around"),
        ("«a photo of a {}.»", "quotes around"),
        ("`a photo of a {}.`", "quotes around"),
        ("'a bad photo of a {}.',", "quotes and a comma"),
        ('"a photo of a {}.";', "quotes and a comma"),
        ("1. a toy {}.", "a list's mark"),
        ("12) a toy {}.", "a list's mark"),
        ("(3) a toy {}.", "a list's mark"),
        ("a) a toy {}.", "a list's mark"),
        ("- a toy {}.", "a list's mark"),
        ("* a toy {}.", "a list's mark"),
        ("• a toy {}.", "a list's mark"),
        ("[ ] a toy {}.", "a list's mark"),
        ("a toy {}.,", "a separator"),
        ("a toy {}.\\n", "a separator"),
        ("**a toy {}.**", "Markdown"),
    ],
)
def test_marks_of_other_programs(template: str, says: str) -> None:
    (note,) = bank_notes(Bank.of("mine", ["a photo of a {}.", template]))
    assert says in note


@pytest.mark.parametrize(
    "other",
    ["a  photo of a {}.", "A Photo of a {}.", "a photo  of  a {}.", "a ph&#111;to of a {}."],
)
def test_doubles_for_the_tokenizer(other: str) -> None:
    (note,) = bank_notes(Bank.of("mine", ["a photo of a {}.", other]))
    assert "the same text to CLIP's tokenizer as 'a photo of a {}.'" in note


def test_plain_templates_have_no_notes() -> None:
    fine = ["a photo of a {}.", "'tis a {}", "a {}'s photo", "3 {} in a row", "a - {}", "“good” {}", '{} in "quotes"']
    assert bank_notes(Bank.of("mine", fine)) == []
    for name in builtin_banks():
        assert bank_notes(load_bank(name)) == [], name


def test_check_says_the_line(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text('a {}.\n\n"a photo of a {}."\nA  {}.\n')
    done = CliRunner().invoke(main, ["banks", "check", str(tmp_path / "b.txt")])
    assert done.exit_code == 0
    assert "note: line 3: quotes around" in done.output and "of line 1" in done.output


@pytest.mark.parametrize("mark", ["{}", "{c}"])
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_lists_with_either_mark(mark: str, suffix: str, tmp_path: Path) -> None:
    texts = [f"a photo of a {mark}.", f"a toy {mark}."]
    (tmp_path / f"l{suffix}").write_text(json.dumps(texts))
    (tmp_path / f"o{suffix}").write_text(json.dumps({"cifar10": texts, "pets": texts[:1]}))
    assert [str(t) for t in load_bank(tmp_path / f"l{suffix}")] == ["a photo of a {}.", "a toy {}."]
    assert len(load_bank(f"{tmp_path}/o{suffix}#pets")) == 1
    with pytest.raises(InputError, match="2 data sets"):
        load_bank(tmp_path / f"o{suffix}")
    (tmp_path / f"m{suffix}").write_text(json.dumps(["a {}.", "a {c}."]))
    with pytest.raises(InputError, match="among templates with"):
        load_bank(tmp_path / f"m{suffix}")
