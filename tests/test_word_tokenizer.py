"""The tokenizer that remembers words gives the ids of open_clip's own, for any text."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.evaluators.encoding import tokenizers
from promptsearch.evaluators.encoding.tokenizers import WordTokenizer, remembering

TEXTS = [
    "a photo of a cat.",
    "It's  the DOG's\tball; they'll've 12 3's!",
    "<start_of_text>a<end_of_text> cat<END_OF_TEXT>s",
    "fish &amp; chips &lt;b&gt;",
    "déjà vu ﬁancée 東京 🦊 \x00 e\u0301 \x1b[31mred\x1b[0m",
    "",
    " ",
    "word " * 40,
    "a_b--c...d''s 'S",
]

own = open_clip.SimpleTokenizer(context_length=24)
fast = WordTokenizer(own)


@pytest.mark.parametrize("turn", ["first", "remembered"])
def test_the_same_ids(turn: str) -> None:
    np.testing.assert_array_equal(fast(TEXTS), own(TEXTS).numpy())
    assert [fast.encode(t) for t in TEXTS] == [own.encode(t) for t in TEXTS]


@given(st.text(st.characters(codec="ascii"), max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_ascii(text: str) -> None:
    assert fast.encode(text) == own.encode(text)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_text(text: str) -> None:
    assert fast.encode(text) == own.encode(text)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "WORDS", 3)
    small = WordTokenizer(own)
    np.testing.assert_array_equal(small(TEXTS), own(TEXTS).numpy())
    assert len(small._words) <= 3


def test_other_tokenizers_are_left_as_they_are() -> None:
    assert isinstance(remembering(own), WordTokenizer)
    for other in (
        open_clip.SimpleTokenizer(context_length=16, clean="canonicalize"),
        open_clip.SimpleTokenizer(context_length=16, reduction_mask="simple"),
        lambda texts: own(texts),
    ):
        assert remembering(other) is other
