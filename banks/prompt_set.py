"""Prompt sets: ensembles of templates and phrases, which are the result of a search."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from promptsearch.banks.bank import fill, why_no_phrase
from promptsearch.banks.template import Template, shorten, why_no_class_name
from promptsearch.errors import InputError

_KEYS = ("templates", "weights", "class_names", "phrases")

#: The phrases of one class with weights that sum to 1, in descending order of weight.
Phrases = tuple[tuple[str, float], ...]


class PromptSet:
    """An immutable prompt ensemble: (weighted) templates × (weighted) phrases of each class, in canonical order.

        prompts = PromptSet.of("a photo of a {}.").add("a sketch of a {}.")
        print(prompts.size, prompts.key, [t.fill("cat") for t in prompts.templates])

    Args:
        templates: At least one template; they are sorted, and repeated ones are merged.
        weights: A positive number for each template, in the given order; weights of repeated templates are added.
        class_names: One name for each class, in the order of the task's classes.
        phrases: Instead of `class_names`, for each class a mapping from phrases to positive weights, or a list of
            phrases with equal weights.

    Attributes:
        templates: The sorted templates.
        weights: Their weights, or None if they are equal.
        phrases: The phrases of each class with their weights; None for the task's own class names.

    Raises:
        InputError: There is no template, or a template, weight, class name or phrase is invalid.
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
        """Make an unweighted ensemble of templates."""
        return cls(templates)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptSet:
        """Make a prompt set from the result of `to_dict`.

        Raises:
            InputError: The data has another form.
        """
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
        """Make the prompt set of a row of a result document, ignoring the row's figures."""
        return cls.from_dict({k: row[k] for k in _KEYS if k in row})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict without the attributes that are None."""
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
        """The phrase of each class, or None if there are no phrases or a class has several."""
        if self.phrases is None or any(len(of_class) > 1 for of_class in self.phrases):
            return None
        return tuple(phrase for ((phrase, _),) in self.phrases)

    def phrases_of(self, own: Sequence[str]) -> tuple[Phrases, ...]:
        """Return the phrases of each class with their weights; `own` are the task's names, used if there are none."""
        return self.phrases if self.phrases is not None else tuple(((name, 1.0),) for name in own)

    def texts(self, template: Template, own: Sequence[str]) -> list[list[str]]:
        """Fill a template with the phrases of each class.

        Args:
            template: The template.
            own: The task's class names, used if the set has no phrases.

        Returns:
            The prompts of each class.
        """
        if self.phrases is None:
            return [[template.fill(name)] for name in own]
        return [[fill(template, phrase) for phrase, _ in of_class] for of_class in self.phrases]

    def prompts_of(self, own: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Return the prompts of each class with their shares, which sum to 1: each of its phrases in every template.

        Args:
            own: The task's class names, used if the set has no phrases.
        """
        weights = self.weights or (1.0,) * self.size
        total = sum(weights)
        shares: list[dict[str, float]] = [{} for _ in own]
        for template, weight in zip(self.templates, weights, strict=True):
            texts = self.texts(template, own)
            for c, phrases in enumerate(self.phrases_of(own)):
                for text, (_, share) in zip(texts[c], phrases, strict=True):  # a sentence is the same in every template
                    shares[c][text] = shares[c].get(text, 0.0) + weight * share / total
        return [list(of_class.items()) for of_class in shares]

    def saying(self, phrases: Sequence[Mapping[str, float] | Sequence[str]] | None) -> PromptSet:
        """Return the same templates with other phrases; None for the task's own class names."""
        return self._make(self.templates, self.weights, _said(None, phrases))

    def saying_as(self, other: PromptSet) -> PromptSet:
        """Return the same templates with the phrases of another set."""
        return self._make(self.templates, self.weights, other.phrases)

    @property
    def size(self) -> int:
        """Number of templates."""
        return len(self.templates)

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the content's SHA-256, which are the same in every process."""
        if self._key is None:
            canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_key", hashlib.sha256(canonical.encode()).hexdigest()[:16])
        return self._key  # type: ignore[return-value]

    def add(self, template: str) -> PromptSet:
        """Return the set with one more template, which gets the mean weight; the set itself if it contains it."""
        template = Template(template)
        at = bisect_left(self.templates, template)
        if at < len(self.templates) and self.templates[at] == template:
            return self
        weights = self.weights
        if weights is not None:
            weights = (*weights[:at], sum(weights) / len(weights), *weights[at:])
        return self._make((*self.templates[:at], template, *self.templates[at:]), weights, self.phrases)

    def grown(self, templates: Iterable[Template]) -> Iterator[PromptSet]:
        """Yield what `add` returns for each template that is not in the set."""
        own, known = self.templates, set(self.templates)
        begins = [own[:i] for i in range(len(own) + 1)]
        ends = [own[i:] for i in range(len(own) + 1)]
        for template in templates:
            if template in known:
                continue
            if self.weights is not None:
                yield self.add(template)
                continue
            at = bisect_left(own, template)
            yield self._make((*begins[at], template, *ends[at]), None, self.phrases)

    def remove(self, template: str) -> PromptSet:
        """Return the set without one template.

        Raises:
            InputError: The template is not in the set, or is the only one.
        """
        at = self._at(template)
        if self.size == 1:
            raise InputError(f"the only template of a prompt set: {shorten(template)}; replace it instead")
        weights = self.weights
        if weights is not None:
            weights = (*weights[:at], *weights[at + 1 :])
        return self._make((*self.templates[:at], *self.templates[at + 1 :]), weights, self.phrases)

    def replace(self, old: str, new: str) -> PromptSet:
        """Return the set with `new` in the place of `old`, with the same weight.

        Raises:
            InputError: `old` is not in the set.
        """
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
        """Make a set from valid, sorted parts without checks, because searches make hundreds of thousands of sets."""
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
    """Return the phrases of each class from class names or phrases."""
    if phrases is None:
        names = _names(class_names)
        return None if names is None else tuple(((name, 1.0),) for name in names)
    if class_names is not None:
        raise InputError("class names and phrases in one prompt set; a name is a phrase: give phrases alone")
    if isinstance(phrases, (str, Mapping)) or not isinstance(phrases, Sequence) or not phrases:
        raise InputError(f"phrases must be a list: {shorten(phrases)}; give the phrases of each class")
    return tuple(_weighted(of_class) for of_class in phrases)


def _weighted(of_class: Mapping[str, float] | Sequence[str]) -> Phrases:
    """Return the phrases of one class in canonical order: by descending weight, then alphabetically."""
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
    if abs(total - 1) < 1e-9:  # do not divide again, so that saved weights keep their bits
        total = 1.0
    return tuple(sorted(((t, n / total) for t, n in zip(texts, numbers, strict=True)), key=lambda r: (-r[1], r[0])))


def _mappings(phrases: tuple[Phrases, ...] | None) -> list[dict[str, float]] | None:
    return None if phrases is None else [dict(of_class) for of_class in phrases]
