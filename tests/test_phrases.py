"""Phrases of classes: banks of them, their file formats, and prompt sets that have them."""

from __future__ import annotations

import json
import pickle

import pytest

from promptsearch.banks import PHRASE_BANKS, PhraseBank, PromptSet, Template, load_class_names, load_phrases
from promptsearch.banks.bank import fill, is_sentence
from promptsearch.commands import complete
from promptsearch.errors import InputError

CLASSES = ("cat", "dog")


def written(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return file


def test_a_set_with_one_phrase_for_each_class_is_the_one_with_class_names():
    old = PromptSet(["a photo of a {}."], class_names=["car", "bird"])
    new = PromptSet(["a photo of a {}."], phrases=[["car"], {"bird": 3}])
    assert old == new and old.key == new.key
    assert old.to_dict() == {"templates": ["a photo of a {}."], "class_names": ["car", "bird"]}
    assert new.class_names == ("car", "bird")


def test_weighted_phrases_survive_every_way_of_keeping_them():
    prompts = PromptSet.of("a photo of a {}.").saying([{"auto": 1, "car": 2}, ["bird"]])
    assert prompts.phrases == ((("car", 2 / 3), ("auto", 1 / 3)), (("bird", 1.0),))
    assert prompts.class_names is None
    for again in (PromptSet.from_dict(json.loads(json.dumps(prompts.to_dict()))), pickle.loads(pickle.dumps(prompts))):
        assert again == prompts and again.key == prompts.key and hash(again) == hash(prompts)
    assert prompts.add("a {}.").phrases == prompts.replace("a photo of a {}.", "the {}.").phrases == prompts.phrases
    assert prompts.saying(None) == PromptSet.of("a photo of a {}.")
    assert prompts != prompts.saying([["car", "auto"], ["bird"]])


def test_the_order_of_phrases_does_not_matter():
    assert PromptSet(["{}"], phrases=[["b", "a"]]).key == PromptSet(["{}"], phrases=[["a", "b"]]).key


def test_a_sentence_stands_alone():
    assert is_sentence("A cat has whiskers.") and not is_sentence("cat, a pet that purrs")
    prompts = PromptSet(["a photo of a(n) {}."], phrases=[["ape", "A cat has whiskers."]])
    assert prompts.texts(Template("a photo of a(n) {}."), ["cat"]) == [["A cat has whiskers.", "a photo of an ape."]]
    # The data set's own name is filled in whatever it ends with.
    assert PromptSet.of("a {}!").texts(Template("a {}!"), ["St."]) == [["a St.!"]]
    assert fill(Template("a {}."), "tabby") == "a tabby."


@pytest.mark.parametrize(
    ("phrases", "said"),
    [
        ("car", "must be a list"),
        ([[]], "at least one"),
        ([["car", "car"]], "twice"),
        ([{"car": 0}], "positive"),
        ([["a {}"]], "brace"),
        ([[" car"]], "spaces at its ends"),
        ([[3]], "must be text"),
    ],
)
def test_wrong_phrases_of_a_set_are_refused(phrases, said):
    with pytest.raises(InputError, match=said):
        PromptSet(["{}"], phrases=phrases)


def test_names_and_phrases_together_are_refused():
    with pytest.raises(InputError, match="phrases alone"):
        PromptSet(["{}"], class_names=["a"], phrases=[["a"]])


@pytest.mark.parametrize("name", PHRASE_BANKS)
def test_built_in_banks_begin_with_the_data_sets_own_names(name):
    bank = load_phrases(name)
    assert all(phrases[0] == own for own, phrases in bank.phrases.items())
    assert bank.fits(list(bank.phrases)) and min(map(len, bank.phrases.values())) >= 10
    assert PhraseBank.from_dict(bank.to_dict()).hash == bank.hash


def test_the_shell_offers_the_built_in_banks():
    assert complete.PHRASE_BANKS == PHRASE_BANKS


def test_every_format_gives_the_same_kind_of_bank(tmp_path):
    own = written(tmp_path, "own.yaml", "name: pets\nphrases:\n  cat: [kitten, tabby]\n  dog: puppy\n")
    assert load_phrases(own).of_classes(CLASSES) == [("cat", "kitten", "tabby"), ("dog", "puppy")]
    assert load_phrases(own).name == "pets"
    tabs = written(tmp_path, "tabs.txt", "# mine\ncat\tkitten\ndog\tpuppy\ncat\ttabby\n")
    assert load_phrases(tabs).hash == load_phrases(own).hash
    cupl = written(tmp_path, "cupl.json", {"cat": ["A cat has whiskers.", "Cats purr"], "dog": ["A dog barks."]})
    assert load_phrases(cupl).phrases["cat"] == ("A cat has whiskers.", "Cats purr.")
    dclip = written(tmp_path, "dclip.json", {"cat": ["whiskers", "a small pet"], "dog": ["often barks"]})
    assert load_phrases(dclip).phrases == {
        "cat": ("cat, which has whiskers", "cat, which is a small pet"),
        "dog": ("dog, which often barks",),
    }
    benchmark = written(tmp_path, "b.json", {"pets": {"cat": ["a photo of a cat."], "dog": ["a photo of a dog"]}})
    assert load_phrases(benchmark).phrases["dog"] == ("a photo of a dog.",)
    assert load_phrases(f"{benchmark}#pets").name == "pets"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "phrases:\n  cat: []\n", "a.yaml:2: class without phrases: 'cat'"),
        ("a.yaml", "phrases:\n  cat: [pet]\n  dog: [Pet]\n", "a.yaml:3: phrase 'Pet' of class 'dog' is one of"),
        ("a.yaml", "phrases:\n  cat: [dog]\n  dog: [puppy]\n", "a.yaml:2: phrase 'dog' of class 'cat'"),
        ("a.yaml", "phrases:\n  cat: [3]\n", "a.yaml:2: a phrase must be text: 3"),
        ("a.yaml", "phrases: [cat]\n", "a.yaml:1: phrases must be a mapping"),
        ("a.yaml", "phrases:\n  cat: [kitten]\nslots: {}\n", "a.yaml:3: unknown key: 'slots'"),
        ("a.yaml", "", "a.yaml: no phrases in this file"),
        ("a.yaml", "phrases:\n  cat:\n    - a photo of a {}.\n", "a.yaml:3: brace in a phrase"),
        ("a.txt", "cat kitten\n", "a.txt:1: not a class and a phrase"),
        ("a.txt", "cat\t" + "x" * 501 + "\n", "a.txt:1: phrase of 501 characters"),
        ("cupl.json", '{"cat":\n ["A cat."], "dog": 3}', "cupl.json:2: phrases of class 'dog' must be a list: 3"),
        ("dclip.json", '["whiskers"]', "dclip.json:1: phrases must be a mapping"),
        ("bench.json", '{"pets": {"cat": [4]}}', "bench.json:1: a phrase must be text: 4"),
        ("bench.json", '{"a": {"cat": ["x"]}, "b": {}}', "2 data sets: a, b; pick one"),
        ("a.csv", "cat,kitten", "unknown suffix '.csv'"),
    ],
)
def test_wrong_files_are_named_with_their_line(tmp_path, name, text, said):
    with pytest.raises(InputError) as error:
        load_phrases(written(tmp_path, name, text))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_too_many_phrases_for_one_class(tmp_path):
    file = written(tmp_path, "many.txt", "".join(f"cat\tkitten number {i}\n" for i in range(10_000)))
    with pytest.raises(InputError, match=r"many.txt:1: 10000 phrases for class 'cat'; keep the best 1000"):
        load_phrases(file)


