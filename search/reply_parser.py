"""Reads templates out of a language model's raw replies.

Replies are untrusted: they are truncated, cleaned and checked here, and never formatted or evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from promptsearch.banks import Template
from promptsearch.banks.template import why_invalid
from promptsearch.search.proposers.prompts import LABELS

#: Largest number of characters and lines of a reply that are read.
READ, LINES = 4000, 40
#: Largest number of characters of a proposed template.
MOST = 160

EMPTY, NO_PLACE, PLACES, UNPRINTABLE, LONG, NAMED, SEEN, TOKENS, OTHER, CUT, REFUSED, TOOL_CALL, NO_TEXT = (
    "empty reply",
    "no {}",
    "more than one {}",
    "not printable",
    "too long",
    "names a class",
    "seen before",
    "too many tokens for the model",
    "stray brace",
    "cut off",
    "refused",
    "tool call",
    "no text",
)
#: Marks an answer without text, as lm/server_reply.py writes it, with the reason and the server's own words.
_WITHOUT_TEXT = re.compile(rf"<({REFUSED}|{TOOL_CALL}|{NO_TEXT})>(.*)", re.DOTALL)

_BULLET = re.compile(r"^(?:\(?\d{1,3}[.):]|[-*•–>])\s+")
_LABEL = re.compile(
    r"^(?:"
    + "|".join(re.escape(v) for v in LABELS.values())
    + r"|(?:(?:new|better|good|bad|revised|rewritten|final|shorter)\s+)?(?:caption|template|prompt|answer)"
    + r"|better|good|bad)\s*:\s*",
    re.IGNORECASE,
)
_QUOTES = ('""', "''", "``", "“”", "‘’", "«»", "**", "__")
_THING = r"(?:the |an? )?(?:class|object|subject|noun|name|item|label|thing|category|animal)(?:[ _-]?name)?s?"
_ODD_PLACE = re.compile(rf"\{{\{{[^{{}}]{{0,30}}\}}\}}|\{{[^{{}}]{{1,30}}\}}|[\[<]{_THING}[\]>]|_{{3,}}", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """A template, or the reason why there is none.

    Attributes:
        template: The template, or None.
        reason: Why there is none.
        repaired: Whether the template was changed to make it valid.
        said: What the server of the language model said instead of an answer.
    """

    template: Template | None
    reason: str = ""
    repaired: bool = False
    said: str = ""


#: The marks by which models delimit reasoning: tags, brackets, and the channels of gpt-oss.
_WORD = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|inner_monologue)"
_BEGINS = re.compile(
    rf"<{_WORD}>|\[{_WORD}\]|◁think▷|<\|begin_of_thought\|>|<unused94>|<\|START_THINKING\|>"
    r"|<\|channel\|>(?:analysis|commentary)",
    re.IGNORECASE,
)
_ENDS = re.compile(
    rf"</{_WORD}>|\[/{_WORD}\]|◁/think▷|<\|end_of_thought\|>|<unused95>|<\|END_THINKING\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?",
    re.IGNORECASE,
)


def without_thoughts(reply: str) -> str | None:
    """Return the answer in a reply without reasoning, or None if the reply was truncated before the answer."""
    ends = list(_ENDS.finditer(reply))
    answer = reply[ends[-1].end() :] if ends else reply
    begins = _BEGINS.search(answer)
    if begins is None:
        return answer
    return answer[: begins.start()] if answer[: begins.start()].strip() else None


class ProposalFilter:
    """Reads templates out of raw replies, by the same rules for every proposer.

        read = ProposalFilter(class_names=["cat", "dog"]).read
        print(read('1. "a photo of a {object}."').template)  # a photo of a {}.
        print(read("a photo of a {} and a dog").reason)      # names a class

    The first line that contains a template is read; later lines are ignored.

    Args:
        class_names: Class names, which a template must not contain.
    """

    def __init__(self, class_names: Sequence[str] = ()) -> None:
        words = [r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", n.strip()))) for n in class_names if n.strip()]
        self._named = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?:s|es)?(?!\w)", re.IGNORECASE) if words else None

    def read(self, reply: str) -> Verdict:
        """Return the template in a reply, or the reason why there is none."""
        if without := _WITHOUT_TEXT.match(reply):
            return Verdict(None, without[1], said=without[2][:READ])
        first: Verdict | None = None
        answer = without_thoughts(reply)
        if answer is None:
            return Verdict(None, CUT)
        for line in answer[:READ].splitlines()[:LINES]:
            verdict = self._line(line)
            if verdict.template is not None:
                return verdict
            if verdict.reason != EMPTY and (first is None or (first.reason == NO_PLACE != verdict.reason)):
                first = verdict
        return first or Verdict(None, EMPTY)

    def _line(self, line: str) -> Verdict:
        text = _clean(line)
        if not text:
            return Verdict(None, EMPTY)
        if "{}" not in text:
            text = _ODD_PLACE.sub("{}", text)
        elif "{{}}" in text:
            text = text.replace("{{}}", "{}")
        if not text.isprintable():
            return Verdict(None, UNPRINTABLE)
        if "{}" not in text:
            return Verdict(None, NO_PLACE)
        if text.count("{}") > 1:
            return Verdict(None, PLACES)
        if len(text) > MOST:
            return Verdict(None, LONG)
        if why_invalid(text):
            return Verdict(None, OTHER)
        if self._named is not None and self._named.search(text):
            return Verdict(None, NAMED)
        return Verdict(Template(text), repaired=text != line.strip())


def _clean(line: str) -> str:
    """Remove bullets, labels, surrounding quotes and repeated spaces."""
    text = " ".join(line.split())
    while True:
        before = text
        text = _LABEL.sub("", _BULLET.sub("", text))
        for pair in _QUOTES:
            if len(text) > 2 and text.startswith(pair[0]) and text.endswith(pair[1]):
                text = text[1:-1].strip()
        if text == before:
            return text
