"""Requests for one new template, which a proposer makes from existing templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

#: Ways of changing one template.
MUTATIONS = ("paraphrase", "specific", "shorter", "medium", "condition")
#: All kinds of requests: mutations of one parent, a crossover of two parents, and a better template than those shown
#: (with their scores for "history", or as `good` and `bad` ones for "better").
KINDS = (*MUTATIONS, "crossover", "history", "better")


@dataclass(frozen=True)
class Request:
    """A request for one template.

        Request("shorter", ("a dark photo of a {} at night.",))
        Request("history", scores=((52, "a photo of a {}."), (77, "a dark photo of a {}.")))

    Attributes:
        kind: one of `KINDS`.
        parents: one template for a mutation, two for a crossover.
        scores: for "history", (score in per cent, template), best last.
        good, bad: for "better", templates, best last.
        seen: templates that were tried before; a reply that repeats one is rejected.
    """

    kind: str
    parents: tuple[str, ...] = ()
    scores: tuple[tuple[int, str], ...] = ()
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    seen: frozenset[str] = field(default=frozenset(), repr=False)

    def smaller(self) -> Request | None:
        """Return this request with about half as many templates shown, or None if it shows only one.

        The smaller request is used if the prompt does not fit into the language model's context.
        """
        if len(self.scores) > 1:
            return replace(self, scores=self.scores[len(self.scores) // 2 :])
        if len(self.good) > 1 or self.bad:
            keep = max(1, len(self.good) // 2)
            return replace(self, scores=(), good=self.good[-keep:], bad=self.bad[len(self.bad) // 2 + 1 :])
        return None


class Proposer(Protocol):
    """Writes templates on request.  Its replies are raw text, which may contain anything.

    proposer.propose([Request("shorter", ("a dark photo of a {} at night.",))], seed=0)  # ["a dark {}."]
    """

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """Return one raw reply per request.

        Args:
            requests: The requests.
            seed: Seed of the replies; the same seed and requests give the same replies if the model is deterministic.
        """
        ...
