"""The space of a search: all ensembles of up to so many templates of a bank, how they are drawn and varied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np

from promptsearch.banks import Bank, Grammar, PromptSet, Template
from promptsearch.banks.bank import MAX_EXPANSIONS
from promptsearch.errors import InputError

#: Spaces of up to this many sets are listed to find the last ones that were not tried yet.
LISTED = 200_000
#: Draws before an unlisted space counts as exhausted.
DRAWS = 500

#: The words of a pattern's slots, by index: (pattern, {slot: word}).  A plain template has the pattern None.
Choice = tuple[int | None, dict[str, int]]


@dataclass
class Space:
    """The PromptSets of 1 to `ensemble` templates of a bank.

        space = Space(bank, ensemble=2)
        start = space.draw(np.random.default_rng(0))
        for other in space.neighbours(start):
            print(other)

    Attributes:
        plain: the bank's templates that come from no grammar.
        count: number of sets, or None where a grammar has too many templates to list them.

    Raises:
        InputError: an ensemble below one.
    """

    bank: Bank
    ensemble: int = 1
    plain: tuple[Template, ...] = field(init=False)
    count: int | None = field(init=False)
    _choices: dict[Template, Choice] = field(init=False, repr=False)
    _edits: dict[Template, list[Template]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise InputError(f"--ensemble {self.ensemble}: must be at least 1")
        grammar, bank = self.grammar, self.bank
        self._choices = {}
        if grammar is None:
            self.plain = bank.templates
        elif bank.sampled:
            made = set(grammar.sample(np.random.default_rng(0), MAX_EXPANSIONS))
            self.plain = tuple(t for t in bank.templates if t not in made)
        else:
            for pattern in range(len(grammar.patterns)):
                for template, choice in _expansions(grammar, pattern):
                    self._choices.setdefault(template, (pattern, choice))
            self.plain = tuple(t for t in bank.templates if t not in self._choices)
        for i, template in enumerate(self.plain):
            self._choices[template] = (None, {"template": i})
        n = len(bank.templates)
        if bank.sampled:
            self.count = None
        else:
            self.ensemble = min(self.ensemble, n)
            self.count = sum(math.comb(n, k) for k in range(1, self.ensemble + 1))

    @property
    def grammar(self) -> Grammar | None:
        return self.bank.grammar

    def template(self, choice: Choice) -> Template:
        """The template of a choice; of a grammar too large to list, the choice is remembered for `choice_of`."""
        pattern, words = choice
        if pattern is None:
            return self.plain[words["template"]]
        assert self.grammar is not None  # a choice with a pattern comes from a grammar
        template = self.grammar.expand(pattern, words)
        self._choices.setdefault(template, (pattern, dict(words)))
        return template

    def choice_of(self, template: Template) -> Choice | None:
        """What a template is made of (the first way, where there are several), or None where that is not known."""
        return self._choices.get(template)

    def holds(self, prompt_set: PromptSet) -> bool:
        """Whether a set belongs to this space (of an unlisted one: whether its templates were met before)."""
        plain = prompt_set.weights is None and prompt_set.class_names is None
        return plain and prompt_set.size <= self.ensemble and all(t in self._choices for t in prompt_set.templates)

    def draw(self, rng: np.random.Generator) -> PromptSet:
        """A set whose size, and then whose templates, are drawn uniformly."""
        size = int(rng.integers(1, self.ensemble + 1)) if self.ensemble > 1 else 1
        chosen: dict[Template, None] = {}
        while len(chosen) < size:
            chosen[self.draw_template(rng)] = None
        return PromptSet(chosen)

    def draw_unseen(self, rng: np.random.Generator, seen: set[PromptSet] | dict[PromptSet, object]) -> PromptSet | None:
        """A set that is not in `seen`; None where there is none left."""
        for _ in range(DRAWS):
            if (drawn := self.draw(rng)) not in seen:
                return drawn
        if self.count is None or self.count > LISTED:
            return None
        left = [s for s in self.sets() if s not in seen]
        return left[int(rng.integers(len(left)))] if left else None

    def sets(self) -> Iterator[PromptSet]:
        """All sets, small ones first."""
        for size in range(1, self.ensemble + 1):
            for templates in combinations(self.bank.templates, size):
                yield PromptSet(templates)

    def edits(self, template: Template) -> list[Template]:
        """The templates next to one: another word in one slot, or the same words in another pattern.

        Next to a plain template are all other plain ones, and each pattern with its slots' first words.
        """
        if template in self._edits:
            return self._edits[template]
        known = self.choice_of(template)
        if known is None:  # from outside: a hand-written starting point
            known = (None, {})
        pattern, words = known
        found: dict[Template, None] = {}
        if self.grammar is not None:
            if pattern is not None:
                for slot in self.grammar.slots_of(pattern):
                    for i in range(len(self.grammar.slots[slot])):
                        found[self.template((pattern, {**words, slot: i}))] = None
            for other in range(len(self.grammar.patterns)):
                kept = {slot: words.get(slot, 0) for slot in self.grammar.slots_of(other)}
                found[self.template((other, kept))] = None
        if pattern is None:
            found.update(dict.fromkeys(self.plain))
        found.pop(template, None)
        self._edits[template] = list(found)
        return self._edits[template]

    def neighbours(self, prompt_set: PromptSet) -> list[PromptSet]:
        """The sets next to one: a member replaced by one next to it, dropped, or one next to a member added."""
        found: dict[PromptSet, None] = {}
        edits = {t: self.edits(t) for t in prompt_set.templates}
        for t, others in edits.items():
            for other in others:
                found[prompt_set.replace(t, other)] = None
        if prompt_set.size > 1:
            for t in prompt_set.templates:
                found[prompt_set.remove(t)] = None
        if prompt_set.size < self.ensemble:
            for other in dict.fromkeys(o for others in edits.values() for o in others):
                found[prompt_set.add(other)] = None
        found.pop(prompt_set, None)
        return [s for s in found if s.size <= self.ensemble]

    def draw_template(self, rng: np.random.Generator) -> Template:
        """One template, drawn uniformly."""
        if not self.bank.sampled:
            return self.bank.templates[int(rng.integers(len(self.bank.templates)))]
        grammar = self.grammar
        assert grammar is not None  # only grammars are sampled
        counts = [grammar.count(i) for i in range(len(grammar.patterns))]
        at = int(rng.integers(len(self.plain) + sum(counts)))
        if at < len(self.plain):
            return self.plain[at]
        pattern = int(np.searchsorted(np.cumsum(counts), at - len(self.plain), side="right"))
        words = {slot: int(rng.integers(len(grammar.slots[slot]))) for slot in grammar.slots_of(pattern)}
        return self.template((pattern, words))


def _expansions(grammar: Grammar, pattern: int) -> Iterator[tuple[Template, dict[str, int]]]:
    slots = grammar.slots_of(pattern)
    for words in product(*(range(len(grammar.slots[s])) for s in slots)):
        choice = dict(zip(slots, words, strict=True))
        yield grammar.expand(pattern, choice), choice
