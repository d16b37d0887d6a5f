"""The proposer that fills gaps: a word of a good template gives way to one that a language model holds likely there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from promptsearch.search.proposers.language import WrittenLine
from promptsearch.search.proposers.request import Request

#: What a template that is rated stands behind: templates of several kinds, so that `{}` is read as a noun.
CONTEXT = (
    "Captions of pictures; {} stands for the object.",
    "a photo of a {}.",
    "a dark picture of the {} at night.",
    "an oil painting of a small {} in the snow.",
    "a {} seen from far away.",
)
#: How a gap is made, with its share: a word taken out, a place between two words, two words taken out.
WAYS = {"replace": 5, "insert": 3, "shorten": 2}


@runtime_checkable
class GapModel(Protocol):
    """A language model that fills gaps."""

    def fill(
        self, gaps: Sequence[tuple[str, str]], seed: int, *, context: str = "", names: Sequence[str] = ()
    ) -> Sequence[Sequence[WrittenLine]]:
        """For each gap between two texts, the texts joined by a likely word, the likeliest first; none holds a name."""
        ...


class FillProposer:
    """Answers every kind of request by a small edit of a parent: a gap, filled from the model's own distribution.

        proposer = FillProposer(LocalModel(locate("smollm2")), ["cat", "dog"])
        print(proposer.propose([Request("condition", ("a dark photo of a {} at night.",))], seed=0))

    A word is taken out, or a place between two words is opened; the model draws words for it from what stands before,
    rates each by the whole template, and one is drawn by that rating among those that are new.  A crossover joins the
    part before `{}` of one parent and the part behind it of the other, and then has a gap filled too.
    """

    def __init__(self, model: GapModel, class_names: Sequence[str] = ()) -> None:
        self.model, self.class_names = model, tuple(class_names)

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """One template per request; the parent itself where nothing new fits into its gap."""
        rngs = [np.random.default_rng([seed, i]) for i in range(len(requests))]
        parents = [_parent(r, rng) for r, rng in zip(requests, rngs, strict=True)]
        gaps = [_gap(p, rng) for p, rng in zip(parents, rngs, strict=True)]
        filled = self.model.fill(gaps, seed, context="\n".join(CONTEXT), names=self.class_names)
        taken: set[str] = set()
        replies = []
        for request, parent, lines, rng in zip(requests, parents, filled, rngs, strict=True):
            no_use = {*request.parents, *request.seen, *taken, parent}
            new = [line for line in lines if line.text not in no_use]
            reply = _drawn(new, rng) if new else parent
            taken.add(reply)
            replies.append(reply)
        return replies


def _parent(request: Request, rng: np.random.Generator) -> str:
    """The template that is edited: a parent, one of the best shown, or two parents joined."""
    parents = request.parents or tuple(t for _, t in request.scores[-4:]) or request.good
    if request.kind == "crossover" and len(parents) > 1:
        one, two = (parents[i] for i in rng.permutation(len(parents))[:2])
        return one.partition("{}")[0] + "{}" + two.partition("{}")[2]
    return parents[int(rng.integers(len(parents)))]


def _gap(template: str, rng: np.random.Generator) -> tuple[str, str]:
    """What stands before and behind a gap that is made in a template; `{}` stays."""
    words = template.split()
    shares = np.array(list(WAYS.values())) / sum(WAYS.values())
    way = list(WAYS)[int(rng.choice(len(WAYS), p=shares))]
    free = [i for i, w in enumerate(words) if "{}" not in w]
    if way == "insert" or not free:
        at = int(rng.integers(len(words) + 1))
        at = min(at, len(words) - 1) if words[-1].endswith(".") else at
        return " ".join(words[:at]), " ".join(words[at:])
    at = free[int(rng.integers(len(free)))]
    behind = at + 2 if way == "shorten" and at + 1 in free else at + 1
    tail = "".join(c for c in words[behind - 1][-1:] if c in ".,")  # the word goes, its full stop or comma stays
    rest = " ".join(words[behind:])
    return " ".join(words[:at]), f"{tail} {rest}".strip() if tail else rest


def _drawn(lines: Sequence[WrittenLine], rng: np.random.Generator) -> str:
    """One of the lines, drawn by how likely each is as a whole."""
    totals = np.array([line.likelihood * (1 + len(line.text.split())) for line in lines])
    share = np.exp(totals - totals.max())
    return lines[int(rng.choice(len(lines), p=share / share.sum()))].text
