"""Reads the formats of bank and phrase files: text lines, YAML, promptsearch's and others' JSON."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Union

import yaml

from promptsearch.banks.bank import Bank, PhraseBank, is_sentence, why_no_phrase
from promptsearch.banks.grammar import Grammar, GrammarError
from promptsearch.banks.template import Template, shorten, unprintable, why_invalid, why_no_class_name
from promptsearch.errors import InputError


def mistaken_for(head: bytes) -> tuple[str, str] | None:
    """Return what a file of another kind is, e.g. a web page, and a remedy; None if its content is not recognised.

    Args:
        head: The first 512 bytes of the file, or all of a shorter one.

    Returns:
        Two parts of a message, such as ("a Git LFS pointer …", "fetch …").
    """
    if not head:
        return "empty", "replace it or remove it"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the content itself", "fetch the content with `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith(b"<?xml") and b"<html" in text):
        return (
            "a web page, not a download",
            "fetch the file itself: the link of its download button, logged in where the site asks for it",
        )
    if text.startswith((b"<?xml", b"<error>")):
        return "a server's XML answer, not a download", "fetch the file itself, logged in where the site asks for it"
    return None


@dataclass(frozen=True)
class Other:
    """A scalar other than a string (number, null, true …), as it is written."""

    shown: str


Value = Union[str, Other, "list[Node]", "dict[str, Node]"]


@dataclass(frozen=True, repr=False)
class Node:
    """A value with its line; for a value in a mapping, the line of its key."""

    value: Value
    line: int

    def __repr__(self) -> str:
        """Return the value as messages show it."""
        if isinstance(self.value, str):
            return shorten(self.value)
        if isinstance(self.value, Other):
            return shorten(self.value.shown)[1:-1]
        return f"a list of {len(self.value)}" if isinstance(self.value, list) else f"a mapping of {len(self.value)}"


class _Loader(yaml.SafeLoader):
    """A loader that refuses aliases, because a few lines of them can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            what = f"alias *{event.anchor}: write its value out"
            raise yaml.composer.ComposerError(None, None, what, event.start_mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, place: str) -> Node | None:
    """Parse a YAML document.

    Args:
        text: The document.
        place: The file's name for messages.

    Returns:
        The tree, or None for an empty document.

    Raises:
        InputError: The syntax is broken, there is an alias, or a key is repeated or not a string.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
        return None if root is None else _from_yaml(root, place)
    except InputError:
        raise
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = 1 if mark is None else mark.line + 1
        what = shorten(e.problem or e.context or "syntax error", 200)[1:-1]
        raise InputError(f"{place}:{line}: broken YAML: {what}; put text with : # [ {{ or quotes in quotes") from e
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, int(e.position)) + 1
        raise InputError(f"{place}:{line}: control character {text[e.position]!r} in YAML; remove it") from e
    except RecursionError as e:
        raise InputError(f"{place}:1: nested too deeply; a bank is at most lists in a mapping") from e
    except (yaml.YAMLError, ValueError, OverflowError) as e:
        raise InputError(f"{place}:1: broken YAML: {shorten(str(e), 200)[1:-1]}; correct it") from e


def _from_yaml(node: yaml.Node, place: str) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return Node([_from_yaml(item, place) for item in node.value], line)
    if isinstance(node, yaml.MappingNode):
        return Node(_unique_keys(((_from_yaml(k, place), _from_yaml(v, place)) for k, v in node.value), place), line)
    if node.tag == "tag:yaml.org,2002:str":
        return Node(str(node.value), line)
    return Node(Other(str(node.value) or "null"), line)


def parse_json(text: str, place: str) -> Node:
    """Parse a JSON document.

    Args:
        text: The document.
        place: The file's name for messages.

    Raises:
        InputError: The syntax is broken, or a key is repeated.
    """
    try:
        json.loads(text)
        return _from_json(_json_tokens(text), place)
    except InputError:
        raise
    except json.JSONDecodeError as e:
        raise InputError(f"{place}:{e.lineno}: broken JSON: {e.msg} (column {e.colno}); correct it") from e
    except RecursionError as e:
        raise InputError(f"{place}:1: nested too deeply; a bank is at most lists in a mapping") from e
    except ValueError as e:  # for example an integer with thousands of digits
        raise InputError(f"{place}:1: broken JSON: {shorten(str(e), 200)[1:-1]}; correct it") from e


def _json_tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield (token, line) of valid JSON, without commas and colons."""
    line = 1
    for m in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]|[^][{}",:\s]+|\n', text):
        if m[0] == "\n":
            line += 1
        else:
            yield m[0], line


def _from_json(tokens: Iterator[tuple[str, int]], place: str) -> Node:
    token, line = next(tokens)
    return _json_value(token, line, tokens, place)


def _json_value(token: str, line: int, tokens: Iterator[tuple[str, int]], place: str) -> Node:
    if token == "[":
        items: list[Node] = []
        for inner, at in tokens:
            if inner == "]":
                break
            items.append(_json_value(inner, at, tokens, place))
        return Node(items, line)
    if token == "{":
        pairs: list[tuple[Node, Node]] = []
        for inner, at in tokens:
            if inner == "}":
                break
            pairs.append((_json_value(inner, at, tokens, place), _from_json(tokens, place)))
        return Node(_unique_keys(iter(pairs), place), line)
    return Node(json.loads(token) if token.startswith('"') else Other(token), line)


def _unique_keys(pairs: Iterator[tuple[Node, Node]], place: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in pairs:
        if not isinstance(key.value, str):
            raise InputError(f"{place}:{key.line}: a key must be text: {key}; quote it")
        if key.value in found:
            first = found[key.value].line
            raise InputError(f"{place}:{key.line}: key repeated from line {first}: {key}; remove one of the two")
        found[key.value] = replace(value, line=key.line)
    return found


KEYS = ("name", "templates", "patterns", "slots", "class_names")


def from_txt(text: str, place: str, name: str, source: str) -> Bank:
    """Read a text bank with one template per line, skipping blank lines and comments.

    A comment begins with `#`. A template that begins with `#` is written with a backslash before it.

    Args:
        text: Content of the file.
        place: The file's name for messages.
        name: Name of the bank.
        source: The file.

    Raises:
        InputError: A template is invalid or repeated; the message names the line.
    """
    found: list[tuple[str, int]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            found.append((line[1:] if line.startswith(("\\#", "\\\\")) else line, number))
    return _listed(collect(found, place), place, name, source)


def from_tree(root: Node | None, place: str, name: str, source: str, key: str | None) -> Bank:
    """Read a bank from parsed YAML or JSON.

    Args:
        root: A mapping with the keys `KEYS`, or CLIP_benchmark's lists of templates by data set.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        source: The file.
        key: The data set to choose from CLIP_benchmark's lists.

    Raises:
        InputError: Something is wrong; the message names the line.
    """
    if root is None:
        raise _empty(place)
    if (lists := _benchmark(root, name)) is not None:
        return _from_benchmark(lists, place, name, source, key)
    if key is not None:
        raise InputError(f"{place}: no data sets in this file to pick {shorten(key)} from; leave #{key} out")
    if isinstance(root.value, list):
        raise InputError(
            f"{place}:{root.line}: {root}, without any text that has {{}} or {{c}} for the class name; "
            'write templates, such as ["a photo of a {}."]'
        )
    tree = _mapping(root, place, "a bank", f"the keys {', '.join(KEYS)}")
    for unknown in tree:
        if unknown not in KEYS:
            line = tree[unknown].line
            hint = "; if the keys are classes, name the file with --phrases" if not tree.keys() & set(KEYS) else ""
            raise InputError(f"{place}:{line}: unknown key: {shorten(unknown)}; there are {', '.join(KEYS)}{hint}")
    if "name" in tree:
        name = _text(tree["name"], place, "the bank's name").strip()
        if not name or unprintable(name):
            raise InputError(
                f"{place}:{tree['name'].line}: not a valid name: {shorten(name)}; write one printable line"
            )
    plain = collect(((_raw(n), n.line) for n in _list(tree, "templates", place)), place)
    class_names = _class_names(tree.get("class_names"), place)
    if "patterns" in tree or "slots" in tree:
        grammar, lines = _grammar(tree, place)
        return Bank.expanded(name, grammar, plain, lines, source, class_names)
    return _listed(plain, place, name, source, class_names)


def collect(found: Iterable[tuple[object, int]], place: str) -> dict[Template, int]:
    """Check that templates are valid and distinct.

    Args:
        found: Texts with their lines.
        place: The file's name for messages.

    Returns:
        The line of each template.

    Raises:
        InputError: A template is invalid or repeated; the message names the lines.
    """
    lines: dict[Template, int] = {}
    for text, line in found:
        if reason := why_invalid(text):
            raise InputError(f"{place}:{line}: {reason}")
        template = Template(str(text))
        if template in lines:
            raise InputError(
                f"{place}:{line}: template repeated from line {lines[template]}: {shorten(template)}; remove one"
            )
        lines[template] = line
    return lines


def _listed(
    lines: dict[Template, int],
    place: str,
    name: str,
    source: str,
    class_names: dict[str, tuple[str, ...]] | None = None,
) -> Bank:
    if not lines:
        raise _empty(place)
    return Bank(name, tuple(lines), tuple(lines.values()), source, class_names=class_names or {})


def _empty(place: str) -> InputError:
    return InputError(f"{place}: no templates in this file; write one a line, such as 'a photo of a {{}}.'")


def _grammar(tree: dict[str, Node], place: str) -> tuple[Grammar, list[int]]:
    patterns = _list(tree, "patterns", place)
    slots = _mapping(tree["slots"], place, "slots", "lists of words by slot name") if "slots" in tree else {}
    words = {name: _items(node, place, f"slot [{name}]") for name, node in slots.items()}
    try:
        texts = [_text(n, place, "a pattern").strip() for n in patterns]
        # A word that is not text is passed on, so that the grammar refuses it with its place.
        grammar = Grammar(texts, {name: [_raw(n) for n in items] for name, items in words.items()})
    except GrammarError as e:
        line: int
        match e.where:
            case ("patterns", int(i)):
                line = patterns[i].line
            case ("slots", str(name), int(i)):
                line = words[name][i].line
            case ("slots", str(name)):
                line = slots[name].line
            case _:
                line = tree["patterns" if "patterns" in tree else "slots"].line
        raise InputError(f"{place}:{line}: {e}") from e
    return grammar, [n.line for n in patterns]


def _class_names(node: Node | None, place: str) -> dict[str, tuple[str, ...]]:
    if node is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name, others in _mapping(node, place, "class_names", "lists of other names by class name").items():
        items = _items(others, place, f"class {shorten(name)}")
        if not items:
            raise InputError(f"{place}:{others.line}: class without alternatives: {shorten(name)}; give it a name")
        lines: dict[str, int] = {}
        for line, word in [(others.line, name), *((n.line, _raw(n)) for n in items)]:
            if reason := why_no_class_name(word):
                raise InputError(f"{place}:{line}: {reason}")
        for n in items:
            word = str(n.value)
            if word in lines:
                raise InputError(
                    f"{place}:{n.line}: class name repeated from line {lines[word]}: {shorten(word)}; remove one"
                )
            lines[word] = n.line
        found[name] = tuple(lines)
    return found


def _benchmark(root: Node, name: str) -> dict[str, list[Node]] | None:
    """Return CLIP_benchmark's lists by data set, whose templates contain {c} (or {}), or None for another format."""
    tree = {name: root} if isinstance(root.value, list) else root.value
    if not isinstance(tree, dict) or any(k in KEYS for k in tree):
        return None
    lists = {k: n.value for k, n in tree.items() if isinstance(n.value, list)}
    texts = [n.value for items in lists.values() for n in items if isinstance(n.value, str)]
    templates = any("{c}" in text or "{}" in text for text in texts)
    return lists if templates and len(lists) == len(tree) else None


def _from_benchmark(lists: dict[str, list[Node]], place: str, name: str, source: str, key: str | None) -> Bank:
    if key is None:
        if len(lists) > 1:
            some = next(iter(lists))
            raise InputError(f"{place}: {len(lists)} data sets: {', '.join(lists)}; pick one, such as {place}#{some}")
        key = next(iter(lists))
    if key not in lists:
        raise InputError(f"{place}: no data set {shorten(key)}; there are {', '.join(lists)}")
    found = []
    says_c = any("{c}" in text for text in map(_raw, lists[key]) if isinstance(text, str))
    for node in lists[key]:
        text = _raw(node)
        if says_c and isinstance(text, str) and "{}" in text:
            raise InputError(f"{place}:{node.line}: {{}} among templates with {{c}}: {shorten(text)}; write {{c}}")
        found.append((text.replace("{c}", "{}") if isinstance(text, str) else text, node.line))
    return _listed(collect(found, place), place, name if key == name else f"{name}#{key}", source)


def _raw(node: Node) -> Any:
    """Return the text of a node, or the node itself if it is not text, which messages then show."""
    return node.value if isinstance(node.value, str) else node


def _text(node: Node, place: str, what: str) -> str:
    if not isinstance(node.value, str):
        raise InputError(f"{place}:{node.line}: {what} must be text: {node}; quote it")
    return node.value


def _items(node: Node, place: str, what: str) -> list[Node]:
    if not isinstance(node.value, list):
        raise InputError(f"{place}:{node.line}: {what} must be a list: {node}; give one, an item a line")
    return node.value


def _list(tree: dict[str, Node], key: str, place: str) -> list[Node]:
    return _items(tree[key], place, key) if key in tree else []


def _mapping(node: Node, place: str, what: str, remedy: str) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise InputError(f"{place}:{node.line}: {what} must be a mapping: {node}; give {remedy}")
    return node.value


PHRASE_KEYS = ("name", "phrases")

#: The phrases of a class and the line of the class.
_Class = tuple[list[str], int]


def phrases_from_txt(text: str, place: str, name: str) -> PhraseBank:
    """Read lines `class<TAB>phrase`, skipping blank lines and lines that begin with `#`.

    Args:
        text: Content of the file.
        place: The file's name for messages.
        name: Name of the bank.

    Raises:
        InputError: A line is invalid.
    """
    found: dict[str, _Class] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        class_name, tab, phrase = (part.strip() for part in line.partition("\t"))
        if not class_name or not phrase:
            raise InputError(f"{place}:{number}: not a class and a phrase: {shorten(line)}; separate them by a tab")
        if reason := why_no_phrase(phrase):
            raise InputError(f"{place}:{number}: {reason}")
        found.setdefault(class_name, ([], number))[0].append(phrase)
    return _bank(found, place, name)


def phrases_from_tree(root: Node | None, place: str, name: str, key: str | None = None) -> PhraseBank:
    """Read a phrase bank from parsed YAML or JSON.

    In a published file of sentences (CuPL), sentences without a full stop get one. The texts of a published file of
    fragments (DCLIP) become descriptors, as in "hen, which has a red comb".

    Args:
        root: A mapping with `PHRASE_KEYS`, or a published file: texts by class, or prompts by data set and class.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose, if the file has several.

    Raises:
        InputError: Something is wrong; the message names the line.
    """
    tree = _phrase_mapping(root, place)
    if "phrases" in tree:
        if unknown := next((k for k in tree if k not in PHRASE_KEYS), None):
            raise InputError(
                f"{place}:{tree[unknown].line}: unknown key: {shorten(unknown)}; there are {', '.join(PHRASE_KEYS)}"
            )
        if key is not None:
            raise InputError(f"{place}: no data sets in this file to pick {shorten(key)} from; leave #{key} out")
        given = tree.get("name")
        if given is not None and not (isinstance(given.value, str) and given.value.strip()):
            raise InputError(f"{place}:{given.line}: not a valid name: {given}; write one printable line")
        named = str(given.value) if given is not None else name
        return _bank({c: _texts(n, place, c) for c, n in _phrase_mapping(tree["phrases"], place).items()}, place, named)
    if any(isinstance(n.value, dict) for n in tree.values()):
        data_set = _picked(tree, place, key)
        classes = {c: _texts(n, place, c) for c, n in _phrase_mapping(tree[data_set], place).items()}
        return _bank({c: ([_stopped(t) for t in texts], line) for c, (texts, line) in classes.items()}, place, data_set)
    if key is not None:
        raise InputError(f"{place}: no data sets in this file to pick {shorten(key)} from; leave #{key} out")
    classes = {c: _texts(n, place, c) for c, n in tree.items()}
    every = [text for texts, _ in classes.values() for text in texts]
    sentences = sum(map(is_sentence, every)) * 2 > len(every)
    return _bank(
        {
            c: ([_stopped(t) if sentences else f"{c}, {_which(t)}" for t in texts], line)
            for c, (texts, line) in classes.items()
        },
        place,
        name,
    )


def _stopped(text: str) -> str:
    """Return a complete prompt, with a full stop at the end if it has none."""
    return text if is_sentence(text) else f"{text}."


def _which(descriptor: str) -> str:
    """Turn a descriptor into a relative clause, by the rule of DCLIP's code (Menon and Vondrick 2023)."""
    if re.match(r"(an?|the|used)\b", descriptor, re.IGNORECASE):
        return f"which is {descriptor}"
    if re.match(r"(has|have|is|are|often|typically|usually|may|can)\b", descriptor, re.IGNORECASE):
        return f"which {descriptor}"
    return f"which has {descriptor}"


def _picked(tree: dict[str, Node], place: str, key: str | None) -> str:
    """Return the data set to use of those in a file."""
    if key is None:
        if len(tree) > 1:
            some = next(iter(tree))
            raise InputError(f"{place}: {len(tree)} data sets: {', '.join(tree)}; pick one, such as {place}#{some}")
        key = next(iter(tree))
    if key not in tree:
        raise InputError(f"{place}: no data set {shorten(key)}; there are {', '.join(tree)}")
    return key


def _texts(node: Node, place: str, class_name: str) -> _Class:
    """Return the texts of a class, which may be a list or a single text, with the line of the class."""
    items = [node] if isinstance(node.value, str) else node.value
    if not isinstance(items, list):
        raise InputError(
            f"{place}:{node.line}: phrases of class {shorten(class_name)} must be a list: {node}; "
            "give one, an item a line"
        )
    texts = []
    for item in items:
        text = item.value.strip() if isinstance(item.value, str) else item
        if reason := why_no_phrase(text):
            raise InputError(f"{place}:{item.line}: {reason}")
        texts.append(str(text))
    return texts, node.line


def _phrase_mapping(node: Node | None, place: str) -> dict[str, Node]:
    if node is None:
        raise InputError(f"{place}: no phrases in this file; give phrases: a mapping of classes to lists")
    if not isinstance(node.value, dict):
        raise InputError(f"{place}:{node.line}: phrases must be a mapping: {node}; give lists of phrases by class")
    return node.value


def _bank(found: dict[str, _Class], place: str, name: str) -> PhraseBank:
    for class_name, (_, line) in found.items():
        if reason := why_no_class_name(class_name):
            raise InputError(f"{place}:{line}: {reason}")
    phrases = {name.strip(): tuple(texts) for name, (texts, _) in found.items()}
    return PhraseBank(name, phrases, {name.strip(): line for name, (_, line) in found.items()}, place)


@dataclass(frozen=True)
class ClassNames:
    r"""Names for the classes of a data set, by the class's folder (or number) or in the order of the classes.

        names = parse_class_names("n01440764\ttench, Tinca tinca\n", "names.txt")
        print(names.of(["n01440764"]))  # (['tench'], {'tench': ('Tinca tinca',)})

    Attributes:
        by_folder: The names of each class by its folder, the preferred one first; None if `in_order` is used.
        in_order: The names of each class, in the order of the classes.
        place: The file's name for messages.
    """

    by_folder: dict[str, tuple[str, ...]] | None
    in_order: tuple[tuple[str, ...], ...]
    place: str

    def of(self, classes: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
        """Return the preferred name of each class, and the alternative names by preferred name.

        Args:
            classes: The data set's classes.

        Raises:
            InputError: A class has no name, the number of names is wrong, their order is in doubt, or two classes have
                the same name.
        """
        if self.by_folder is None:
            if len(self.in_order) != len(classes):
                raise InputError(
                    f"{self.place}: {len(self.in_order)} names for {len(classes)} classes; give one a line, "
                    "or folder, a tab, name"
                )
            if doubt := _why_other_order(classes, [names[0] for names in self.in_order]):
                raise InputError(f"{self.place}: {doubt}; write lines of the class, a tab and its name")
            given = self.in_order
        else:
            by_class = {_spoken(folder): names for folder, names in self.by_folder.items()}
            if missing := next((c for c in classes if _spoken(c) not in by_class), None):
                raise InputError(
                    f"{self.place}: no name for class {shorten(missing)}; add a line: the class, a tab and its name"
                )
            given = tuple(by_class[_spoken(c)] for c in classes)
        names = [n[0] for n in given]
        if len(set(names)) < len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i])
            raise InputError(f"{self.place}: two classes are called {shorten(twice)}; give one another name")
        return names, {n[0]: n[1:] for n in given if len(n) > 1}


def _spoken(name: str) -> str:
    """Return a class as the data set's class names spell it: with spaces for underscores."""
    return " ".join(name.replace("_", " ").split())


def why_swapped(classes: Sequence[str], names: Sequence[str]) -> str | None:
    """Return which class a list of names would give the name of another class, or None."""
    own = {_spoken(c).casefold(): c for c in classes}
    said = [_spoken(name).casefold() for name in names]
    for c, name, plain in zip(classes, names, said, strict=True):
        if own.get(plain, c) != c and said.count(plain) == 1:  # equal names have an error of their own
            return f"class {shorten(c)} would be called {shorten(name)}, as another class is, so the order may be wrong"
    return None


def _why_other_order(classes: Sequence[str], names: Sequence[str]) -> str | None:
    """Return why a list of names may be in another order than the classes, or None.

    Either a class would get the name of another, or the classes are in alphabetical order, where 10 comes before 2 and
    Z before a, but a person would list them differently.
    """
    if swapped := why_swapped(classes, names):
        return swapped
    counted = sorted(classes, key=_natural)
    if list(classes) == sorted(classes) != counted:
        n = next(i for i, (a, b) in enumerate(zip(classes, counted, strict=True)) if a != b)
        return f"the data set has class {shorten(classes[n])} before {shorten(counted[n])}, but the names may not"
    return None


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names as people do: numbers by value, letters regardless of case and accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    parts = re.split(r"(^-?\d+|\d+)", plain)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def parse_class_names(text: str, place: str) -> ClassNames:
    """Read lines of `folder<TAB>name`, or one name per line.

    Names separated by commas are alternatives; the first is the preferred one.

    Args:
        text: Content of the file.
        place: The file's name for messages.

    Raises:
        InputError: A line is invalid.
    """
    by_folder: dict[str, tuple[str, ...]] = {}
    in_order: list[tuple[str, ...]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        folder, tab, rest = line.partition("\t")
        names = tuple(dict.fromkeys(part.strip() for part in (rest if tab else line).split(",") if part.strip()))
        if not names or (tab and not folder.strip()):
            raise InputError(f"{place}:{number}: no class name: {shorten(line)}; write folder, a tab, name")
        for name in names:
            if reason := why_no_class_name(name):
                raise InputError(f"{place}:{number}: {reason}")
        if tab and folder.strip() in by_folder:
            raise InputError(f"{place}:{number}: class {shorten(folder.strip())} again; remove one of the two")
        if bool(tab) != bool(by_folder) and (by_folder or in_order):
            raise InputError(f"{place}:{number}: lines with and without a tab: {shorten(line)}; write all alike")
        if tab:
            by_folder[folder.strip()] = names
        else:
            in_order.append(names)
    if not by_folder and not in_order:
        raise InputError(f"{place}: no class names in this file; write one a line")
    return ClassNames(by_folder or None, tuple(in_order), place)


#: Longest line of a text or YAML file, in characters. JSON may be a single long line.
MAX_LINE = 10_000

_BOM = b"\xef\xbb\xbf"


def parse_bank(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> Bank:
    """Read a bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose from CLIP_benchmark's lists.

    Raises:
        InputError: The bank is invalid.
    """
    text = decode(data, place)
    if suffix == ".json":
        return from_tree(parse_json(text, place), place, name, place, key)
    _short_lines(text, place)
    if suffix == ".txt":
        if key is not None:
            raise InputError(f"{place}: a .txt bank has no parts to pick {shorten(key)} from; leave #{key} out")
        return from_txt(text, place, name, place)
    return from_tree(parse_yaml(text, place), place, name, place, key)


def parse_phrases(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> PhraseBank:
    """Read a phrase bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose, if the file has several.

    Raises:
        InputError: The bank is invalid.
    """
    text = decode(data, place)
    if suffix == ".json":
        return phrases_from_tree(parse_json(text, place), place, name, key)
    _short_lines(text, place)
    if suffix == ".txt":
        return phrases_from_txt(text, place, name)
    return phrases_from_tree(parse_yaml(text, place), place, name, key)


def decode(data: bytes, place: str) -> str:
    """Return the text of a UTF-8 file.

    Args:
        data: Content of the file.
        place: The file's name for messages.

    Raises:
        InputError: It is a Git LFS pointer or a web page, or not UTF-8; the message names the line.
    """
    if data and (found := mistaken_for(data[:512])):
        raise InputError(f"{place}: the file is {found[0]}; {found[1]}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # the mark of UTF-32 begins with the same bytes
        raise InputError(f"{place}: the file is in UTF-16 or UTF-32, as Windows calls Unicode; save it as UTF-8")
    data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        at = e.start - data.rfind(b"\n", 0, e.start)
        raise InputError(
            f"{place}:{line}: not UTF-8: byte 0x{data[e.start]:02x}, number {at} of the line; save the file as UTF-8"
        ) from e


def _short_lines(text: str, place: str) -> None:
    for number, line_text in enumerate(text.split("\n"), start=1):
        if len(line_text) > MAX_LINE:
            raise InputError(
                f"{place}:{number}: line of {len(line_text)} characters: {shorten(line_text)}; keep it to {MAX_LINE}"
            )
