"""A prompt ensemble as a value: the one thing that is searched for."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from promptsearch.banks.phrases import fill, why_no_phrase
from promptsearch.banks.template import Template, shorten, why_no_class_name
from promptsearch.errors import InputError

_KEYS = ("templates", "weights", "class_names", "phrases")

#: What one class is called or described by, with weights that add up to one; the largest first.
Phrases = tuple[tuple[str, float], ...]


class PromptSet:
    """(Weighted) templates × (weighted) phrases of each class, in one canonical order; equal contents are equal.

        prompts = PromptSet.of("a photo of a {}.").add("a sketch of a {}.")
        print(prompts.size, prompts.key, [t.fill("cat") for t in prompts.templates])

    Args:
        templates: at least one; repeats are dropped, the rest is sorted.
        weights: one finite positive number per template, in its order; a repeated template's weights add up.
        class_names: the name to fill in for each class, in the order of the task's classes: one phrase each.
        phrases: instead of that, for each class what it is called or described by: a mapping of phrases to positive
            weights, or a list of phrases that count alike.

    Attributes:
        phrases: for each class its phrases with their weights, or None: the task's own class names.

    Raises:
        InputError: no template, an invalid one, weights, class names or phrases that do not fit.
    """

    __slots__ = ("_hash", "_key", "phrases", "templates", "weights")

    templates: tuple[Template, ...]
    weights: tuple[float, ...] | None
    phrases: tuple[Phrases, ...] | None
    _hash: int
    _key: str | None

    def __init__(
        self,
        templates: Iterable[str],
        weights: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        phrases: Sequence[Mapping[str, float] | Sequence[str]] | None = None,
    ) -> None:
        if isinstance(templates, str):
            raise InputError(f"templates must be a list: {shorten(templates)}; put it in one")
        items = [Template(t) for t in templates]
        if not items:
            raise InputError("a prompt set without templates; give at least one")
        said = _said(class_names, phrases)
        if weights is None:
            ordered = tuple(sorted(set(items))) if len(items) > 1 else (items[0],)
            self._set(ordered, None, said)
        else:
            total: dict[Template, float] = {}
            for t, w in zip(items, _numbers(weights, len(items)), strict=True):
                total[t] = total.get(t, 0.0) + w
            ordered = tuple(sorted(total))
            self._set(ordered, tuple(total[t] for t in ordered), said)

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
        return cls(templates, data.get("weights"), data.get("class_names"), data.get("phrases"))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> PromptSet:
        """The set in a row of a result document, which has figures beside it."""
        return cls.from_dict({k: row[k] for k in _KEYS if k in row})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is None is left out."""
        data: dict[str, Any] = {"templates": [str(t) for t in self.templates]}
        if self.weights is not None:
            data["weights"] = list(self.weights)
        if self.class_names is not None:
            data["class_names"] = list(self.class_names)
        elif self.phrases is not None:
            data["phrases"] = [dict(of_class) for of_class in self.phrases]
        return data

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The one phrase of every class, or None: where there are no phrases, or a class has several."""
        if self.phrases is None or any(len(of_class) > 1 for of_class in self.phrases):
            return None
        return tuple(phrase for ((phrase, _),) in self.phrases)

    def phrases_of(self, own: Sequence[str]) -> tuple[Phrases, ...]:
        """For each class its phrases with their weights; where the set has none, the task's `own` names."""
        return self.phrases if self.phrases is not None else tuple(((name, 1.0),) for name in own)

    def texts(self, template: Template, own: Sequence[str]) -> list[list[str]]:
        """For each class one template filled with its phrases; the task's `own` names where the set has none."""
        if self.phrases is None:
            return [[template.fill(name)] for name in own]
        return [[fill(template, phrase) for phrase, _ in of_class] for of_class in self.phrases]

    def saying(self, phrases: Sequence[Mapping[str, float] | Sequence[str]] | None) -> PromptSet:
        """The same templates with other phrases (None: the task's own class names)."""
        return self._make(self.templates, self.weights, _said(None, phrases))

    def saying_as(self, other: PromptSet) -> PromptSet:
        """The same templates with the phrases of another set."""
        return self._make(self.templates, self.weights, other.phrases)

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
        return self._make((*self.templates[:at], template, *self.templates[at:]), weights, self.phrases)

    def remove(self, template: str) -> PromptSet:
        """Without one template.  Raises InputError when it is not in the set, or the only one in it."""
        at = self._at(template)
        if self.size == 1:
            raise InputError(f"the only template of a prompt set: {shorten(template)}; replace it instead")
        weights = self.weights
        if weights is not None:
            weights = (*weights[:at], *weights[at + 1 :])
        return self._make((*self.templates[:at], *self.templates[at + 1 :]), weights, self.phrases)

    def replace(self, old: str, new: str) -> PromptSet:
        """With `new` in the place (and at the weight) of `old`.  Raises InputError when `old` is not in the set."""
        at = self._at(old)
        return PromptSet(
            (*self.templates[:at], new, *self.templates[at + 1 :]), self.weights, phrases=_mappings(self.phrases)
        )

    def _at(self, template: str) -> int:
        at = bisect_left(self.templates, template)
        if at == len(self.templates) or self.templates[at] != template:
            raise InputError(f"template not in this prompt set: {shorten(template)}; it has {self}")
        return at

    def _set(
        self, templates: tuple[Template, ...], weights: tuple[float, ...] | None, phrases: tuple[Phrases, ...] | None
    ) -> None:
        put = object.__setattr__
        put(self, "templates", templates)
        put(self, "weights", weights)
        put(self, "phrases", phrases)
        put(self, "_hash", hash((templates, weights, phrases)))
        put(self, "_key", None)

    @classmethod
    def _make(
        cls, templates: tuple[Template, ...], weights: tuple[float, ...] | None, phrases: tuple[Phrases, ...] | None
    ) -> PromptSet:
        """From parts that are valid and sorted: searches make hundreds of thousands of sets this way."""
        made = cls.__new__(cls)
        made._set(templates, weights, phrases)
        return made

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"PromptSet is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"PromptSet is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return PromptSet, (self.templates, self.weights, None, _mappings(self.phrases))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PromptSet):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.templates == other.templates
            and self.weights == other.weights
            and self.phrases == other.phrases
        )

    def __str__(self) -> str:
        if self.weights is None:
            text = " | ".join(self.templates)
        else:
            text = " | ".join(f"{w:.3g} × {t}" for w, t in zip(self.weights, self.templates, strict=True))
        if self.phrases is None:
            return text
        return f"{text} (classes: {', '.join(' / '.join(p for p, _ in of_class) for of_class in self.phrases)})"

    def __repr__(self) -> str:
        data = self.to_dict()
        given = [f"{k}={data[k]!r}" for k in _KEYS[1:] if k in data]
        return f"PromptSet({', '.join([repr([str(t) for t in self.templates]), *given])})"


