"""Reads the formats of phrase files: promptsearch's own, JSON of CuPL, DCLIP and CLIP_benchmark, and text lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from promptsearch.banks.parse import Node
from promptsearch.banks.phrases import PhraseBank, is_sentence, why_no_phrase
from promptsearch.banks.template import shorten, why_no_class_name
from promptsearch.errors import InputError

KEYS = ("name", "phrases")

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
        root: A mapping with the keys `KEYS`, or a published file with texts by class, or prompts by data set and class.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose, if the file has several.

    Raises:
        InputError: Something is wrong; the message names the line.
    """
    tree = _mapping(root, place)
    if "phrases" in tree:
        if unknown := next((k for k in tree if k not in KEYS), None):
            raise InputError(
                f"{place}:{tree[unknown].line}: unknown key: {shorten(unknown)}; there are {', '.join(KEYS)}"
            )
        if key is not None:
            raise InputError(f"{place}: no data sets in this file to pick {shorten(key)} from; leave #{key} out")
        given = tree.get("name")
        if given is not None and not (isinstance(given.value, str) and given.value.strip()):
            raise InputError(f"{place}:{given.line}: no name: {given}; write one printable line")
        named = str(given.value) if given is not None else name
        return _bank({c: _texts(n, place, c) for c, n in _mapping(tree["phrases"], place).items()}, place, named)
    if any(isinstance(n.value, dict) for n in tree.values()):
        data_set = _picked(tree, place, key)
        classes = {c: _texts(n, place, c) for c, n in _mapping(tree[data_set], place).items()}
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


def _mapping(node: Node | None, place: str) -> dict[str, Node]:
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
            InputError: A class has no name, the number of names is wrong, or two classes have the same name.
        """
        if self.by_folder is None:
            if len(self.in_order) != len(classes):
                raise InputError(
                    f"{self.place}: {len(self.in_order)} names for {len(classes)} classes; give one a line, "
                    "or folder, a tab, name"
                )
            given = self.in_order
        else:
            if missing := next((c for c in classes if c not in self.by_folder), None):
                raise InputError(f"{self.place}: no name for class {shorten(missing)}; add it, a tab and its name")
            given = tuple(self.by_folder[c] for c in classes)
        names = [n[0] for n in given]
        if len(set(names)) < len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i])
            raise InputError(f"{self.place}: two classes are called {shorten(twice)}; tell them apart")
        return names, {n[0]: n[1:] for n in given if len(n) > 1}


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
