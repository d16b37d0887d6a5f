"""What becomes of a raw reply of a language model: repaired, or refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.banks import Template
from promptsearch.search.reply_parser import MOST, ProposalFilter

READ = ProposalFilter(["cat", "fire truck", "polar_bear"]).read


@pytest.mark.parametrize(
    ("reply", "template"),
    [
        ("a photo of a {}.", "a photo of a {}."),
        ('  1. "a dark photo of a {}." ', "a dark photo of a {}."),
        ("- a dark photo of a {}.", "a dark photo of a {}."),
        ("Sure! Here is one:\n\na dim picture of the {}.\nIt is short.", "a dim picture of the {}."),
        ("Caption: a photo of a {class}.", "a photo of a {}."),
        ("In other words: a photo of a [object].", "a photo of a {}."),
        ("a photo of a <class name>.", "a photo of a {}."),
        ("a photo of a {{}}.", "a photo of a {}."),
        ("a photo of a ___ at night", "a photo of a {} at night"),
        ("**a  photo\tof a {}.**", "a photo of a {}."),
        ("better: a photo of a { }.", "a photo of a {}."),
        ("a photo of a(n) {}.", "a photo of a(n) {}."),
        ("a picture that concatenates a {}.", "a picture that concatenates a {}."),  # "cat" inside a word is no cat
        ("{0.__class__}", "{}"),  # never formatted: only a name in the place of {}
    ],
)
def test_what_can_be_repaired_is(reply: str, template: str) -> None:
    assert READ(reply).template == template


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty reply"),
        (" \n\n ", "empty reply"),
        ("I cannot help with that.", "no {}"),
        ("a photo of a {} and a {}.", "more than one {}"),
        ("a {} with a stray { brace", "stray brace"),
        ("a photo of a {}\x00.", "not printable"),
        ("a photo of a \u202e{}.", "not printable"),
        ("a {} " + "very " * MOST, "too long"),
        ("a photo of a {} beside a cat.", "names a class"),
        ("two Cats and a {}.", "names a class"),
        ("a {} on a fire-truck.", "names a class"),
        ("a {} and a polar bear.", "names a class"),
        ("<html><body>502 Bad Gateway</body></html>", "no {}"),
    ],
)
def test_what_cannot_is_refused_with_its_reason(reply: str, reason: str) -> None:
    verdict = READ(reply)
    assert verdict.template is None and verdict.reason == reason


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("{}[]<>\n a_")), max_size=120))
def test_any_text_gives_a_template_or_a_reason(reply: str) -> None:
    verdict = READ(reply)
    if verdict.template is None:
        assert verdict.reason
    else:
        assert verdict.template == Template(str(verdict.template)) and len(verdict.template) <= MOST


def test_endless_replies_are_read_in_part() -> None:
    assert READ("x" * 10_000_000).reason == "no {}"
    assert READ("\n" * 10_000_000 + "a {}.").reason == "empty reply"