def _numbers(weights: Sequence[float], n: int, what: str = "template") -> list[float]:
    if isinstance(weights, (str, Mapping)):
        raise InputError(f"weights must be a list of numbers: {shorten(weights)}; give one per {what}")
    try:
        numbers = [float(w) for w in weights]
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"weights must be numbers: {shorten(weights)}; give one per {what}") from e
    if len(numbers) != n:
        raise InputError(f"{len(numbers)} weights for {n} {what}s: {shorten(weights)}; give one per {what}")
    for w in numbers:
        if not (math.isfinite(w) and w > 0):
            raise InputError(f"a weight must be positive and finite: {w}; leave the {what} out instead")
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


def _said(
    class_names: Sequence[str] | None, phrases: Sequence[Mapping[str, float] | Sequence[str]] | None
) -> tuple[Phrases, ...] | None:
    """Phrases of each class, from names or from phrases."""
    if phrases is None:
        names = _names(class_names)
        return None if names is None else tuple(((name, 1.0),) for name in names)
    if class_names is not None:
        raise InputError("class names and phrases in one prompt set; a name is a phrase: give phrases alone")
    if isinstance(phrases, (str, Mapping)) or not isinstance(phrases, Sequence) or not phrases:
        raise InputError(f"phrases must be a list: {shorten(phrases)}; give the phrases of each class")
    return tuple(_weighted(of_class) for of_class in phrases)


def _weighted(of_class: Mapping[str, float] | Sequence[str]) -> Phrases:
    """The phrases of one class in canonical order: the largest weight first, then by the alphabet."""
    if isinstance(of_class, str) or not isinstance(of_class, (Mapping, Sequence)) or not of_class:
        raise InputError(f"phrases of a class must be a list or have weights: {shorten(of_class)}; give at least one")
    texts = list(of_class)
    for text in texts:
        if reason := why_no_phrase(text):
            raise InputError(reason)
    if len(set(texts)) < len(texts):
        raise InputError(f"a phrase twice for one class: {shorten(texts)}; remove one")
    given = list(of_class.values()) if isinstance(of_class, Mapping) else [1.0] * len(texts)
    numbers = _numbers(given, len(texts), "phrase")
    total = sum(numbers)
    if abs(total - 1) < 1e-9:  # as they are: what was written is read back to the bit
        total = 1.0
    return tuple(sorted(((t, n / total) for t, n in zip(texts, numbers, strict=True)), key=lambda r: (-r[1], r[0])))


def _mappings(phrases: tuple[Phrases, ...] | None) -> list[dict[str, float]] | None:
    return None if phrases is None else [dict(of_class) for of_class in phrases]
