"""Slot grammars."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.banks import Bank, Grammar, Template, why_invalid
from promptsearch.banks.bank import MAX_EXPANSIONS
from promptsearch.errors import InputError

words = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="[]{}"), max_size=8),
        st.sampled_from(["", "a", "an", "old", " in the snow", "a very", ",", "."]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda w: " ".join(w.split()),
)
pieces = st.lists(
    st.sampled_from(["a ", "an ", "the ", "[x]", "[y] ", " [z]", "photo ", "of ", ", ", ".", "A "]), max_size=6
)


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    patterns = {"".join([*draw(pieces), "{}", *draw(pieces)]) for _ in range(draw(st.integers(1, 3)))}
    used = [n for n in "xyz" if any(f"[{n}]" in p for p in patterns)]
    return Grammar(sorted(patterns), {n: draw(words) for n in used})


@settings(deadline=None)
@given(grammars())
def test_expansions_are_valid_distinct_templates(grammar: Grammar) -> None:
    every = list(grammar)
    assert all(type(t) is Template and why_invalid(str(t)) is None for t in every)
    assert 1 <= len(every) == len(set(every)) <= grammar.size
    assert every == list(grammar)
    for t in every:
        assert "  " not in t and " ," not in t and " ." not in t
        assert " a {}" not in f" {t}" and " an {}" not in f" {t}"
    drawn = grammar.sample(np.random.default_rng(0), 5)
    assert set(drawn) <= set(every) and len(drawn) == len(set(drawn)) == min(5, len(every))
    assert pickle.loads(pickle.dumps(grammar)) == grammar == Grammar(**grammar.to_dict())
    assert hash(Grammar(**grammar.to_dict())) == hash(grammar)


@pytest.mark.parametrize(
    ("pattern", "word", "text"),
    [
        ("a [x] photo of {}", "old", "an old photo of {}"),
        ("an [x] photo of {}", "bad", "a bad photo of {}"),
        ("a [x] photo of {}", "", "a photo of {}"),
        ("A [x] image of {}", "", "An image of {}"),
        ("a [x] {}", "old", "an old {}"),
        ("a [x] {}", "", "a(n) {}"),
        ("An {} [x]", "there", "A(n) {} there"),
        ("[x] {}", "a", "a(n) {}"),
        ("[x] old {}", "a", "an old {}"),
        ("the {} [x].", "", "the {}."),
        ("the {} [x], here", "", "the {}, here"),
        ("the {}[x].", " at night", "the {} at night."),
        ("pizza [x] {}", "old", "pizza old {}"),
        ("{} is a [x]", "", "{} is a"),
        ("a origami {} [x]", "", "a origami {}"),
        ("[x] and [x] {}", "big", "big and big {}"),
    ],
)
def test_spaces_and_articles(pattern: str, word: str, text: str) -> None:
    assert Grammar([pattern], {"x": [word]}).expand(0, {"x": 0}) == text


def test_expansion_in_a_fixed_order() -> None:
    grammar = Grammar(["a [q] {}[c].", "the {}"], {"c": ("", " here"), "q": ("", "old")})
    assert list(grammar) == ["a(n) {}.", "a(n) {} here.", "an old {}.", "an old {} here.", "the {}"]
    assert grammar.size == 5 and grammar.count(0) == 4
    assert grammar.slots_of(0) == ("q", "c") and grammar.slots_of(1) == ()
    assert grammar.expand(0, {"q": 1, "c": 0}) == "an old {}."
    assert grammar.expand(1, {"q": 1}) == "the {}"
    for bad in [(0, {"q": 0}), (0, {"q": 0, "c": 2}), (0, {"q": -1, "c": 0}), (2, {}), (-1, {})]:
        with pytest.raises(InputError):
            grammar.expand(*bad)
    with pytest.raises(InputError):
        grammar.sample(np.random.default_rng(0), -1)


@pytest.mark.parametrize(
    ("patterns", "slots", "where", "text"),
    [
        ([], {}, ("patterns",), "without patterns"),
        (["a {}", "a [x] {}"], {}, ("patterns", 1), "[x] is never defined"),
        (["a {}"], {"x": ["y"]}, ("slots", "x"), "slot never used: 'x'"),
        (["[x] {}"], {"x": []}, ("slots", "x"), "[x] is empty"),
        (["[x] {}"], {"x": "abc"}, ("slots", "x"), "must have a list"),
        (["[x] {}"], {"x": ["a", " a "]}, ("slots", "x", 1), "slot [x] repeats its word 1"),
        (["[x] {}"], {"x": ["a", "{}"]}, ("slots", "x", 1), "bracket or brace"),
        (["[x] {}"], {"x": ["[y]"]}, ("slots", "x", 0), "bracket or brace"),
        (["[x] {}"], {"x": ["a\n"]}, ("slots", "x", 0), "character '\\n'"),
        (["[x] {}"], {"x": ["\x00"]}, ("slots", "x", 0), "character '\\x00'"),
        (["[x] {}"], {"x": [3]}, ("slots", "x", 0), "must be text: 3"),
        (["[x] {}"], {"x": ["b"], "y z": ["c"]}, ("slots", "y z"), "bad slot name"),
        (["[x {}"], {"x": ["y"]}, ("patterns", 0), "bad brackets"),
        (["x] {}"], {}, ("patterns", 0), "bad brackets"),
        (["[] {}"], {}, ("patterns", 0), "bad brackets"),
        (["[[x]] {}"], {"x": ["y"]}, ("patterns", 0), "bad brackets"),
        (["[x y] {}"], {}, ("patterns", 0), "bad brackets"),
        (["[{}]"], {}, ("patterns", 0), "bad brackets"),
        (["{[x]}"], {"x": ["y"]}, ("patterns", 0), "stray brace"),
        (["[x]"], {"x": ["y"]}, ("patterns", 0), "0 times {}"),
        (["{} {}"], {}, ("patterns", 0), "2 times {}"),
        (["{}\t"], {}, ("patterns", 0), "character '\\t'"),
        ([7], {}, ("patterns", 0), "must be text: 7"),
        (["{}", "{}"], {}, ("patterns", 1), "given twice"),
        (["[x] {}"], {"x": ["y" * 600]}, ("patterns", 0), "can grow to"),
    ],
)
def test_mistakes_are_named_and_placed(patterns: list, slots: dict, where: tuple, text: str) -> None:
    with pytest.raises(InputError) as caught:
        Grammar(patterns, slots)
    assert text in str(caught.value) and "; " in str(caught.value)
    assert caught.value.where == where  # type: ignore[attr-defined]


def test_a_huge_grammar_is_sampled_the_same_way_every_time() -> None:
    slots = {n: [f"{n}{i}" for i in range(100)] for n in "abcdefghijkl"}
    grammar = Grammar(["".join(f"[{n}] " for n in slots) + "{}", "[a] {}"], slots)
    assert grammar.size == 10**24 + 100
    bank = Bank.expanded("huge", grammar, {Template("a {}"): 1}, [7, 8])
    assert bank.sampled and len(bank) == MAX_EXPANSIONS + 1
    assert bank.templates[0] == "a {}" and bank.lines[0] == 1 and set(bank.lines[1:]) <= {7, 8}
    assert bank.hash == Bank.expanded("again", grammar, {Template("a {}"): None}).hash


def test_a_grammar_of_mostly_equal_choices_ends() -> None:
    grammar = Grammar(["".join(f"[s{i}]" for i in range(40)) + " {}"], {f"s{i}": ("", "x") for i in range(40)})
    drawn = grammar.sample(np.random.default_rng(0), 200)
    assert grammar.size == 2**40 and 10 < len(drawn) <= 41


def test_small_grammars_are_listed_after_the_plain_templates() -> None:
    grammar = Grammar(["[q] {}", "{}[c]"], {"q": ("", "old"), "c": ("", " here")})
    bank = Bank.expanded("small", grammar, {Template("{}"): 2}, [5, 6])
    assert bank.templates == ("{}", "old {}", "{} here") and bank.lines == (2, 5, 6)
    assert not bank.sampled and bank.grammar == grammar
    assert bank.hash != Bank.of("plain", bank.templates).hash
