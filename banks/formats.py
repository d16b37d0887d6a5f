"""Reads the formats of bank files: text with one template per line, YAML, JSON, and CLIP_benchmark's JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from promptsearch.banks.bank import Bank
from promptsearch.banks.grammar import Grammar, GrammarError
from promptsearch.banks.parse import Node
from promptsearch.banks.template import Template, shorten, unprintable, why_invalid, why_no_class_name
from promptsearch.errors import InputError

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
            f"{place}:{root.line}: {root}, of which none is a text with {{}} or {{c}} where the class name goes; "
            'write templates, such as ["a photo of a {}."]'
        )
    tree = _mapping(root, place, "a bank", f"the keys {', '.join(KEYS)}")
    for unknown in tree:
        if unknown not in KEYS:
            line = tree[unknown].line
            raise InputError(f"{place}:{line}: unknown key: {shorten(unknown)}; there are {', '.join(KEYS)}")
    if "name" in tree:
        name = _text(tree["name"], place, "the bank's name").strip()
        if not name or unprintable(name):
            raise InputError(f"{place}:{tree['name'].line}: no name: {shorten(name)}; write one printable line")
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
                f"{place}:{line}: template of line {lines[template]} again: {shorten(template)}; remove one of the two"
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
                    f"{place}:{n.line}: class name of line {lines[word]} again: {shorten(word)}; remove one of the two"
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
