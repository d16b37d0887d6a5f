"""The forms of prompts for a language model, and a measure of how well a model answers a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from promptsearch.search.proposers.prompts import EXAMPLES, completion, conversation, few_shot
from promptsearch.search.proposers.request import Proposer, Request
from promptsearch.search.reply_parser import ProposalFilter

#: OWN has examples of the request's kind and a line to complete; FEW_SHOT has examples of all kinds and a line to
#: complete, the same examples for all requests; CHAT is an instruction in a conversation.
OWN, FEW_SHOT, CHAT = "own examples", "few-shot", "chat"
FORMS: Mapping[str, Callable[[Request, int], Any]] = {OWN: completion, FEW_SHOT: few_shot, CHAT: conversation}
#: Templates on which the forms are tried.
TRIED = (
    "a photo of a {} on a rainy day.",
    "a black and white picture of the {}.",
    "a {} seen through a window.",
)


def trial_requests() -> list[Request]:
    """Return the requests that measure a form: every kind of change, for each template in `TRIED`."""
    single = [Request(kind, (t,)) for kind in EXAMPLES if kind != "crossover" for t in TRIED]
    return [*single, *(Request("crossover", (one, two)) for one, two in zip(TRIED, TRIED[1:], strict=False))]


def measure(proposer: Proposer) -> float:
    """Return the share of `trial_requests()` that a proposer answers with a new template, from 0 to 1."""
    asked = trial_requests()
    read = ProposalFilter().read
    known = {*TRIED, *(answer for some in EXAMPLES.values() for _, answer in some)}
    new: set[str] = set()
    for reply in proposer.propose(asked, 0):
        template = read(reply).template
        if template is not None and template not in known:
            new.add(template)
    return len(new) / len(asked)
