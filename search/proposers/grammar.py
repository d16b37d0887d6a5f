"""The proposer without a language model, which makes random edits with the slots and words of a bank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.banks import Template
from promptsearch.search.proposers.request import Request
from promptsearch.search.space import Space

#: Largest number of templates whose words are used.
READ = 5000


class GrammarProposer:
    """Answers every kind of request by a random edit, as a baseline for language models.

        proposer = GrammarProposer(Space(bank))
        print(proposer.propose([Request("paraphrase", ("a photo of a {}.",))], seed=0))

    In a template of the bank's grammar one slot is changed. In another template a word is replaced by one that follows
    the same word somewhere in the bank, or the part before or after `{}` by that of a template of the bank. A crossover
    joins the part before `{}` of one parent and the part after it of the other.

    Args:
        space: The space of sets.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        templates = space.bank.templates[:READ]
        self._heads = sorted({t.partition("{}")[0] for t in templates})
        self._tails = sorted({t.partition("{}")[2] for t in templates})
        behind: dict[str, set[str]] = {}
        for t in templates:
            words = ["", *t.split(), ""]
            for one, two in zip(words, words[1:], strict=False):
                behind.setdefault(one, set()).add(two)
        self._behind = {w: sorted(others) for w, others in behind.items()}

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """Return one template per request."""
        return [self._answer(r, np.random.default_rng([seed, i])) for i, r in enumerate(requests)]

    def _answer(self, request: Request, rng: np.random.Generator) -> str:
        parents = request.parents or tuple(t for _, t in request.scores[-4:]) or request.good
        if request.kind in ("crossover", "history", "better") and len(parents) > 1:
            one, two = (parents[i] for i in rng.permutation(len(parents))[:2])
            if request.kind == "crossover" or rng.random() < 0.5:
                return one.partition("{}")[0] + "{}" + two.partition("{}")[2]
        return self._edit(parents[int(rng.integers(len(parents)))], rng)

    def _edit(self, parent: str, rng: np.random.Generator) -> str:
        template = Template(parent)
        choice = self.space.choice_of(template)
        if choice is not None and choice[0] is not None and rng.random() < 0.75:
            near = self.space.edits(template)
            return str(near[int(rng.integers(len(near)))]) if near else parent
        head, _, tail = parent.partition("{}")
        kind = int(rng.integers(3))
        if kind == 0:
            return self._pick(self._heads, rng) + "{}" + tail
        if kind == 1:
            return head + "{}" + self._pick(self._tails, rng)
        words = parent.split()
        at = int(rng.integers(len(words)))
        if "{}" not in words[at]:
            others = [w for w in self._behind.get(words[at - 1] if at else "", ()) if "{}" not in w] or [words[at]]
            words[at] = self._pick(others, rng)
        return " ".join(w for w in words if w)

    @staticmethod
    def _pick(items: Sequence[str], rng: np.random.Generator) -> str:
        return items[int(rng.integers(len(items)))]
