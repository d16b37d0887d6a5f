"""The proposer that asks a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from promptsearch.search.proposers.forms import CHAT, FEW_SHOT, FORMS, OWN, measure, trial_requests
from promptsearch.search.proposers.request import Request

Prompt = str | list[dict[str, str]]
#: Two requests of different kinds: their prompts share no more text than all prompts do.
DIFFERENT = (
    Request("shorter", ("a {}.",)),
    Request("medium", ("the {}.",)),
    Request("history", scores=((50, "a {}."),)),
    Request("better", good=("my {}.",)),
)
#: Key under which a model's better form is cached; increase the number when `trial_requests` changes.
REMEMBERED = "form 1"


class LanguageModel(Protocol):
    """A language model that completes texts or answers conversations, and counts its calls and tokens.

    Attributes:
        chats: True if it takes conversations (lists of messages), False if it completes texts by one line.
        usage: number of calls so far, and of tokens read and written.
    """

    @property
    def chats(self) -> bool:
        """Return whether the model takes conversations instead of texts to complete."""
        ...

    @property
    def usage(self) -> Mapping[str, int]:
        """Return the number of calls, and of tokens read and written."""
        ...

    def fits(self, prompt: Any) -> bool:
        """Return whether the prompt and an answer fit into the model's context."""
        ...


class WritingModel(LanguageModel, Protocol):
    """A language model whose answers are not constrained, such as one on a server."""

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """Return one answer per prompt.

        Raises:
            PromptSearchError: The model is not available or does not answer.
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
    """A language model in this process, whose lines are constrained while they are generated.

    Attributes:
        embedded: True for the shipped model, which was trained on examples in its own form.
    """

    @property
    def embedded(self) -> bool:
        """Return whether this is the shipped model."""
        ...

    def write_lines(
        self, prompts: Sequence[Any], seed: int, *, names: Sequence[str] = ()
    ) -> Sequence[Sequence[WrittenLine]]:
        """Return several templates for each prompt, the likeliest first; none contains one of the names."""
        ...

    def share(self, prompts: Sequence[Any]) -> None:
        """Cache the model's state after the common beginning of these prompts; later prompts reuse it."""
        ...

    def recall(self, key: str) -> Any:
        """Return the value that any process remembered for this model under a key, or None."""
        ...

    def remember(self, key: str, value: Any) -> None:
        """Store a JSON value for `recall`."""
        ...


AskedModel = WritingModel | LineModel


class LanguageProposer:
    """A proposer that turns requests into prompts for a language model.

        proposer = LanguageProposer(LocalModel(locate("embedded")), ["cat", "dog"])
        print(proposer.propose([Request("shorter", ("a dark photo of a {} at night.",))], seed=0))

    Prompts for a model with a short context have fewer examples.  A model in this process draws several templates for
    each request, and the likeliest new one is returned.  For a model with a chat template, two forms are tried on the
    same requests, a conversation and examples with a line to complete; the form that gives more new templates is used.

    Args:
        model: The language model.
        class_names: Names that no template may contain.
        form: One of `FORMS`; None chooses the form that works better with the model.

    Attributes:
        asked: The form that was used last; None before the first request.
    """

    def __init__(self, model: AskedModel, class_names: Sequence[str] = (), form: str | None = None) -> None:
        self.model, self.class_names = model, tuple(class_names)
        self.asked = form

    @property
    def form(self) -> str:
        """The form of this model's prompts: one of `FORMS`."""
        if self.asked is None:
            self.asked = self._better_form()
        return self.asked

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """Return one raw reply per request; the replies of a local model are templates."""
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
            return CHAT if model.chats else OWN  # a short form, because only the server knows its context length
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
                return prompt  # the model raises an error if this is too long
