"""Phrases for classes from a language model: other names, and descriptions of what a thing looks like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from promptsearch.banks.bank import why_no_phrase
from promptsearch.errors import InputError
from promptsearch.search.proposers.language import WrittenLine

#: Examples in the prompts, as (thing, answers); none is a class of CIFAR or PACS.
NAMES = (
    ("sofa", "couch"),
    ("rock", "stone"),
    ("violin", "fiddle"),
    ("spectacles", "glasses"),
    ("cellar", "basement"),
    ("donkey", "ass"),
)
LOOKS = (
    ("zebra", "an animal with black and white stripes"),
    ("umbrella", "a round piece of cloth on a stick"),
    ("violin", "a small wooden instrument with four strings"),
    ("cherry", "a small round red fruit with a stem"),
    ("sofa", "a long soft seat with a back and arms"),
    ("igloo", "a round white house made of blocks of snow"),
)
#: Kinds of phrases: the label of a line, the prompt's first line, the examples, and the largest number of words.
KINDS: Mapping[str, tuple[str, str, tuple[tuple[str, str], ...], int]] = {
    "names": ("Other word", "Words that mean the same thing.", NAMES, 3),
    "looks": ("Looks like", "Things, and what they look like in a picture.", LOOKS, 12),
}


class PhraseModel(Protocol):
    """A language model whose lines are constrained while they are generated."""

    def write_phrases(
        self, prompts: Sequence[str], seed: int, *, words: int, names: Sequence[Sequence[str]], continuations: int
    ) -> Sequence[Sequence[WrittenLine]]:
        """Return lines of a limited number of words for each prompt, the likeliest first; none contains its names."""
        ...


class PhraseWriter:
    """Writes the phrases of a phrase bank with a language model.

        writer = PhraseWriter(LocalModel(locate("smollm2")))
        print(writer.write(["cat", "ship"], "looks", each=2)["cat"])  # ('cat, a small animal with soft fur', …)

    A description becomes "name, description". The writer rejects phrases that are too long for the text tower,
    phrases of two classes, and phrases whose text vector is nearer to another class's name than to that of their own.

    Args:
        model: The language model.
        encode: Encodes texts to unit vectors (n, D), such as `Encoder.encode_texts`; without it the checks that need
            vectors are left out.

    Attributes:
        rejected: Number of phrases rejected so far, by reason.
    """

    def __init__(self, model: PhraseModel, encode: Callable[[Sequence[str]], np.ndarray] | None = None) -> None:
        self.model = model
        self.encode = encode
        self.rejected: Counter[str] = Counter()

    def write(
        self, class_names: Sequence[str], kind: str, *, each: int = 2, seed: int = 0
    ) -> dict[str, tuple[str, ...]]:
        """Write phrases of one kind for every class.

        Args:
            class_names: The classes of a task; a phrase never contains the name of another class.
            kind: One of `KINDS`.
            each: Largest number of phrases per class.
            seed: Seed of the draws.

        Returns:
            For each class name its phrases, the likeliest first; empty if the model wrote nothing new.
        """
        label, head, examples, words = KINDS[kind]
        shots = [f"Thing: {thing}\n{label}: {answer}" for thing, answer in examples]
        plain = [n.replace("_", " ") for n in class_names]
        prompts = ["\n\n".join([head, *shots, f"Thing: {n}\n{label}:"]) for n in plain]
        others = [[m for m in plain if m != n] + ([n] if kind == "names" else []) for n in plain]
        lines = self.model.write_phrases(prompts, seed, words=words, names=others, continuations=4 * each)
        found = [self._valid(_distinct(some, n)) for some, n in zip(lines, plain, strict=True)]
        owners = Counter(p for phrases in found for p in phrases)
        found = [self._kept(phrases, lambda p: owners[p] == 1, "two classes") for phrases in found]
        if self.encode is not None:
            found = self._nearest(plain, found, self.encode)
        return {
            name: tuple(own[:each] if kind == "names" else (f"{n}, {p}" for p in own[:each]))
            for name, n, own in zip(class_names, plain, found, strict=True)
        }

    def _kept(self, phrases: Sequence[str], keep: Callable[[str], bool], reason: str) -> list[str]:
        """Return the phrases to keep, and count the others."""
        kept = [p for p in phrases if keep(p)]
        self.rejected[reason] += len(phrases) - len(kept)
        return kept

    def _valid(self, phrases: Sequence[str]) -> list[str]:
        kept = self._kept(phrases, lambda p: why_no_phrase(p) is None, "not a phrase")
        return self._kept(kept, self._fits, "too long")

    def _fits(self, phrase: str) -> bool:
        if self.encode is not None:
            try:
                self.encode([phrase])
            except InputError:  # `Encoder` raises it for texts that are too long
                return False
        return True

    def _nearest(
        self, plain: Sequence[str], found: Sequence[Sequence[str]], encode: Callable[[Sequence[str]], np.ndarray]
    ) -> list[list[str]]:
        """Return the phrases whose vector is nearest to the name of their own class among all classes."""
        texts = [p for phrases in found for p in phrases]
        if not texts:
            return [[] for _ in found]
        nearest = dict(zip(texts, (encode(texts) @ encode(plain).T).argmax(axis=1).tolist(), strict=True))
        return [
            self._kept(phrases, lambda p, own=i: nearest[p] == own, "another class")  # type: ignore[misc]
            for i, phrases in enumerate(found)
        ]


def _distinct(lines: Sequence[WrittenLine], name: str) -> list[str]:
    """Return the distinct texts of the lines without their full stops, leaving out the class name itself."""
    texts = (re.sub(r"[.,]+$", "", line.text) for line in lines)
    return [t for t in dict.fromkeys(texts) if t and t != name]


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Merge phrases of several kinds into one mapping; classes without phrases are not in it."""
    result: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for name, phrases in part.items():
            if phrases:
                result[name] = (*result.get(name, ()), *phrases)
    return result
