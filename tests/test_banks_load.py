"""Banks from files: every format, every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from promptsearch.banks import BASELINE, Bank, Template, builtin_banks, load_bank
from promptsearch.banks.load import MAX_BYTES, OPEN_CLIP_SIZES
from promptsearch.errors import InputError

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
text = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), exclude_characters="{}"), max_size=20)
templates = st.builds(lambda a, b: Template(f"{a}{{}}{b}"), text, text)

REQUIRED = [
    "a photo of a {}.",
    "a dark photo of the {}.",
    "a blurry photo of the {}.",
    "a low resolution photo of a {}.",
    "a pixelated photo of the {}.",
]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message(spec: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        load_bank(spec)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def test_built_in_templates() -> None:
    bank = load_bank("templates")
    assert len(bank) >= 180 and set(REQUIRED) <= set(bank) and BASELINE in bank
    assert bank.name == "templates" and bank.grammar is None and all(bank.lines)


def test_built_in_grammar() -> None:
    bank = load_bank("grammar")
    assert bank.grammar is not None and 300 <= len(bank) <= 5000 and not bank.sampled
    assert "an old photo of the {} in the snow." in bank.templates
    assert not [t for t in bank if "a old" in t or "a image" in t or "  " in t]


def test_banks_from_open_clip() -> None:
    assert {name: len(load_bank(name)) for name in OPEN_CLIP_SIZES} == OPEN_CLIP_SIZES
    bank = load_bank("openai-imagenet")
    assert bank.templates[0] == "a bad photo of a {}." and "a origami {}." in bank.templates
    assert bank.source == "open_clip.OPENAI_IMAGENET_TEMPLATES" and bank.lines[0] is None
    assert set(builtin_banks()) == {"templates", "grammar", "openai-cifar", *OPEN_CLIP_SIZES}


@relaxed
@given(st.lists(templates, min_size=1, max_size=10, unique=True))
@example([Template("#{}"), Template("\\#{}"), Template("\\{}"), Template("\\\\{}")])
def test_txt_round_trip(tmp_path: Path, items: list[Template]) -> None:
    bank = Bank.of("round", items)
    again = load_bank(write(tmp_path, "round.txt", bank.to_txt()))
    assert again.templates == bank.templates and again.hash == bank.hash
    assert again.lines == tuple(range(1, len(items) + 1))


@relaxed
@given(st.lists(templates, min_size=1, max_size=6, unique=True), st.booleans())
def test_yaml_and_json_round_trip(tmp_path: Path, items: list[Template], ascii_only: bool) -> None:
    data = {"name": "n", "templates": [str(t) for t in items]}
    assert load_bank(write(tmp_path, "b.json", json.dumps(data, ensure_ascii=ascii_only))).templates == tuple(items)
    dumped = yaml.safe_dump(data, allow_unicode=not ascii_only, width=10**6)
    assert load_bank(write(tmp_path, "b.yaml", dumped)).templates == tuple(items)


@settings(relaxed, max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(st.characters(codec="utf-8")).map(str.encode),
        st.lists(
            st.sampled_from(
                [
                    "templates",
                    "patterns",
                    "slots",
                    "name",
                    "x",
                    ":",
                    " ",
                    "\n",
                    "- ",
                    "a {}",
                    "[x]",
                    "{}",
                    "[",
                    "]",
                    "{",
                    "}",
                ]
                + [
                    '"',
                    "'",
                    "#",
                    "&a",
                    "*a",
                    "!!",
                    "|",
                    ">",
                    "?",
                    ",",
                    "1",
                    "null",
                    "\\u",
                    "\\UFFFFFFFF",
                    "%YAML 1",
                    "\t",
                ]
            ),
            max_size=30,
        ).map(lambda parts: "".join(parts).encode()),
    ),
    st.sampled_from([".txt", ".yaml", ".json"]),
)
@example(b'"\\UFFFFFFFF"', ".yaml")
@example(b"[" * 5000, ".yaml")
@example(b"[" * 200000, ".json")
@example(b"[" * 900 + b"]" * 900, ".json")
@example(b"1" * 5000, ".json")
@example(b"%YAML 1." + b"1" * 5000 + b"\n--- x", ".yaml")
@example(b'{"templates": ["\\ud800{}"]}', ".json")
def test_any_bytes_are_a_bank_or_an_input_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    try:
        bank = load_bank(write(tmp_path, f"any{suffix}", data))
    except InputError as e:
        str(e).encode()
        assert str(e).startswith(str(tmp_path)) and len(str(e)) < 700
    else:
        assert len(bank) == len(set(bank)) == len(bank.lines) >= 1


def test_txt_with_comments_bom_and_crlf(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.txt", b"\xef\xbb\xbf# mine\r\n\r\n  a caf\xc3\xa9 {}.  \r\n#\r\na {}\r\n")
    bank = load_bank(str(path))
    assert bank.templates == ("a café {}.", "a {}") and bank.lines == (3, 5)
    assert bank.name == "mine" and bank.source == str(path)


YAML_BANK = """\
name: my bank
templates:
  - a photo of a {}.
  - "{}"
