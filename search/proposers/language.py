"""The proposer that asks a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from promptsearch.search.proposers.prompts import completion, conversation
from promptsearch.search.proposers.request import Request

Prompt = str | list[dict[str, str]]


class LanguageModel(Protocol):
    """What is asked of a language model: texts to go on with, or conversations, and what that cost.

    Attributes:
        chats: whether it takes conversations (a list of messages each) or texts to complete by one line.
        usage: calls made so far, tokens read and written.
    """

    @property
    def chats(self) -> bool:
        """Whether it takes conversations instead of texts to complete."""
        ...

    @property
    def usage(self) -> Mapping[str, int]:
        """Number of calls, and of tokens read and written."""
        ...

    def fits(self, prompt: Any) -> bool:
        """Whether the prompt and an answer fit into its context."""
        ...

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """One answer per prompt.

        Raises:
            PromptSearchError: it cannot be had, or does not answer.
        """
        ...


class LanguageProposer:
    """Puts requests into words for a language model, with fewer examples where its context is short.

    proposer = LanguageProposer(load_model("embedded"))
    print(proposer.propose([Request("shorter", ("a dark photo of a {} at night.",))], seed=0))
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """Return the model's reply to each request."""
        return self.model.write([self._prompt(r) for r in requests], seed)

    def _prompt(self, request: Request) -> Prompt:
        examples, asked = 3, request
        while True:
            prompt: Prompt = conversation(asked, examples) if self.model.chats else completion(asked, examples)
            if self.model.fits(prompt):
                return prompt
            smaller = asked.smaller()
            if smaller is not None:
                asked = smaller
            elif examples and asked.parents:
                examples -= 1
            else:
                return prompt  # the model says itself what is too long
