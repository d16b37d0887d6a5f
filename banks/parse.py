"""Parses YAML and JSON to a tree of nodes with line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Union

import yaml

from promptsearch.banks.template import shorten
from promptsearch.errors import InputError


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
        return Node(_mapping(((_from_yaml(k, place), _from_yaml(v, place)) for k, v in node.value), place), line)
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
    except ValueError as e:  # e.g. an integer with thousands of digits
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
        return Node(_mapping(iter(pairs), place), line)
    return Node(json.loads(token) if token.startswith('"') else Other(token), line)


def _mapping(pairs: Iterator[tuple[Node, Node]], place: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in pairs:
        if not isinstance(key.value, str):
            raise InputError(f"{place}:{key.line}: a key must be text: {key}; quote it")
        if key.value in found:
            first = found[key.value].line
            raise InputError(f"{place}:{key.line}: key of line {first} again: {key}; remove one of the two")
        found[key.value] = replace(value, line=key.line)
    return found
