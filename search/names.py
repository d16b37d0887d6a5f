"""Alternative class names, which every searcher can try besides other templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptsearch.banks import PromptSet

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

    def of(self, prompt_set: PromptSet) -> tuple[str, ...]:
        """The name that a set has for each class."""
        return prompt_set.class_names or self.own

    def named(self, prompt_set: PromptSet, names: Sequence[str]) -> PromptSet:
        """The set with these names; without any where they are the task's own: equal sets are one."""
        given = None if tuple(names) == self.own else tuple(names)
        if given == prompt_set.class_names:
            return prompt_set
        return PromptSet(prompt_set.templates, prompt_set.weights, given)

    def around(self, prompt_set: PromptSet) -> list[PromptSet]:
        """Return all sets in which one class has another name."""
        now = self.of(prompt_set)
        return [
            self.named(prompt_set, [*now[:c], name, *now[c + 1 :]])
            for c in self.free
            for name in self.choices(c)
            if name != now[c]
        ]

    def cost(self, prompt_set: PromptSet) -> float:
        """What the choice costs, in nats: for each class that is renamed the logarithm of how many names it has."""
        return sum(
            math.log(len(self.choices(c)))
            for c, (name, own) in enumerate(zip(self.of(prompt_set), self.own, strict=True))
            if name != own
        )
