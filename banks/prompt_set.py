"""A prompt ensemble as a value: the one thing that is searched for."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from promptsearch.banks.template import Template, shorten, why_no_class_name
from promptsearch.errors import InputError

_KEYS = ("templates", "weights", "class_names")


class PromptSet:
    """Templates used together as an ensemble, in one canonical order; equal contents are equal and hash alike.

        prompts = PromptSet.of("a photo of a {}.").add("a sketch of a {}.")
        print(prompts.size, prompts.key, [t.fill("cat") for t in prompts.templates])

    Args:
        templates: at least one; repeats are dropped, the rest is sorted.
        weights: one finite positive number per template, in its order; a repeated template's weights add up.
        class_names: the name to fill in for each class, in the order of the task's classes.

    Raises:
        InputError: no template, an invalid one, weights or class names that do not fit.
    """

    __slots__ = ("_hash", "_key", "class_names", "templates", "weights")

    templates: tuple[Template, ...]
    weights: tuple[float, ...] | None
    class_names: tuple[str, ...] | None
    _hash: int
    _key: str | None

    def __init__(
        self,
        templates: Iterable[str],
        weights: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if isinstance(templates, str):
            raise InputError(f"templates must be a list: {shorten(templates)}; put it in one")
        items = [Template(t) for t in templates]
        if not items:
            raise InputError("a prompt set without templates; give at least one")
        if weights is None:
            ordered = tuple(sorted(set(items))) if len(items) > 1 else (items[0],)
            self._set(ordered, None, _names(class_names))
        else:
            total: dict[Template, float] = {}
            for t, w in zip(items, _numbers(weights, len(items)), strict=True):
                total[t] = total.get(t, 0.0) + w
            ordered = tuple(sorted(total))
            self._set(ordered, tuple(total[t] for t in ordered), _names(class_names))

    @classmethod
    def of(cls, *templates: str) -> PromptSet:
        """The unweighted ensemble of these templates."""
        return cls(templates)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptSet:
        """What `to_dict` gave.  Raises InputError for anything else."""
        if not isinstance(data, Mapping):
            raise InputError(f"a prompt set must be a mapping: {shorten(data)}; give its templates")
        for key in data:
            if key not in _KEYS:
                raise InputError(f"unknown key in a prompt set: {shorten(key)}; there are {', '.join(_KEYS)}")
        templates = data.get("templates")
        if not isinstance(templates, (list, tuple)):
            raise InputError(f"templates of a prompt set must be a list: {shorten(templates)}; give one")
        return cls(templates, data.get("weights"), data.get("class_names"))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is None is left out."""
        data: dict[str, Any] = {"templates": [str(t) for t in self.templates]}
        if self.weights is not None:
            data["weights"] = list(self.weights)
        if self.class_names is not None:
            data["class_names"] = list(self.class_names)
        return data

    @property
    def size(self) -> int:
        """Number of templates."""
        return len(self.templates)

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the contents' SHA-256: the same in every process."""
        if self._key is None:
            canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_key", hashlib.sha256(canonical.encode()).hexdigest()[:16])
        return self._key  # type: ignore[return-value]

    def add(self, template: str) -> PromptSet:
        """With one more template, at the mean weight where there are weights; itself when that is in it already."""
        template = Template(template)
        at = bisect_left(self.templates, template)
        if at < len(self.templates) and self.templates[at] == template:
            return self
        weights = self.weights
        if weights is not None:
            weights = (*weights[:at], sum(weights) / len(weights), *weights[at:])
        return self._make((*self.templates[:at], template, *self.templates[at:]), weights, self.class_names)

    def remove(self, template: str) -> PromptSet:
        """Without one template.  Raises InputError when it is not in the set, or the only one in it."""
        at = self._at(template)
        if self.size == 1:
            raise InputError(f"the only template of a prompt set: {shorten(template)}; replace it instead")
        weights = self.weights
        if weights is not None:
            weights = (*weights[:at], *weights[at + 1 :])
        return self._make((*self.templates[:at], *self.templates[at + 1 :]), weights, self.class_names)

    def replace(self, old: str, new: str) -> PromptSet:
        """With `new` in the place (and at the weight) of `old`.  Raises InputError when `old` is not in the set."""
        at = self._at(old)
        return PromptSet((*self.templates[:at], new, *self.templates[at + 1 :]), self.weights, self.class_names)

    def _at(self, template: str) -> int:
        at = bisect_left(self.templates, template)
        if at == len(self.templates) or self.templates[at] != template:
            raise InputError(f"template not in this prompt set: {shorten(template)}; it has {self}")
        return at

    def _set(
        self, templates: tuple[Template, ...], weights: tuple[float, ...] | None, class_names: tuple[str, ...] | None
    ) -> None:
        put = object.__setattr__
        put(self, "templates", templates)
        put(self, "weights", weights)
        put(self, "class_names", class_names)
        put(self, "_hash", hash((templates, weights, class_names)))
        put(self, "_key", None)

    @classmethod
    def _make(
        cls, templates: tuple[Template, ...], weights: tuple[float, ...] | None, class_names: tuple[str, ...] | None
    ) -> PromptSet:
        """From parts that are valid and sorted: searches make hundreds of thousands of sets this way."""
        made = cls.__new__(cls)
        made._set(templates, weights, class_names)
        return made

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"PromptSet is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"PromptSet is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return PromptSet, (self.templates, self.weights, self.class_names)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PromptSet):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.templates == other.templates
            and self.weights == other.weights
            and self.class_names == other.class_names
        )

    def __str__(self) -> str:
        if self.weights is None:
            text = " | ".join(self.templates)
        else:
            text = " | ".join(f"{w:.3g} × {t}" for w, t in zip(self.weights, self.templates, strict=True))
        return text if self.class_names is None else f"{text} (classes: {', '.join(self.class_names)})"

    def __repr__(self) -> str:
        given = [f"{k}={v!r}" for k in _KEYS[1:] if (v := getattr(self, k)) is not None]
        return f"PromptSet({', '.join([repr([str(t) for t in self.templates]), *given])})"


def _numbers(weights: Sequence[float], n: int) -> list[float]:
    if isinstance(weights, (str, Mapping)):
        raise InputError(f"weights must be a list of numbers: {shorten(weights)}; give one per template")
    try:
        numbers = [float(w) for w in weights]
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"weights must be numbers: {shorten(weights)}; give one per template") from e
    if len(numbers) != n:
        raise InputError(f"{len(numbers)} weights for {n} templates: {shorten(weights)}; give one per template")
    for w in numbers:
        if not (math.isfinite(w) and w > 0):
            raise InputError(f"a weight must be positive and finite: {w}; leave the template out instead")
    return numbers


def _names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    if isinstance(class_names, str) or not isinstance(class_names, Sequence) or not class_names:
        raise InputError(f"class names must be a list: {shorten(class_names)}; give one name per class")
    for name in class_names:
        if reason := why_no_class_name(name):
            raise InputError(reason)
    return tuple(class_names)
