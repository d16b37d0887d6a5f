"""A bank: a named, ordered and validated list of templates that knows the line each came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptsearch.banks.grammar import Grammar
from promptsearch.banks.phrases import PhraseBank
from promptsearch.banks.template import Template, shorten, why_no_class_name
from promptsearch.errors import InputError

#: Largest number of expansions of a grammar that a bank lists; of a larger grammar it lists a sample of this size.
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
            raise InputError(f"template twice in bank {shorten(self.name)}: {shorten(repeated)}; remove one")
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
