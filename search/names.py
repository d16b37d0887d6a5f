"""The names that classes may go by: one more move of every search, beside those among templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptsearch.banks import PromptSet

#: Share of the changes of a parent that give one class another name, where the bank has some.
RENAMED = 0.15


@dataclass(frozen=True)
class Names:
    """The classes of a task and what else each may be called.

        names = Names(("cat", "automobile"), {"automobile": ("car",)})
        for other in names.around(PromptSet.of("a photo of a {}.")):
            print(other.class_names)  # ("cat", "car")

    Attributes:
        own: the task's own names, in the order of its classes.
        others: for a class name the names that may stand in for it; classes that are not in it keep theirs.
    """

    own: tuple[str, ...]
    others: Mapping[str, Sequence[str]]

    @property
    def free(self) -> list[int]:
        """Classes that have more than one name."""
        return [c for c in range(len(self.own)) if len(self.choices(c)) > 1]

    def choices(self, c: int) -> list[str]:
        """The names of a class, its own first."""
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
        """The sets next to one: another name for one class."""
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
