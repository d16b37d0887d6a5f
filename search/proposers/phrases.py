"""Words for classes that a language model writes: other names, and descriptions of what a thing looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from promptsearch.search.proposers.language import WrittenLine

#: What a model is shown: (thing, answers), none of them a class of CIFAR or PACS.
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
#: Kinds of phrases: the label of a line, what stands above all, the examples, and the most words.
KINDS: Mapping[str, tuple[str, str, tuple[tuple[str, str], ...], int]] = {
    "names": ("Other word", "Words that mean the same thing.", NAMES, 3),
    "looks": ("Looks like", "Things, and what they look like in a picture.", LOOKS, 12),
}


class PhraseModel(Protocol):
    """A language model whose lines are held to rules while they are written."""

    def write_phrases(
        self, prompts: Sequence[str], seed: int, *, words: int, names: Sequence[Sequence[str]], continuations: int
    ) -> Sequence[Sequence[WrittenLine]]:
        """Lines of at most so many words for each prompt, the likeliest first; none holds one of its prompt's names."""
        ...


class PhraseWriter:
    """Writes phrases for classes by a language model: what a phrase bank is made of.

        writer = PhraseWriter(LocalModel(locate("smollm2")))
        print(writer.write(["cat", "ship"], "looks", each=2)["cat"])  # ('cat, a small animal with soft fur', …)

    A description becomes "name, description".  What two classes would have in common goes to neither.
    """

    def __init__(self, model: PhraseModel) -> None:
        self.model = model

    def write(
        self, class_names: Sequence[str], kind: str, *, each: int = 2, seed: int = 0
    ) -> dict[str, tuple[str, ...]]:
        """Phrases of one kind for every class.

        Args:
            class_names: the classes of a task; a phrase names none of the others.
            kind: one of `KINDS`.
            each: how many a class gets at most.
            seed: what the draws depend on.

        Returns:
            For each class name its phrases, the likeliest first; none where nothing new was written.
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
    """The texts of lines without their full stops, each once; the class name alone is none."""
    texts = (re.sub(r"[.,]+$", "", line.text) for line in lines)
    return [t for t in dict.fromkeys(texts) if t and t != name]


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Phrases of several kinds as one mapping; classes without any are left out."""
    result: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for name, phrases in part.items():
            if phrases:
                result[name] = (*result.get(name, ()), *phrases)
    return result
