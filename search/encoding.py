"""Encodes PromptSets as Optuna parameters, which samplers learn from and optuna-dashboard shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from promptsearch.banks import PromptSet
from promptsearch.search.space import Choice, Names, Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

#: Value of the parameter `pattern` for a template that does not come from a grammar.
PLAIN = "(plain)"
#: Prefix of the parameter with a class's name.
NAME = "name of "


class Suggests(Protocol):
    """The part of Optuna's trial that an encoding uses."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of the choices."""
        ...

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Choose an integer from low to high, both included."""
        ...


class SlotEncoding:
    """Encodes a set by the pattern and the words of each of its templates, as categorical parameters.

    The parameters are `size`, and for each template `pattern`, one `[slot]` for each slot of the pattern, or `template`
    (the index of a template that comes from no grammar). In ensembles their names begin with `1.`, `2.` and so on. The
    parameter `name of CLASS` exists for classes with several names. Equal sets have the same encoding.

    Args:
        space: The space of sets.
        ensemble: Largest number of templates in a set; by default the space's.
    """

    def __init__(self, space: Space, ensemble: int | None = None) -> None:
        self.space = space
        self.ensemble = space.ensemble if ensemble is None else ensemble
        self.names: Names | None = None
        self._distributions: dict[str, BaseDistribution] = {}

    @property
    def conditional(self) -> bool:
        """Whether some parameters exist only for certain values of others."""
        grammar = self.space.grammar
        if self.ensemble > 1:
            return True
        if grammar is None:
            return False
        slots = {frozenset(grammar.slots_of(i)) for i in range(len(grammar.patterns))}
        return len(slots) > 1 or bool(self.space.plain)

    def suggest(self, trial: Suggests) -> PromptSet:
        """Let a trial's sampler choose a set."""
        size = 1
        if self.ensemble > 1:
            size = trial.suggest_int("size", 1, self.ensemble)
        found = PromptSet(self.space.template(self._choose(trial, m)) for m in range(size))
        if self.names is None:
            return found
        names = list(self.names.own)
        for c in self.names.free:
            key = f"{NAME}{names[c]}"
            names[c] = trial.suggest_categorical(key, self._distribution(key).choices)  # type: ignore[attr-defined]
        return self.names.named(found, names)

    def params(self, prompt_set: PromptSet) -> dict[str, Any] | None:
        """Return the parameters of a set, or None if it does not belong to the space."""
        named: dict[str, Any] = {}
        if self.names is not None:
            if prompt_set.phrases is not None and prompt_set.class_names is None:
                return None
            given = prompt_set.class_names or self.names.own
            if any(given[c] not in self.names.choices(c) for c in range(len(given))):
                return None
            named = {f"{NAME}{self.names.own[c]}": given[c] for c in self.names.free}
            prompt_set = self.names.named(prompt_set, self.names.own)
        if not self.space.holds(prompt_set):
            return None
        params: dict[str, Any] = {"size": prompt_set.size} if self.ensemble > 1 else {}
        for m, template in enumerate(prompt_set.templates):
            choice = self.space.choice_of(template)
            if choice is None:
                return None
            params |= self._member(choice, m)
        return params | named

    def recall(self, params: Mapping[str, Any]) -> PromptSet | None:
        """Return the set with these parameters, the inverse of `params`, or None if they belong to another space."""
        try:
            members = range(int(params.get("size", 1)))
            found = PromptSet(self.space.template(self._choice(params, m)) for m in members)
            if self.names is None:
                return found
            return self.names.named(found, [params.get(f"{NAME}{own}", own) for own in self.names.own])
        except (KeyError, ValueError):  # the latter includes InputError
            return None

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the Optuna distribution of each parameter, which a recorded trial must have."""
        return {name: self._distribution(name) for name in params}

    def _choose(self, trial: Suggests, member: int) -> Choice:
        grammar = self.space.grammar

        def pick(name: str) -> Any:
            return trial.suggest_categorical(name, self._distribution(name).choices)  # type: ignore[attr-defined]

        prefix = self._prefix(member)
        if grammar is None:
            return None, {"template": pick(f"{prefix}template")}
        pattern = pick(f"{prefix}pattern")
        if pattern == PLAIN:
            return None, {"template": pick(f"{prefix}template")}
        at = grammar.patterns.index(pattern)
        return at, {s: grammar.slots[s].index(pick(f"{prefix}[{s}]")) for s in grammar.slots_of(at)}

    def _member(self, choice: Choice, member: int) -> dict[str, Any]:
        grammar, prefix = self.space.grammar, self._prefix(member)
        pattern, words = choice
        if pattern is None:
            head = {} if grammar is None else {f"{prefix}pattern": PLAIN}
            return {**head, f"{prefix}template": words["template"]}
        assert grammar is not None  # only a grammar has patterns
        slots = {f"{prefix}[{s}]": grammar.slots[s][words[s]] for s in grammar.slots_of(pattern)}
        return {f"{prefix}pattern": grammar.patterns[pattern], **slots}

    def _choice(self, params: Mapping[str, Any], member: int) -> Choice:
        grammar, prefix = self.space.grammar, self._prefix(member)
        if grammar is None or params[f"{prefix}pattern"] == PLAIN:
            return None, {"template": int(params[f"{prefix}template"])}
        pattern = grammar.patterns.index(params[f"{prefix}pattern"])
        return pattern, {s: grammar.slots[s].index(params[f"{prefix}[{s}]"]) for s in grammar.slots_of(pattern)}

    def _prefix(self, member: int) -> str:
        return f"{member + 1}." if self.ensemble > 1 else ""

    def _distribution(self, name: str) -> BaseDistribution:
        if name not in self._distributions:
            from optuna.distributions import CategoricalDistribution, IntDistribution

            grammar, kind = self.space.grammar, name.rpartition(".")[2] if self.ensemble > 1 else name
            made: BaseDistribution
            if self.names is not None and name.startswith(NAME):
                made = CategoricalDistribution(self.names.choices(self.names.own.index(name[len(NAME) :])))
            elif name == "size":
                made = IntDistribution(1, self.ensemble)
            elif kind == "template" or grammar is None:
                made = CategoricalDistribution(range(len(self.space.plain)))
            elif kind == "pattern":
                made = CategoricalDistribution([*grammar.patterns, *([PLAIN] if self.space.plain else [])])
            else:
                made = CategoricalDistribution(grammar.slots[kind[1:-1]])
            self._distributions[name] = made
        return self._distributions[name]


class KeyEncoding:
    """Encodes a set by one number from 0 to 1 per template, for samplers that need numbers (CMA-ES, quasi-random).

    The set has the templates with numbers above 0.5, at most `ensemble` of them, or else the one with the largest.

    Args:
        space: The space of sets.
    """

    #: Largest number of templates, that is of dimensions.
    MOST = 256

    def __init__(self, space: Space) -> None:
        self.space = space

    def suggest(self, trial: optuna.Trial) -> PromptSet:
        """Let a trial's sampler choose a set."""
        templates = self.space.bank.templates
        keys = [trial.suggest_float(f"t{i}", 0.0, 1.0) for i in range(len(templates))]
        ranked = sorted(range(len(templates)), key=lambda i: (-keys[i], i))[: self.space.ensemble]
        above = [i for i in ranked if keys[i] > 0.5] or ranked[:1]
        return PromptSet(templates[i] for i in above)