patterns:
  - a [quality] {}[context].
slots:
  quality: ["", old]
  context:
    - ""
    - " at night"
class_names:
  airplane: [plane, jet]
"""


def test_a_whole_yaml_bank_and_the_same_in_json(tmp_path: Path) -> None:
    bank = load_bank(write(tmp_path, "b.yml", YAML_BANK))
    assert bank.name == "my bank" and bank.class_names == {"airplane": ("plane", "jet")}
    assert bank.templates[:4] == ("a photo of a {}.", "{}", "a(n) {}.", "a(n) {} at night.")
    assert bank.lines == (3, 4, 6, 6, 6, 6) and bank.grammar is not None and bank.grammar.size == 4
    other = load_bank(write(tmp_path, "b.json", json.dumps(yaml.safe_load(YAML_BANK), indent="\t")))
    assert other.hash == bank.hash and other.lines == (4, 5, 8, 8, 8, 8)


BENCHMARK = {"cifar10": ["a photo of a {c}.", "the {c}."], "mnist": ['the number: "{c}".']}


def test_clip_benchmark_templates(tmp_path: Path) -> None:
    path = write(tmp_path, "en.json", json.dumps(BENCHMARK, indent=1))
    bank = load_bank(f"{path}#cifar10")
    assert bank.templates == ("a photo of a {}.", "the {}.") and bank.name == "en#cifar10" and bank.lines == (3, 4)
    assert "2 data sets: cifar10, mnist; pick one" in message(path)
    assert "no data set 'food'; there are cifar10, mnist" in message(f"{path}#food")
    assert load_bank(write(tmp_path, "one.json", '{"mnist": ["{c}"]}')).templates == ("{}",)
    assert load_bank(write(tmp_path, "list.json", '["{c}の写真"]')).templates == ("{}の写真",)
    assert load_bank(write(tmp_path, "a#b.txt", "a {}")).name == "a#b"
    assert "2 times {}" in message(write(tmp_path, "two.json", '{"k": ["{c} {c}"]}'))
    assert "write {c}" in message(write(tmp_path, "mixed.json", '{"k": ["{c}", "{}"]}'))
    assert "1: a template must be text: 5; quote it" in message(write(tmp_path, "number.json", '{"k": ["{c}", 5]}'))


LONG = "x" * 10_000_000
MISTAKES: list[tuple[str, str | bytes, str]] = [
    ("b.txt", "", "b.txt: no templates in this file"),
    ("b.txt", "# only\n\n  # comments\n", "b.txt: no templates in this file"),
    ("b.yaml", "# only comments\n", "b.yaml: no templates in this file"),
    ("b.yaml", "templates: []\n", "b.yaml: no templates in this file"),
    ("b.json", "{}", "b.json: no templates in this file"),
    ("b.json", "", "b.json:1: broken JSON: Expecting value"),
    ("b.txt", "a {}\n\na photo\n", "b.txt:3: no {} in a template: 'a photo'; write {}"),
    ("b.txt", "a {} {}", "b.txt:1: 2 times {} in a template: 'a {} {}'; keep"),
    ("b.txt", "a {} }", "b.txt:1: stray brace"),
    ("b.txt", "a {0}", "b.txt:1: placeholder {0} in a template"),
    ("b.txt", "a {name} {}", "b.txt:1: placeholder {name} in a template"),
    ("b.txt", b"a {}\nb\xff {}\n", "b.txt:2: not UTF-8: byte 0xff, number 2 of the line; save"),
    ("b.yaml", b"\xef\xbb\xbftemplates:\n- \xc3\n", "b.yaml:2: not UTF-8: byte 0xc3, number 3 of the line"),
    ("b.txt", "a {}\n\n a {} \n", "b.txt:3: template repeated from line 1: 'a {}'; remove"),
    ("b.yaml", "templates:\n- a {}\n- b {}\n- a {}", "b.yaml:4: template repeated from line 2"),
    ("b.txt", "a {}\nb\x07 {}\n", "b.txt:2: character '\\x07' in a template"),
    ("b.txt", "a\r{}", "b.txt:1: character '\\r'"),
    ("b.yaml", "templates:\n- b\x07 {}\n", "b.yaml:2: control character '\\x07' in YAML"),
    ("b.json", '{"templates": [\n"b\x07 {}"]}', "b.json:2: broken JSON: Invalid control character"),
    ("b.json", '{"templates": [\n"b\\u0007 {}"]}', "b.json:2: character '\\x07' in a template"),
    ("b.txt", f"a {{}}\n{LONG} {{}}\n", "b.txt:2: line of 10000003 characters: 'xxx"),
    ("b.yaml", f"templates:\n- {LONG[:20000]} {{}}\n", "b.yaml:2: line of 20005 characters: '- xxx"),
    ("b.json", json.dumps({"templates": ["{}" + LONG]}), "b.json:1: template of 10000002 characters: '{}xxx"),
    ("b.txt", LONG + LONG, "b.txt: larger than 16 MB"),
    ("b.yaml", "# " + "\n" * MAX_BYTES[".yaml"], "b.yaml: larger than 1 MB"),
    ("b.txt", "x" * 600 + "{}", "b.txt:1: template of 602 characters: 'xxx"),
    ("b.csv", "a {}", "b.csv: unknown suffix '.csv'; a bank is a file of .txt, .json, .yaml, .yml"),
    ("bank", "a {}", "bank: unknown suffix ''"),
    ("b.yaml", "templates:\n  - 'a {}\n", "b.yaml:3: broken YAML: found unexpected end of stream"),
    ("b.yaml", "templates:\n\t- a {}\n", "b.yaml:2: broken YAML: found character '\\\\t'"),
    ("b.yaml", "a: 1\n---\nb: 2\n", "b.yaml:2: broken YAML"),
    ("b.yaml", "a: &x [1]\nb: *x\n", "b.yaml:2: broken YAML: alias *x: write its value out"),
    ("b.yaml", "[" * 3000, "b.yaml:1: nested too deeply"),
    ("b.json", '{"templates": [\n"a {}",]}', "b.json:2: broken JSON"),
    ("b.json", "[" * 200000, "b.json:1: nested too deeply"),
    ("b.yaml", "template: [a]\n", "b.yaml:1: unknown key: 'template'; there are name, templates"),
    ("b.json", '{"templates": ["a {}"],\n "slot": {}}', "b.json:2: unknown key: 'slot'"),
    (
        "cupl.json",
        '{"cat": ["a cat."]}',
        "cupl.json:1: unknown key: 'cat'; there are name, templates, patterns, slots, class_names; if the keys are "
        "classes, name the file with --phrases",
    ),
    (
        "dclip.yaml",
        "cat:\n- whiskers\n",
        "dclip.yaml:1: unknown key: 'cat'; there are name, templates, patterns, slots, class_names; if the keys are "
        "classes, name the file with --phrases",
    ),
    ("b.json", '[{"template": "a {}."}]', "b.json:1: a list of 1, without any text that has {} or {c}"),
    ("b.json", "[3]", "b.json:1: a list of 1, without any text that has"),
    ("b.yaml", "- [a, b]\n", "b.yaml:1: a list of 1, without any text that has"),
    *(
        (f"b.{form}", "a {}.\n".encode(code), f"b.{form}: the file is in UTF-16 or UTF-32")
        for form in ("txt", "json", "yaml")
        for code in ("utf-16", "utf-32")
    ),
    *(
        (f"b.{form}", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", f"b.{form}: the file is a Git LFS")
        for form in ("txt", "json", "yaml")
    ),
    *((f"b.{form}", "<!doctype html><p>a {}", f"b.{form}: the file is a web page") for form in ("txt", "json", "yaml")),
    ("b.csv", "a {}.\n", "b.csv: unknown suffix '.csv'; a bank is a file of .txt, .json"),
    ("b.yaml", "5\n", "b.yaml:1: a bank must be a mapping: 5; give the keys"),
    ("b.yaml", "templates:\n- a {}\n- 5\n", "b.yaml:3: a template must be text: 5; quote it"),
    ("b.yaml", "templates:\n- a {}\n-\n", "b.yaml:3: a template must be text: null; quote it"),
    ("b.yaml", "templates:\n- {}\n", "b.yaml:2: a template must be text: a mapping of 0; quote it"),
    ("b.yaml", "templates:\n- a {}: b\n", "b.yaml:2: a template must be text: a mapping of 1"),
    ("b.json", '{"templates": [null]}', "b.json:1: a template must be text: null"),
    ("b.yaml", "templates: a {}\n", "b.yaml:1: templates must be a list: 'a {}'"),
    ("b.yaml", "templates: [a]\ntemplates: [b]\n", "b.yaml:2: key repeated from line 1: 'templates'"),
    ("b.json", '{"name": "a",\n"name": "b"}', "b.json:2: key repeated from line 1: 'name'"),
    ("b.yaml", "templates: ['{}']\n1: 2\n", "b.yaml:2: a key must be text: 1"),
    ("b.yaml", "name: 5\n", "b.yaml:1: the bank's name must be text: 5"),
    ("b.yaml", "name: ' '\n", "b.yaml:1: not a valid name: ''"),
    ("b.yaml", "patterns:\n- a {}\n- a [x] {}\n", "b.yaml:3: slot [x] is never defined: 'a [x] {}'; define"),
    ("b.yaml", "patterns: ['{}']\nslots:\n  x: [y]\n", "b.yaml:3: slot never used: 'x'"),
    ("b.yaml", "patterns: ['[x] {}']\nslots:\n  x: []\n", "b.yaml:3: slot [x] is empty"),
    ("b.yaml", "patterns: ['[x] {}']\nslots:\n  x:\n  - b\n  - b\n", "b.yaml:5: slot [x] repeats its word 1: 'b'"),
    ("b.yaml", "patterns: ['[x] {}']\nslots:\n  x:\n  - b\n  - no\n", "b.yaml:5: a word of slot [x] must be text: no"),
    ("b.yaml", "patterns: ['[x] {}']\nslots:\n  x: y\n", "b.yaml:3: slot [x] must be a list: 'y'"),
    ("b.yaml", "patterns:\n- '[x {}'\n", "b.yaml:2: bad brackets in a pattern: '[x {}'"),
    ("b.yaml", "patterns:\n- 3\n", "b.yaml:2: a pattern must be text: 3"),
    ("b.yaml", "name: x\nslots: {}\n", "b.yaml:2: grammar without patterns"),
    ("b.yaml", "patterns: ['{}']\nslots: [x]\n", "b.yaml:2: slots must be a mapping: a list of 1"),
    ("b.yaml", "templates: ['{}']\nclass_names: [x]\n", "b.yaml:2: class_names must be a mapping"),
    ("b.yaml", "templates: ['{}']\nclass_names:\n  cat: []\n", "b.yaml:3: class without alternatives: 'cat'"),
    ("b.yaml", "templates: ['{}']\nclass_names:\n  cat:\n  - a\n  - 7\n", "b.yaml:5: a class name must be text: 7"),
    (
        "b.yaml",
        "templates: ['{}']\nclass_names:\n  cat:\n  - a\n  - a\n",
        "b.yaml:5: class name repeated from line 4: 'a'",
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_mistakes_are_named_with_place_and_remedy(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    said = message(write(tmp_path, name, content))
    assert said.startswith(f"{tmp_path}/{expected}")
    assert "; " in said.removeprefix(str(tmp_path))


def test_a_missing_file_lists_the_built_in_banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec in ("banks/templates.txt", "nothing", "no.json#cifar10", "", "#", Path("templates")):
        said = message(spec)
        assert f"no such file or bank; built-in banks: {', '.join(builtin_banks())}" in said


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is a directory" in message(tmp_path)
    assert "is not a regular file" in message(_fifo(tmp_path / "pipe.txt"))
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    assert "cannot be read" in message(loop)
    assert "cannot be read" in message("nul\0.txt")
    assert "cannot be read" in message("x" * 5000 + ".txt")
    path = write(tmp_path, "secret.txt", "a {}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert message(path) == f"{path}: cannot be read: Permission denied; name a file that you may read"


def _fifo(path: Path) -> Path:
    import os

    os.mkfifo(path)
    return path


def test_parts_are_for_files_that_have_them(tmp_path: Path) -> None:
    assert "leave #k out" in message(f"{write(tmp_path, 'b.txt', 'a {}')}#k")
    assert "leave #k out" in message(f"{write(tmp_path, 'b.yaml', 'templates: [a photo of a <>]')}#k")


def test_a_name_may_be_hidden_by_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "templates", "a {}")
    assert len(load_bank("templates")) > 100