def test_phrases_that_do_not_belong_to_the_task(tmp_path):
    bank = load_phrases(written(tmp_path, "p.txt", "cow\tbull\ncat\tkitten\n"))
    with pytest.raises(InputError, match=r"p.txt:1: phrases for class 'cow', which is not in the data set"):
        bank.of_classes(CLASSES)
    bank = load_phrases(written(tmp_path, "q.txt", "cat\tDog\n"))
    with pytest.raises(InputError, match=r"q.txt:1: phrase 'Dog' of class 'cat' names another class"):
        bank.of_classes(CLASSES)
    assert PhraseBank("p", {"lawn_mower": ("mower",)}).of_classes(["lawn mower", "cat"]) == [
        ("lawn mower", "mower"),
        ("cat",),
    ]


def test_names_of_classes_come_by_folder_or_in_order(tmp_path):
    by_folder = load_class_names(written(tmp_path, "n.tsv", "n02\tcat, house cat\nn01\ttench, Tinca tinca\n"))
    assert by_folder.of(["n01", "n02"]) == (
        ["tench", "cat"],
        {"tench": ("Tinca tinca",), "cat": ("house cat",)},
    )
    in_order = load_class_names(written(tmp_path, "n.txt", "# two\ntench, Tinca tinca\ncat\n"))
    assert in_order.of(["0", "1"]) == (["tench", "cat"], {"tench": ("Tinca tinca",)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no class names in this file"),
        ("a\tcat\na\tdog\n", "n.txt:2: class 'a' again"),
        ("a\tcat\ndog\n", "n.txt:2: lines with and without a tab"),
        ("a\t ,\n", "n.txt:1: no class name"),
        ("cat\n", "1 names for 2 classes"),
        ("a\tcat\n", "no name for class 'b'"),
        ("a\tcat\nb\tcat\n", "two classes are called 'cat'"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        load_class_names(written(tmp_path, "n.txt", text)).of(["a", "b"])
    assert said in str(error.value)
