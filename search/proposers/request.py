"""What is asked of a proposer: one new template, made from others in one of a few ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

#: Ways of changing one template.
MUTATIONS = ("paraphrase", "specific", "shorter", "medium", "condition")
#: All kinds of requests: mutations of one parent, a crossover of two, a better one than those shown (with their
#: scores, or as `good` and `bad` ones).
KINDS = (*MUTATIONS, "crossover", "history", "better")


@dataclass(frozen=True)
class Request:
    """One template that is wanted.

        Request("shorter", ("a dark photo of a {} at night.",))
        Request("history", scores=((52, "a photo of a {}."), (77, "a dark photo of a {}.")))

    Attributes:
        kind: one of `KINDS`.
        parents: one template for a mutation, two for a crossover.
        scores: for "history", (score in per cent, template), best last.
        good, bad: for "better", templates, best last.
        seen: templates that are no use because they were tried before, whoever reads them.
    """

    kind: str
    parents: tuple[str, ...] = ()
    scores: tuple[tuple[int, str], ...] = ()
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    seen: frozenset[str] = field(default=frozenset(), repr=False)

    def smaller(self) -> Request | None:
        """The same with fewer templates shown, for a context that is too short; None where none can be spared."""
        if len(self.scores) > 1:
            return replace(self, scores=self.scores[len(self.scores) // 2 :])
        if len(self.good) > 1 or self.bad:
            keep = max(1, len(self.good) // 2)
            return replace(self, scores=(), good=self.good[-keep:], bad=self.bad[len(self.bad) // 2 + 1 :])
        return None


class Proposer(Protocol):
    """Writes templates on request; what it gives back is raw text, which may hold anything.

    proposer.propose([Request("shorter", ("a dark photo of a {} at night.",))], seed=0)  # ["a dark {}."]
    """

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """One raw reply per request; the same seed and requests give the same replies, where that can be had."""
        ...
