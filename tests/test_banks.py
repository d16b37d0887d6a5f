"""Templates, prompt ensembles and banks as values."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.banks import BASELINE, Bank, PromptSet, Template, why_invalid
from promptsearch.banks.template import article
from promptsearch.errors import InputError

printable = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), exclude_characters="{}"), max_size=30)
templates = st.builds(lambda a, b: Template(f"{a}{{}}{b}"), printable, printable)


@given(printable, printable)
def test_valid_text_round_trips(before: str, after: str) -> None:
    text = f"{before} {{}} {after}".strip()
    assert why_invalid(text) is None
    assert Template(text) == text
    assert Template(Template(text)) == text
    assert pickle.loads(pickle.dumps(Template(text))) == text


@given(templates, st.one_of(st.text(), st.sampled_from(["{}", "{0.__class__}", "{x!r:>9}", "%s", "\\1", "{"])))
def test_filling_never_formats(template: Template, name: str) -> None:
    filled = template.fill(name)
    assert name in filled
    assert len(filled) <= len(template) - 2 + len(name)


def test_plain_article_stays_as_it_is() -> None:
    assert BASELINE.fill("airplane") == "a photo of a airplane."
    assert Template("{}").fill("cat") == "cat"


@pytest.mark.parametrize(
    ("text", "name", "prompt"),
    [
        ("a photo of a(n) {}.", "airplane", "a photo of an airplane."),
        ("a photo of a(n) {}.", "cat", "a photo of a cat."),
        ("A(n) {}.", "owl", "An owl."),
        ("A(N) {}.", "owl", "AN owl."),
        ("a pasta(n) {}.", "owl", "a pasta(n) owl."),
        ("a(n) photo of {}.", "owl", "a(n) photo of owl."),
    ],
)
def test_article_in_parentheses_agrees(text: str, name: str, prompt: str) -> None:
    assert Template(text).fill(name) == prompt


def test_articles() -> None:
    an = "apple/egg/igloo/owl/umbrella/hour/honest one/heir/x-ray/X-ray/8-ball/MP3 player/SUV/F-16/Éclair/unidentified"
    a = "cat/unicorn/one-way/one/European/uniform/user/utensil/ukulele/eucalyptus/CRT screen/T-shirt/U-boat/yak/USB key"
    assert {w: article(w) for w in an.split("/")} == dict.fromkeys(an.split("/"), "an")
    assert {w: article(w) for w in a.split("/")} == dict.fromkeys(a.split("/"), "a")
    assert article("") == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty template"),
        ("  ", "empty template"),
        ("a photo", "no {} in a template"),
        ("{} and {}", "2 times {}"),
        ("a {} }", "stray brace"),
        ("{{}}", "stray brace"),
        ("a photo of a {0}.", "placeholder {0}"),
        ("{0.__class__} {}", "placeholder {0.__class__}"),
        ("a {name}", "placeholder {name}"),
        ("a {}\nb", "character '\\n'"),
        ("a\t{}", "character '\\t'"),
        ("a \x07{}", "character '\\x07'"),
        ("a \u2028{}", "character '\\u2028'"),
        ("a \ud800{}", "character '\\ud800'"),
        ("a" * 499 + "{}", "template of 501 characters"),
        (5, "must be text: 5"),
        (None, "must be text: None"),
    ],
)
def test_invalid_text_is_refused_with_the_reason(text: object, words: str) -> None:
    reason = why_invalid(text)
    assert reason is not None and words in reason and "; " in reason and len(reason) < 250
    reason.encode()  # printable everywhere, whatever was in the text
    with pytest.raises(InputError) as caught:
        Template(text)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_the_longest_template_passes() -> None:
    assert len(Template("a" * 498 + "{}")) == 500


@given(st.lists(templates, min_size=1, max_size=6), st.randoms())
def test_order_and_repeats_do_not_matter(items: list[Template], random: object) -> None:
    shuffled = [*items, *items]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = PromptSet(items), PromptSet(shuffled)
    assert one == other and hash(one) == hash(other) and one.key == other.key and str(one) == str(other)
    assert one.templates == tuple(sorted(set(items)))
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)


@given(st.lists(st.tuples(templates, st.floats(1e-3, 1e3)), min_size=1, max_size=6, unique_by=lambda p: p[0]))
def test_weights_move_with_their_templates(pairs: list[tuple[Template, float]]) -> None:
    made = PromptSet([t for t, _ in pairs], [w for _, w in pairs])
    assert made.weights is not None
    assert dict(zip(made.templates, made.weights, strict=True)) == dict(pairs)
    assert PromptSet([t for t, _ in reversed(pairs)], [w for _, w in reversed(pairs)]) == made
    assert PromptSet.from_dict(made.to_dict()) == made
    assert made != PromptSet(made.templates)


@given(st.lists(templates, min_size=1, max_size=5), templates)
def test_add_remove_replace_agree_with_construction(items: list[Template], extra: Template) -> None:
    base = PromptSet(items)
    assert base.add(extra) == PromptSet([*items, extra])
    assert base.replace(items[0], extra) == PromptSet([t if t != items[0] else extra for t in items])
    if extra not in items:
        assert base.add(extra).remove(extra) == base
    weighted = PromptSet(items, [2.0] * len(items))
    grown = weighted.add(extra)
    assert grown.weights is not None and len(grown.weights) == grown.size


@given(st.lists(templates, min_size=1, max_size=4), st.lists(templates, max_size=6), st.booleans())
def test_what_grows_by_several_templates_is_what_add_gives(
    items: list[Template], more: list[Template], weighted: bool
) -> None:
    base = PromptSet(items, [2.0] * len(items) if weighted else None)
    assert list(base.grown(more)) == [base.add(t) for t in more if t not in items]


def test_prompt_set_keeps_to_its_contents() -> None:
    made = PromptSet.of("b {}", "a {}")
    assert made.templates == ("a {}", "b {}") and made.size == 2
    assert made.key == "3d0237a8fe801f90"  # the same in every process and release
    assert str(made) == "a {} | b {}"
    assert eval(repr(made)) == made
    assert made != "a {} | b {}"
    named = PromptSet(["a {}"], [0.5], ["plane", "car"])
    assert str(named) == "0.5 × a {} (classes: plane, car)"
    assert named.to_dict() == {"templates": ["a {}"], "weights": [0.5], "class_names": ["plane", "car"]}
    assert PromptSet.from_dict(named.to_dict()) == eval(repr(named)) == named
    assert PromptSet(["a {}", "a {}"], [1, 2]).weights == (3.0,)
    with pytest.raises(AttributeError):
        made.templates = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del made.weights


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromptSet([]),
        lambda: PromptSet("a {}"),
        lambda: PromptSet.of("no placeholder"),
        lambda: PromptSet(["a {}"], [1, 2]),
        lambda: PromptSet(["a {}"], [0]),
        lambda: PromptSet(["a {}"], [float("nan")]),
        lambda: PromptSet(["a {}"], [float("inf")]),
        lambda: PromptSet(["a {}"], ["x"]),  # type: ignore[list-item]
        lambda: PromptSet(["a {}"], "1"),  # type: ignore[arg-type]
        lambda: PromptSet(["a {}"], None, []),
        lambda: PromptSet(["a {}"], None, "cat"),
        lambda: PromptSet(["a {}"], None, ["cat", ""]),
        lambda: PromptSet(["a {}"], None, ["cat", 3]),  # type: ignore[list-item]
        lambda: PromptSet.from_dict({"templates": "a {}"}),
        lambda: PromptSet.from_dict({"templates": [None]}),
        lambda: PromptSet.from_dict({}),
        lambda: PromptSet.from_dict({"templates": ["a {}"], "weight": 1}),
        lambda: PromptSet.from_dict([]),  # type: ignore[arg-type]
        lambda: PromptSet.of("a {}").remove("a {}"),
        lambda: PromptSet.of("a {}", "b {}").remove("c {}"),
        lambda: PromptSet.of("a {}").replace("c {}", "b {}"),
        lambda: Bank.of("empty", []),
        lambda: Bank.of("twice", ["a {}", "a {} "]),
        lambda: Bank("lines", (Template("a {}"),), (1, 2)),
        lambda: Bank("names", (Template("a {}"),), class_names={"cat": ()}),
        lambda: Bank("names", (Template("a {}"),), class_names={"cat": ("a\nb",)}),
    ],
)
def test_what_makes_no_sense_is_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


def test_bank_is_hashed_by_content_alone() -> None:
    one, other = Bank.of("one", ["a {}", "b {}"]), Bank("other", (Template("a {}"), Template("b {}")), (3, 4), "f.txt")
    assert one.hash == other.hash and len(one.hash) == 64
    assert len(one) == 2 and list(one) == ["a {}", "b {}"] and one.lines == (None, None)
    assert one.hash != Bank.of("one", ["b {}", "a {}"]).hash
    assert one.hash != Bank("one", one.templates, class_names={"cat": ("kitten",)}).hash
    assert len({one, Bank.of("one", ["a {}", "b {}"]), other}) == 2


def test_importing_banks_is_cheap() -> None:
    root = Path(__file__).resolve().parent
    heavy = "{'torch', 'open_clip', 'datasets', 'PIL', 'numpy', 'transformers'}"
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import conftest; import promptsearch.commands.banks;"
        f"import promptsearch.banks as b; b.load_bank('templates'); b.load_bank('grammar');"
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
