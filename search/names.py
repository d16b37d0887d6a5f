"""Alternative class names, which every searcher can try besides other templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptsearch.banks import PromptSet
from promptsearch.banks.prompt_set import Phrases

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
        """The phrases that a set has for each class."""
        return prompt_set.phrases_of(self.own)

    def named(self, prompt_set: PromptSet, names: Sequence[str]) -> PromptSet:
        """The set with one name for each class; without any where they are the task's own: equal sets are one."""
        return prompt_set.saying(None if tuple(names) == self.own else [[name] for name in names])

    def renamed(self, prompt_set: PromptSet, c: int, name: str) -> PromptSet:
        """The set with one class called by this name alone, the others by what they are called."""
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
        """What the choice costs, in nats: for each class that is renamed the logarithm of how many names it has."""
        return sum(
            math.log(len(self.choices(c)))
            for c, (said, own) in enumerate(zip(self.of(prompt_set), self.own, strict=True))
            if said != ((own, 1.0),)
        )
