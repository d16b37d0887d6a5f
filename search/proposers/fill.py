"""The proposer that fills gaps: it replaces a word of a good template by a likely one from a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from promptsearch.search.proposers.language import WrittenLine
from promptsearch.search.proposers.request import Request

#: The text before a template that is rated: templates of several kinds, so that the model reads `{}` as a noun.
CONTEXT = (
    "Captions of pictures; {} stands for the object.",
    "a photo of a {}.",
    "a dark picture of the {} at night.",
    "an oil painting of a small {} in the snow.",
    "a {} seen from far away.",
)
#: The kinds of gaps and their probabilities: a word removed, a place between two words, two words removed.
WAYS = {"replace": 5, "insert": 3, "shorten": 2}


@runtime_checkable
class GapModel(Protocol):
    """A language model that fills gaps."""

    def fill(
        self, gaps: Sequence[tuple[str, str]], seed: int, *, context: str = "", names: Sequence[str] = ()
    ) -> Sequence[Sequence[WrittenLine]]:
        """Return for each gap the text with likely words filled in, the likeliest first; none contains a class name."""
        ...


class FillProposer:
    """Answers every kind of request with a small edit: it makes a gap in a parent and fills it.

        proposer = FillProposer(LocalModel(locate("smollm2")), ["cat", "dog"])
        print(proposer.propose([Request("condition", ("a dark photo of a {} at night.",))], seed=0))

    The gap is a removed word or a place between two words.  The model draws words that continue the text before the
    gap, and rates each resulting template as a whole; one of the new templates is drawn by this rating.  A crossover
    joins the part before `{}` of one parent to the part after it of the other, and then fills a gap as well.
    """

    def __init__(self, model: GapModel, class_names: Sequence[str] = ()) -> None:
        self.model, self.class_names = model, tuple(class_names)

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """Return one template per request, or the parent itself if no new template was found."""
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
    """Return the template to edit: a parent, one of the best shown, or two parents joined."""
    parents = request.parents or tuple(t for _, t in request.scores[-4:]) or request.good
    if request.kind == "crossover" and len(parents) > 1:
        one, two = (parents[i] for i in rng.permutation(len(parents))[:2])
        return one.partition("{}")[0] + "{}" + two.partition("{}")[2]
    return parents[int(rng.integers(len(parents)))]


def _gap(template: str, rng: np.random.Generator) -> tuple[str, str]:
    """Make a gap in a template that leaves `{}` in place, and return the texts before and after it."""
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
    # remove the word but keep the full stop or comma after it
    tail = "".join(c for c in words[behind - 1][-1:] if c in ".,")
    rest = " ".join(words[behind:])
    return " ".join(words[:at]), f"{tail} {rest}".strip() if tail else rest


def _drawn(lines: Sequence[WrittenLine], rng: np.random.Generator) -> str:
    """Draw one of the lines, each with a probability in proportion to its likelihood as a whole."""
    totals = np.array([line.likelihood * (1 + len(line.text.split())) for line in lines])
    share = np.exp(totals - totals.max())
    return lines[int(rng.choice(len(lines), p=share / share.sum()))].text
