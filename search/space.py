"""The space of a search: ensembles of a bank's templates and class names, and how they are drawn and changed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np

from promptsearch.banks import Bank, Grammar, PromptSet, Template
from promptsearch.banks.bank import MAX_EXPANSIONS
from promptsearch.banks.prompt_set import Phrases
from promptsearch.errors import InputError

#: Share of a parent's changes that give one class another name, if the bank has alternatives.
RENAMED = 0.15


@dataclass(frozen=True)
class Names:
    """The class names of a task and the alternatives for each.

        names = Names(("cat", "automobile"), {"automobile": ("car",)})
        for other in names.around(PromptSet.of("a photo of a {}.")):
            print(other.class_names)  # ("cat", "car")

    Attributes:
        own: The task's class names, in the order of its classes.
        others: Alternative names by class name; a class that is not a key keeps its name.
    """

    own: tuple[str, ...]
    others: Mapping[str, Sequence[str]]

    @property
    def free(self) -> list[int]:
        """Indices of the classes with more than one name."""
        return [c for c in range(len(self.own)) if len(self.choices(c)) > 1]

    def choices(self, c: int) -> list[str]:
        """Return the names of class number c, the task's own first."""
        return list(dict.fromkeys([self.own[c], *self.others.get(self.own[c], ())]))

    def of(self, prompt_set: PromptSet) -> tuple[Phrases, ...]:
        """Return the phrases that a set uses for each class."""
        return prompt_set.phrases_of(self.own)

    def named(self, prompt_set: PromptSet, names: Sequence[str]) -> PromptSet:
        """Return the set with one name for each class; if they are the task's own names, it stores none.

        Sets with the same names are therefore equal.
        """
        return prompt_set.saying(None if tuple(names) == self.own else [[name] for name in names])

    def renamed(self, prompt_set: PromptSet, c: int, name: str) -> PromptSet:
        """Return the set with class number c called by this name alone; the other classes keep their phrases."""
        now = self.of(prompt_set)
        given = [*now[:c], ((name, 1.0),), *now[c + 1 :]]
        if all(said == ((own, 1.0),) for said, own in zip(given, self.own, strict=True)):
            return prompt_set.saying(None)
        return prompt_set.saying([dict(said) for said in given])

    def around(self, prompt_set: PromptSet) -> list[PromptSet]:
        """Return all sets in which one class has another name."""
        now = self.of(prompt_set)
        return [
            self.renamed(prompt_set, c, name) for c in self.free for name in self.choices(c) if ((name, 1.0),) != now[c]
        ]

    def cost(self, prompt_set: PromptSet) -> float:
        """Return the cost of a set's names in nats: for each renamed class, the logarithm of its number of names."""
        return sum(
            math.log(len(self.choices(c)))
            for c, (said, own) in enumerate(zip(self.of(prompt_set), self.own, strict=True))
            if said != ((own, 1.0),)
        )


#: Spaces of at most this many sets are enumerated to find the last ones that were not tried.
LISTED = 200_000
#: Number of draws without a new set after which a larger space counts as exhausted.
DRAWS = 500

#: How a template is made from a grammar, by indices: (pattern, {slot: word}). Other templates have the pattern None.
Choice = tuple[int | None, dict[str, int]]


@dataclass
class Space:
    """The PromptSets of 1 to `ensemble` templates of a bank.

        space = Space(bank, ensemble=2)
        start = space.draw(np.random.default_rng(0))
        for other in space.neighbours(start):
            print(other)

    Attributes:
        bank: The bank.
        ensemble: Largest number of templates in a set.
        plain: The bank's templates that do not come from its grammar.
        count: Number of sets, or None if the grammar has too many templates to enumerate.

    Raises:
        InputError: `ensemble` is below 1.
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
            made = _sample(grammar)
            self.plain = tuple(t for t in bank.templates if t not in made)
        else:
            self._choices |= _expansions(grammar)
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
        """The bank's grammar, if it has one."""
        return self.bank.grammar

    def template(self, choice: Choice) -> Template:
        """Return the template of a choice, and store the choice for `choice_of`."""
        pattern, words = choice
        if pattern is None:
            return self.plain[words["template"]]
        assert self.grammar is not None  # a choice with a pattern comes from a grammar
        template = self.grammar.expand(pattern, words)
        self._choices.setdefault(template, (pattern, dict(words)))
        return template

    def choice_of(self, template: Template) -> Choice | None:
        """Return how a template is made (the first way if there are several), or None if that is unknown."""
        return self._choices.get(template)

    def holds(self, prompt_set: PromptSet) -> bool:
        """Return whether a set belongs to the space; in a space without `count`, whether its templates were seen."""
        plain = prompt_set.weights is None and prompt_set.phrases is None
        return plain and prompt_set.size <= self.ensemble and all(t in self._choices for t in prompt_set.templates)

    def draw(self, rng: np.random.Generator) -> PromptSet:
        """Draw a set: first its size, then its templates, uniformly."""
        size = int(rng.integers(1, self.ensemble + 1)) if self.ensemble > 1 else 1
        chosen: dict[Template, None] = {}
        while len(chosen) < size:
            chosen[self.draw_template(rng)] = None
        return PromptSet(chosen)

    def draw_unseen(self, rng: np.random.Generator, seen: set[PromptSet] | dict[PromptSet, object]) -> PromptSet | None:
        """Draw a set that is not in `seen`, or return None if there is none."""
        for _ in range(DRAWS):
            if (drawn := self.draw(rng)) not in seen:
                return drawn
        if self.count is None or self.count > LISTED:
            return None
        left = [s for s in self.sets() if s not in seen]
        return left[int(rng.integers(len(left)))] if left else None

    def sets(self) -> Iterator[PromptSet]:
        """Yield all sets, in ascending order of size."""
        for size in range(1, self.ensemble + 1):
            for templates in combinations(self.bank.templates, size):
                yield PromptSet(templates)

    def edits(self, template: Template) -> list[Template]:
        """Return the neighbours of a template.

        A neighbour has another word in one slot, or the same words in another pattern. The neighbours of a template
        that does not come from the grammar are all other such templates, and each pattern with the first word in every
        slot.
        """
        if template in self._edits:
            return self._edits[template]
        known = self.choice_of(template)
        if known is None:  # from outside the space, e.g. a hand-written starting point
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
        """Return the neighbours of a set: one template replaced by a neighbour, dropped, or a neighbour added."""
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
        """Draw a template uniformly."""
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


# A search is repeated in every fold of its estimate, with the same grammar.
@functools.lru_cache(maxsize=2)
def _expansions(grammar: Grammar) -> dict[Template, Choice]:
    """Return all templates of a grammar, each with the first way to make it."""
    choices: dict[Template, Choice] = {}
    for pattern in range(len(grammar.patterns)):
        slots = grammar.slots_of(pattern)
        for words in product(*(range(len(grammar.slots[s])) for s in slots)):
            choice = dict(zip(slots, words, strict=True))
            choices.setdefault(grammar.expand(pattern, choice), (pattern, choice))
    return choices


@functools.lru_cache(maxsize=2)
def _sample(grammar: Grammar) -> frozenset[Template]:
    """Return the templates that a bank draws from a grammar that is too large to be enumerated."""
    return frozenset(grammar.sample(np.random.default_rng(0), MAX_EXPANSIONS))
