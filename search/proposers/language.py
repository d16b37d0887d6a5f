"""The proposer that asks a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from promptsearch.search.proposers.forms import CHAT, FEW_SHOT, FORMS, OWN, measure, trial_requests
from promptsearch.search.proposers.request import Request

Prompt = str | list[dict[str, str]]
#: Requests that have nothing in common but what all requests have.
DIFFERENT = (
    Request("shorter", ("a {}.",)),
    Request("medium", ("the {}.",)),
    Request("history", scores=((50, "a {}."),)),
    Request("better", good=("my {}.",)),
)
#: What a model's better form is remembered by; a new number where the requests that it is measured by change.
REMEMBERED = "form 1"


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


class WritingModel(LanguageModel, Protocol):
    """A language model that answers as it likes: a server's."""

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """One answer per prompt.

        Raises:
            PromptSearchError: it cannot be had, or does not answer.
        """
        ...


class WrittenLine(Protocol):
    """A line and its mean log-likelihood per token."""

    @property
    def text(self) -> str:
        """The line."""
        ...

    @property
    def likelihood(self) -> float:
        """Mean log-likelihood per token, in nats."""
        ...


@runtime_checkable
class LineModel(LanguageModel, Protocol):
    """A language model in this process, whose lines are held to rules while they are written.

    Attributes:
        embedded: whether it is the shipped one, which was trained on examples of a form of its own.
    """

    @property
    def embedded(self) -> bool:
        """Whether it is the shipped one."""
        ...

    def write_lines(
        self, prompts: Sequence[Any], seed: int, *, names: Sequence[str] = ()
    ) -> Sequence[Sequence[WrittenLine]]:
        """Several templates for each prompt, the likeliest first; none holds one of the names."""
        ...

    def share(self, prompts: Sequence[Any]) -> None:
        """Keep what these prompts begin with alike for all prompts that begin so."""
        ...

    def recall(self, key: str) -> Any:
        """What was remembered of this model under a key, by whichever process; None where nothing was."""
        ...

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value for `recall`."""
        ...


AskedModel = WritingModel | LineModel


class LanguageProposer:
    """Puts requests into words for a language model, with fewer examples where its context is short.

        proposer = LanguageProposer(LocalModel(locate("embedded")), ["cat", "dog"])
        print(proposer.propose([Request("shorter", ("a dark photo of a {} at night.",))], seed=0))

    A model in this process draws several templates for each request; the likeliest that is new is taken.  One with a
    chat template is asked in the form of which more came back as new templates when both were tried on the same
    requests: a conversation, or examples and a line to complete.

    Args:
        model: who writes.
        class_names: what no template may name.
        form: one of `FORMS`; where it is None, the model's better one.

    Attributes:
        asked: the form that was used; None before anything is asked.
    """

    def __init__(self, model: AskedModel, class_names: Sequence[str] = (), form: str | None = None) -> None:
        self.model, self.class_names = model, tuple(class_names)
        self.asked = form

    @property
    def form(self) -> str:
        """How requests are put to this model: one of `FORMS`."""
        if self.asked is None:
            self.asked = self._better_form()
        return self.asked

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """One raw reply per request; a local model's is a template."""
        if not requests:
            return []
        prompts = [self._prompt(r) for r in requests]
        if not isinstance(self.model, LineModel):
            return self.model.write(prompts, seed)
        self.model.share([FORMS[self.form](r, 3) for r in DIFFERENT])
        lines = self.model.write_lines(prompts, seed, names=self.class_names)
        taken: set[str] = set()
        replies = []
        for request, some in zip(requests, lines, strict=True):
            shown = {*request.parents, *(t for _, t in request.scores), *request.good, *request.bad}
            texts = [line.text for line in some]
            new = [t for t in texts if t not in taken and t not in shown and t not in request.seen]
            reply = next(iter(new or texts), "")
            taken.add(reply)
            replies.append(reply)
        return replies

    def _better_form(self) -> str:
        model = self.model
        if not isinstance(model, LineModel):
            return CHAT if model.chats else OWN  # short: only the server knows its context
        fits = all(model.fits(FORMS[FEW_SHOT](r, 2)) for r in trial_requests())
        line = FEW_SHOT if fits and not model.embedded else OWN  # the embedded model was trained on its own form
        if not model.chats:
            return line
        known = model.recall(REMEMBERED)
        if known not in FORMS:
            shares = {form: measure(LanguageProposer(model, self.class_names, form)) for form in (line, CHAT)}
            known = max(shares, key=lambda form: shares[form])
            model.remember(REMEMBERED, known)
        return str(known)

    def _prompt(self, request: Request) -> Prompt:
        put = FORMS[self.form]
        examples, asked = 3, request
        while True:
            prompt: Prompt = put(asked, examples)
            if self.model.fits(prompt):
                return prompt
            smaller = asked.smaller()
            if smaller is not None:
                asked = smaller
            elif examples and asked.parents:
                examples -= 1
            else:
                return prompt  # the model says itself what is too long
