"""Banks of templates and of phrases: validated lists that know the line of the file each entry came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptsearch.banks.grammar import Grammar
from promptsearch.banks.template import Template, shorten, unprintable, why_no_class_name
from promptsearch.errors import InputError

#: Largest number of phrases of a class, and of characters of a phrase.
MAX_PHRASES, MAX_CHARACTERS = 1000, 500


def is_sentence(phrase: str) -> bool:
    """Return whether a phrase ends like a sentence; a sentence is used as the prompt itself, without a template."""
    return phrase.endswith((".", "!", "?"))


def fill(template: Template, phrase: str) -> str:
    """Return the prompt of a template and a phrase: the filled template, or the phrase alone if it is a sentence."""
    return phrase if is_sentence(phrase) else template.fill(phrase)


def why_no_phrase(text: object) -> str | None:
    """Return why `text` is not a valid phrase, as "what is wrong: value; remedy", or None if it is."""
    if not isinstance(text, str):
        return f"a phrase must be text: {shorten(text)}; quote it"
    if not text.strip() or text != text.strip() or unprintable(text):
        return f"a phrase must be one printable line without spaces at its ends: {shorten(text)}; write it out"
    if "{" in text or "}" in text:
        return f"brace in a phrase: {shorten(text)}; write the phrase alone, templates have the {{}}"
    if len(text) > MAX_CHARACTERS:
        return f"phrase of {len(text)} characters: {shorten(text)}; shorten it to {MAX_CHARACTERS}"
    return None


@dataclass(frozen=True)
class PhraseBank:
    """The phrases of a data set's classes: names, names with a description, or whole sentences.

        bank = PhraseBank("mine", {"cat": ("kitten", "cat, a pet that purrs"), "dog": ("puppy",)})
        print(bank.of_classes(["cat", "dog"])[0])  # ('cat', 'kitten', 'cat, a pet that purrs')

    Attributes:
        name: Name of the bank.
        phrases: Phrases by class name, in order.
        lines: By class name, the line of `source` at which the phrases of the class begin, if known.
        source: The file they were read from, or None.
        hash: SHA-256 in hexadecimal of the phrases (not of name, source and lines).

    Raises:
        InputError: There is no class, a class has no or too many phrases, or a phrase is invalid or in two classes.
    """

    name: str
    phrases: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, int] = field(default_factory=dict)
    source: str | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.phrases:
            raise InputError(f"{self.source or f'phrase bank {shorten(self.name)}'}: no phrases; give some to a class")
        owner: dict[str, str] = {_same(name): name for name in self.phrases}
        kept: dict[str, tuple[str, ...]] = {}
        for name, phrases in self.phrases.items():
            if not phrases:
                raise InputError(f"{self._place(name)}class without phrases: {shorten(name)}; give it one")
            if len(phrases) > MAX_PHRASES:
                raise InputError(
                    f"{self._place(name)}{len(phrases)} phrases for class {shorten(name)}; keep the best {MAX_PHRASES}"
                )
            for phrase in phrases:
                if reason := why_no_phrase(phrase):
                    raise InputError(f"{self._place(name)}{reason}")
                other = owner.setdefault(_same(phrase), name)
                if other != name:
                    raise InputError(
                        f"{self._place(name)}phrase {shorten(phrase)} of class {shorten(name)} is one of class "
                        f"{shorten(other)} too; leave it to one of them"
                    )
            kept[name] = tuple({_same(phrase): phrase for phrase in reversed(phrases)}.values())[::-1]
        put = object.__setattr__
        put(self, "phrases", kept)
        content = json.dumps({n: list(p) for n, p in kept.items()}, sort_keys=True, separators=(",", ":"))
        put(self, "hash", hashlib.sha256(content.encode()).hexdigest())

    def __len__(self) -> int:
        return sum(len(phrases) for phrases in self.phrases.values())

    def __hash__(self) -> int:
        return hash(self.hash)

    def fits(self, classes: Sequence[str]) -> bool:
        """Return whether the bank has phrases for exactly these classes."""
        return {_same(name) for name in classes} == {_same(name) for name in self.phrases}

    def of_classes(self, classes: Sequence[str]) -> list[tuple[str, ...]]:
        """Return for each class its name followed by its phrases; a class without phrases has its name only.

        Args:
            classes: The task's class names.

        Raises:
            InputError: The bank has phrases for another class, or a phrase is the name of another class.
        """
        own = {_same(name): name for name in classes}
        for name, phrases in self.phrases.items():
            if _same(name) not in own:
                some = ", ".join(classes[:5]) + (" …" if len(classes) > 5 else "")
                raise InputError(
                    f"{self._place(name)}phrases for class {shorten(name)}, which is not in the data set; "
                    f"there are {some}"
                )
            for phrase in phrases:
                other = own.get(_same(phrase), name)
                if _same(other) != _same(name):
                    raise InputError(
                        f"{self._place(name)}phrase {shorten(phrase)} of class {shorten(name)} names another class; "
                        "leave it out"
                    )
        given = {_same(name): phrases for name, phrases in self.phrases.items()}
        return [
            tuple({_same(p): p for p in reversed((name, *given.get(_same(name), ())))}.values())[::-1]
            for name in classes
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict."""
        return {"name": self.name, "phrases": {name: list(phrases) for name, phrases in self.phrases.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PhraseBank:
        """Make a phrase bank from the result of `to_dict`."""
        return cls(data["name"], {name: tuple(phrases) for name, phrases in data["phrases"].items()})

    def _place(self, name: str) -> str:
        """Return the place of a class for the beginning of a message."""
        if self.source is None:
            return f"phrase bank {shorten(self.name)}: "
        return f"{self.source}:{self.lines[name]}: " if name in self.lines else f"{self.source}: "


def _same(text: str) -> str:
    """Normalise case, underscores and spaces, so that equivalent phrases are equal."""
    return " ".join(text.replace("_", " ").split()).casefold()


#: Largest number of templates that a bank expands from a grammar; of a larger grammar it takes a sample of this size.
MAX_EXPANSIONS = 20_000
_SAMPLE_SEED = 0


@dataclass(frozen=True)
class Bank:
    """Distinct templates in order, with the grammar they were made from and other names for the classes, if any.

        bank = Bank.of("mine", ["a photo of a {}.", "a sketch of a {}."])
        for template in bank:
            print(template.fill("cat"))

    Attributes:
        name: Name of the bank.
        templates: The templates.
        lines: For each template its line in `source`, or None.
        source: The file it was read from, if any.
        grammar: The grammar, if there is one.
        class_names: Alternative names by class name.
        sampled: Whether `templates` is a sample, because the grammar has more than `MAX_EXPANSIONS` expansions.
        phrases: Phrases for the classes, chosen for the templates that a search finds.
        hash: SHA-256 in hexadecimal of templates, grammar, class names and phrases (not of name, source and lines).

    Raises:
        InputError: There is no template, one is repeated, or a class name has no alternatives.
    """

    name: str
    templates: tuple[Template, ...]
    lines: tuple[int | None, ...] = ()
    source: str | None = None
    grammar: Grammar | None = None
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sampled: bool = False
    phrases: PhraseBank | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        templates = tuple(Template(t) for t in self.templates)
        if not templates:
            raise InputError(f"bank {shorten(self.name)} has no templates; give at least one")
        if len(set(templates)) < len(templates):
            repeated = next(t for i, t in enumerate(templates) if t in templates[:i])
            raise InputError(f"bank {shorten(self.name)} has a template twice: {shorten(repeated)}; remove one")
        lines = self.lines or (None,) * len(templates)
        if len(lines) != len(templates):
            raise InputError(f"{len(lines)} lines for {len(templates)} templates of bank {shorten(self.name)}")
        for name, others in self.class_names.items():
            for word in (name, *others):
                if reason := why_no_class_name(word):
                    raise InputError(reason)
            if not others:
                raise InputError(f"class {shorten(name)} has no alternatives; give at least one name")
        put = object.__setattr__
        put(self, "templates", templates)
        put(self, "lines", tuple(lines))
        put(self, "class_names", {name: tuple(others) for name, others in self.class_names.items()})
        put(self, "hash", self._content_hash())

    @classmethod
    def of(cls, name: str, templates: Sequence[str]) -> Bank:
        """Make a bank of templates."""
        return cls(name, tuple(Template(t) for t in templates))

    @classmethod
    def expanded(
        cls,
        name: str,
        grammar: Grammar,
        plain: Mapping[Template, int | None] | None = None,
        pattern_lines: Sequence[int | None] = (),
        source: str | None = None,
        class_names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Bank:
        """Make a bank of plain templates followed by a grammar's expansions.

        If the grammar has more than `MAX_EXPANSIONS` choices, a fixed random sample of them is used.

        Args:
            name: Name of the bank.
            grammar: The grammar.
            plain: Templates outside the grammar, with their lines.
            pattern_lines: The line of each pattern.
            source: The file.
            class_names: Alternative names by class name.
        """
        sampled = grammar.size > MAX_EXPANSIONS
        if sampled:
            import numpy as np

            entries = iter(grammar.sample_entries(np.random.default_rng(_SAMPLE_SEED), MAX_EXPANSIONS))
        else:
            entries = grammar.entries()
        at: dict[Template, int | None] = dict(plain or {})
        for i, template in entries:
            at.setdefault(template, pattern_lines[i] if pattern_lines else None)
        return cls(name, tuple(at), tuple(at.values()), source, grammar, dict(class_names or {}), sampled)

    def __len__(self) -> int:
        return len(self.templates)

    def __iter__(self) -> Iterator[Template]:
        return iter(self.templates)

    def __hash__(self) -> int:
        return hash(self.hash)

    def to_txt(self) -> str:
        """Return the templates as a `.txt` bank, one per line; a leading `#` or backslash is escaped by a backslash."""
        return "".join(f"\\{t}\n" if t.startswith(("#", "\\")) else f"{t}\n" for t in self.templates)

    def _content_hash(self) -> str:
        content: dict[str, Any] = {
            "templates": [str(t) for t in self.templates],
            "grammar": None if self.grammar is None else self.grammar.to_dict(),
            "class_names": {name: list(others) for name, others in self.class_names.items()},
        }
        if self.phrases is not None:
            content["phrases"] = self.phrases.hash
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
