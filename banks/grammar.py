"""Slot grammars: patterns such as `a [quality] photo of a {}[context].` with a list of words for each slot."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from promptsearch.banks.template import MAX_LENGTH, Template, article, shorten, unprintable
from promptsearch.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_SLOT = re.compile(r"\[([A-Za-z_][A-Za-z0-9_-]*)\]")
_EDGE = "\x00"  # marks the beginning and end of a slot's word; patterns and words must not contain it


class GrammarError(InputError):
    """A grammar is invalid.

    Args:
        message: What is wrong and what to do.
        *where: The path to the place: ("patterns", 2), ("slots", "light", 0) or ("slots", "light").
    """

    def __init__(self, message: str, *where: str | int) -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True, init=False)
class Grammar:
    """Patterns with slots; each choice of words for the slots makes a Template.

        grammar = Grammar(["a [quality] photo of a {}."], {"quality": ("", "blurry", "old")})
        for template in grammar:
            print(template)  # a photo of a(n) {}. / a blurry photo of a(n) {}. / an old photo of a(n) {}.

    Repeated spaces and spaces before "." or "," are removed, so that an empty word leaves no trace. An article next to
    a slot is adapted to the word that follows; one before `{}` becomes "a(n)", which is adapted to the class name.

    Args:
        patterns: The patterns.
        slots: The words of each slot.

    Raises:
        GrammarError: A slot is undefined, unused or empty, a word is repeated, or brackets or braces are wrong.
    """

    patterns: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]

    def __init__(self, patterns: Iterable[str], slots: Mapping[str, Sequence[str]]) -> None:
        texts = tuple(patterns)
        for i, pattern in enumerate(texts):
            _check_pattern(pattern, i)
            if pattern in texts[:i]:
                raise GrammarError(f"pattern given twice: {shorten(pattern)}; remove one", "patterns", i)
        for name, words in slots.items():
            _check_slot(name, words)
        used = [tuple(dict.fromkeys(_SLOT.findall(p))) for p in texts]
        for i, names in enumerate(used):
            for name in names:
                if name not in slots:
                    known = ", ".join(slots) or "none"
                    raise GrammarError(
                        f"slot [{name}] is never defined: {shorten(texts[i])}; define it under slots (there: {known})",
                        "patterns",
                        i,
                    )
            longest = len(texts[i]) + sum(max(map(len, slots[n])) for n in _SLOT.findall(texts[i])) + len("(n)")
            if longest > MAX_LENGTH:
                raise GrammarError(
                    f"pattern that can grow to {longest} characters: {shorten(texts[i])}; shorten it to {MAX_LENGTH}",
                    "patterns",
                    i,
                )
        for name in slots:
            if not any(name in names for names in used):
                raise GrammarError(f"slot never used: {shorten(name)}; use it in a pattern or remove it", "slots", name)
        if not texts:
            raise GrammarError("grammar without patterns; give at least one", "patterns")
        object.__setattr__(self, "patterns", texts)
        object.__setattr__(self, "slots", {name: tuple(words) for name, words in slots.items()})

    def __hash__(self) -> int:
        return hash((self.patterns, tuple(sorted(self.slots.items()))))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict {"patterns": [...], "slots": {name: [...]}}."""
        return {"patterns": list(self.patterns), "slots": {n: list(w) for n, w in self.slots.items()}}

    def slots_of(self, pattern_index: int) -> tuple[str, ...]:
        """Return the names of a pattern's slots, in the order of their first use.

        Raises:
            InputError: There is no pattern with this index.
        """
        if not 0 <= pattern_index < len(self.patterns):
            raise InputError(f"no pattern {pattern_index}; there are {len(self.patterns)}, counted from 0")
        return tuple(dict.fromkeys(_SLOT.findall(self.patterns[pattern_index])))

    def count(self, pattern_index: int) -> int:
        """Return the number of choices of a pattern."""
        return math.prod(len(self.slots[name]) for name in self.slots_of(pattern_index))

    @property
    def size(self) -> int:
        """Number of choices of all patterns; different choices may make the same template."""
        return sum(self.count(i) for i in range(len(self.patterns)))

    def expand(self, pattern_index: int, choice: Mapping[str, int]) -> Template:
        """Make the template of a pattern and a choice of words.

        Args:
            pattern_index: Index of the pattern.
            choice: Index of the word for each slot; other slots are ignored.

        Raises:
            InputError: The pattern or a word does not exist, or a slot has no choice.
        """
        words: dict[str, str] = {}
        for name in self.slots_of(pattern_index):
            index = choice.get(name)
            if index is None or not 0 <= index < len(self.slots[name]):
                raise InputError(f"no word {index} for slot [{name}]; choose from 0 to {len(self.slots[name]) - 1}")
            words[name] = self.slots[name][index]
        return _expand(self.patterns[pattern_index], words)

    def __iter__(self) -> Iterator[Template]:
        return (template for _, template in self.entries())

    def entries(self) -> Iterator[tuple[int, Template]]:
        """Yield (pattern index, template) of all distinct templates, pattern by pattern, the last slot fastest."""
        seen: set[Template] = set()
        for i, pattern in enumerate(self.patterns):
            names = self.slots_of(i)
            for words in product(*(self.slots[n] for n in names)):
                template = _expand(pattern, dict(zip(names, words, strict=True)))
                if template not in seen:
                    seen.add(template)
                    yield i, template

    def sample(self, rng: np.random.Generator, n: int) -> list[Template]:
        """Draw `n` distinct templates (all of them, if there are fewer); every choice is equally likely."""
        return [template for _, template in self.sample_entries(rng, n)]

    def sample_entries(self, rng: np.random.Generator, n: int) -> list[tuple[int, Template]]:
        """Draw templates like `sample`, and return each with the index of its pattern."""
        if n < 0:
            raise InputError(f"a sample of {n} templates is not possible; ask for 0 or more")
        if self.size <= 4 * n:  # single draws would mostly be repetitions
            every = list(self.entries())
            return [every[i] for i in rng.permutation(len(every))[:n]]
        counts = [self.count(i) for i in range(len(self.patterns))]
        shares = [c / self.size for c in counts]
        drawn: dict[Template, int] = {}
        for _ in range(10 * n + 100):  # bounded, because many choices may make the same template
            if len(drawn) == n:
                break
            i = int(rng.choice(len(counts), p=shares)) if len(counts) > 1 else 0
            words = {name: self.slots[name][int(rng.integers(len(self.slots[name])))] for name in self.slots_of(i)}
            drawn.setdefault(_expand(self.patterns[i], words), i)
        return [(i, template) for template, i in drawn.items()]


