"""Phrases for classes from a language model: other names, and descriptions of what a thing looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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

    A description becomes "name, description".  A phrase that two classes would share is given to neither.
    """

    def __init__(self, model: PhraseModel) -> None:
        self.model = model

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
        found = [_distinct(some, n) for some, n in zip(lines, plain, strict=True)]
        owners: dict[str, int] = {}
        for phrases in found:
            for p in phrases:
                owners[p] = owners.get(p, 0) + 1
        result = {}
        for name, n, phrases in zip(class_names, plain, found, strict=True):
            own = [p for p in phrases if owners[p] == 1][:each]
            result[name] = tuple(own if kind == "names" else (f"{n}, {p}" for p in own))
        return result


def _distinct(lines: Sequence[WrittenLine], name: str) -> list[str]:
    """Return the distinct texts of lines without full stops, except the class name alone."""
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