def _expand(pattern: str, words: Mapping[str, str]) -> Template:
    text = _SLOT.sub(lambda m: f"{_EDGE}{words[m[1]]}{_EDGE}", pattern)
    tokens: list[str] = []
    edges = ""
    for token in text.split():
        if token.strip(_EDGE):
            tokens.append(edges + token)
            edges = ""
        else:  # an empty word: its edge still matters to an article before it
            edges += token
    for i, (token, following) in enumerate(zip(tokens, tokens[1:], strict=False)):
        word = token.strip(_EDGE)
        if word.lower() in ("a", "an"):
            after = following.replace(_EDGE, "")
            if after.startswith("{}"):
                tokens[i] = f"{word[0]}(n)"
            elif token.endswith(_EDGE) or following.startswith(_EDGE):
                tokens[i] = word[0] + article(after)[1:]
    return Template(re.sub(r" +(?=[.,])", "", " ".join(tokens).replace(_EDGE, "")))


def _check_pattern(pattern: object, i: int) -> None:
    where = ("patterns", i)
    if not isinstance(pattern, str):
        raise GrammarError(f"a pattern must be text: {shorten(pattern)}; quote it", *where)
    shown = shorten(pattern)
    if character := unprintable(pattern):
        raise GrammarError(f"character {character} in a pattern: {shown}; write one line of printable text", *where)
    literals = _SLOT.sub("\n", pattern)
    if "[" in literals or "]" in literals:
        raise GrammarError(f"bad brackets in a pattern: {shown}; a slot is [name], of letters, digits, - and _", *where)
    rest = literals.replace("{}", "")
    if "{" in rest or "}" in rest:
        raise GrammarError(f"stray brace in a pattern: {shown}; use braces for the one {{}} only", *where)
    if (n := literals.count("{}")) != 1:
        raise GrammarError(f"{n} times {{}} in a pattern: {shown}; write it exactly once", *where)


def _check_slot(name: object, words: object) -> None:
    if not isinstance(name, str) or not _SLOT.fullmatch(f"[{name}]"):
        raise GrammarError(f"bad slot name: {shorten(name)}; use letters, digits, - and _", "slots", str(name))
    if isinstance(words, (str, Mapping)) or not isinstance(words, Sequence):
        raise GrammarError(f"slot [{name}] must have a list of words: {shorten(words)}; give one", "slots", name)
    if not words:
        raise GrammarError(f"slot [{name}] is empty: []; give it a word, or '' for the empty one", "slots", name)
    seen: dict[str, int] = {}
    for i, word in enumerate(words):
        where = ("slots", name, i)
        if not isinstance(word, str):
            raise GrammarError(f"a word of slot [{name}] must be text: {shorten(word)}; quote it", *where)
        shown = shorten(word)
        if character := unprintable(word):
            raise GrammarError(f"character {character} in slot [{name}]: {shown}; write printable text", *where)
        if any(c in word for c in "[]{}"):
            raise GrammarError(f"bracket or brace in slot [{name}]: {shown}; they belong in patterns", *where)
        if (first := seen.setdefault(" ".join(word.split()), i)) != i:
            raise GrammarError(f"slot [{name}] repeats its word {first + 1}: {shown}; remove one", *where)
