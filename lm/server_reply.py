"""Reads the responses of OpenAI-compatible servers: the written text, or a complaint."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: Values of finish_reason for a truncated answer: OpenAI's, and those of servers that translate other APIs.
CUT_OFF = ("length", "max_tokens", "model_length", "max_output_tokens")
#: Marks truncated reasoning, which search/reply_parser.py does not read as an answer.
THOUGHT = "<think>"
#: Largest number of characters of a complaint that are shown.
SHOWN = 200

#: Reasons why an answer has no text. A reason in angle brackets marks such an answer for search/reply_parser.py.
REFUSED, TOOL_CALL, NO_TEXT = "refused", "tool call", "no text"
#: Values of finish_reason for a withheld answer: OpenAI's, and those of servers that translate other APIs.
WITHHELD = (
    *("content_filter", "content_filtered", "refusal", "safety", "recitation", "blocklist", "prohibited_content"),
    *("spii", "guardrail_intervened", "guardrails", "sensitive"),
)
_FILTERED = re.compile(r"content[ _]?(?:filter|(?:management[ _])?policy)|ResponsibleAIPolicy", re.IGNORECASE)

#: Spellings of the parameters that can be dropped, in the order in which they are dropped.
PARAMETERS = {
    "seed": r"(?:random_)?seed",
    "stop": r"stop(?:_?sequences?)?",
    "top_p": r"top[_ -]?p",
    "temperature": r"temperature",
    "max_tokens": r"(?:max(?:imum)?[_ ]?(?:completion|output|new)?[_ ]?tokens|num_predict)",
}
_NAMED = {k: re.compile(rf"(?<![A-Za-z0-9]){v}(?![A-Za-z0-9])", re.IGNORECASE) for k, v in PARAMETERS.items()}
#: "stop" is also an ordinary word, so it only counts if it is quoted or in a list of names.
_NAMED["stop"] = re.compile(r"""[`'"\[. ]stop(?:_?sequences?)?[`'"\]]|: stop\b|\bstop_?sequences?\b""", re.IGNORECASE)
_REFUSES = re.compile(
    r"unsupported|not[ _]support|unknown|unrecogni[sz]ed|unexpected|invalid|extra|not (?:permitted|allowed|accepted)"
    r"|cannot|drop_params|deprecated|only (?:the )?default",
    re.IGNORECASE,
)
#: Complaints about lasting problems, whatever the status.
_LASTING = re.compile(
    r"insufficient[ _](?:quota|balance|credit|funds)|billing|credit balance|out of credits|payment"
    r"|maximum context|context[ _](?:length|size|window)|prompt is too long"
    r"|model[ _]not[ _](?:found|exist)|invalid[ _]api[ _]key",
    re.IGNORECASE,
)
_RETRY = re.compile(r"\b(?:retry|try again) (?:in|after)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Written:
    """An answer of a server.

    Attributes:
        text: The text; for an answer without text, a mark followed by what the server said instead.
        cut: Whether the answer was truncated.
        read: Number of tokens that the model read.
        written: Number of tokens that the model wrote.
        lacking: Why the answer has no text: `REFUSED`, `TOOL_CALL` or `NO_TEXT`; empty if it has text.
    """

    text: str
    cut: bool = False
    read: int = 0
    written: int = 0
    lacking: str = ""

    @classmethod
    def without_text(cls, lacking: str, said: str, read: int = 0, written: int = 0) -> Written:
        """Return an answer without text.

        Args:
            lacking: Why it has no text: `REFUSED`, `TOOL_CALL` or `NO_TEXT`.
            said: The server's own words.
            read: Number of tokens that the model read.
            written: Number of tokens that the model wrote.
        """
        return cls(f"<{lacking}>{one_line(said)[:SHOWN]}", False, read, written, lacking)


@dataclass(frozen=True)
class Complaint:
    """A server's complaint: its message on one line, and the code, the parameter and the kind if it names them."""

    message: str
    code: int | None = None
    parameter: str = ""
    kind: str = ""

    def refuses(self, sent: Collection[str], status: int) -> str | None:
        """Return the parameter to drop because the server rejects it, or None.

        Args:
            sent: The parameters that were sent.
            status: Status of the response; unless it is 400 or 422, the complaint must say that something is not
                supported.
        """
        if status not in (200, 400, 422, 500, 501):
            return None
        if status not in (400, 422) and not _REFUSES.search(self.message):
            return None
        for text in (self.parameter, self.message):
            for name, pattern in _NAMED.items():
                if name in sent and (text == name or pattern.search(text)):
                    return name
        return None

    def filters(self, status: int) -> bool:
        """Whether the server withholds the answer to this one prompt, as Azure does with status 400."""
        return status in (200, 400, 422) and bool(_FILTERED.search(f"{self.message} {self.kind}"))

    def lasts(self) -> bool:
        """Whether the problem is lasting, e.g. no credit, an unknown model, or a prompt that is too long."""
        return bool(_LASTING.search(self.message)) and not _RETRY.search(self.message)


class NoAnswer(Exception):
    """The response does not contain an answer.

    Attributes:
        complaint: The server's complaint, if the response contains one.
    """

    def __init__(self, message: str, complaint: Complaint | None = None) -> None:
        super().__init__(message)
        self.complaint = complaint


def read_answer(raw: bytes, chats: bool) -> Written:
    """Read the answer in a body with status 200.

    Args:
        raw: The body.
        chats: Whether the answer belongs to a conversation, or completes a text.

    Raises:
        NoAnswer: The body is not JSON, not in OpenAI's format, or an error.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as e:
        if raw.lstrip().startswith((b"data:", b"event:")):
            raise NoAnswer("it answers a stream of events, which was not asked for; turn streaming off there") from e
        what = "HTML" if raw.lstrip()[:1] == b"<" else "something that is no JSON"
        raise NoAnswer(f"it answers {what} (is this the address of its API? it usually ends in /v1)") from e
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise _no_answer(data)
    message = choice.get("message") if chats else choice
    if not isinstance(message, dict):
        raise _no_answer(data, choice)
    content, known = message.get("content" if chats else "text"), ("content" if chats else "text", *_INSTEAD)
    if not any(k in message for k in known):
        raise _no_answer(data, choice)
    text = _text(content).removeprefix("\ufeff")
    if not text and (data.get("error") or choice.get("error")):
        raise _no_answer(data, choice)
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    finish = str(choice.get("finish_reason") or "").lower()
    if finish in CUT_OFF:
        return Written(_unfinished(text, chats), True, *tokens)
    if finish in WITHHELD or not text.strip():
        lacking, said = _instead(message, content, finish)
        # an empty line is a valid answer of a model that completes texts
        if lacking != NO_TEXT or chats or content is None:
            return Written.without_text(lacking, said, *tokens)
    return Written(text, False, *tokens)


#: Keys of a message under which a model answers with something other than text.
_INSTEAD = ("refusal", "tool_calls", "function_call", "audio")


def _instead(message: Mapping[str, Any], content: Any, finish: str) -> tuple[str, str]:
    """Return why an answer has no text, and the server's words: a refusal, the tool's name, or the finish_reason."""
    parts = [p for p in (content if isinstance(content, list) else [content]) if isinstance(p, Mapping)]
    ended = f"finish_reason {finish or 'not given'}"
    refusals = [m["refusal"] for m in (message, *parts) if isinstance(m.get("refusal"), str) and m["refusal"].strip()]
    if refusals or finish in WITHHELD or any(p.get("type") == "refusal" for p in parts):
        return REFUSED, "; ".join([*refusals[:1], ended])
    calls = message.get("tool_calls") or message.get("function_call")
    uses = [p for p in parts if p.get("type") in ("tool_use", "tool_call", "function_call")]
    if calls or uses or finish in ("tool_calls", "tool_use", "function_call"):
        names = [n for call in (*(calls if isinstance(calls, list) else [calls]), *uses) if (n := _tool(call))]
        return TOOL_CALL, "; ".join([*([f"it calls {', '.join(names[:3])}"] if names else []), ended])
    kinds = sorted({str(p.get("type")) for p in parts})
    return NO_TEXT, "; ".join([*([f"parts of type {', '.join(kinds[:3])}"] if kinds else []), ended])


def _tool(call: Any) -> str:
    """Return the name of the tool that is called, or an empty text."""
    if not isinstance(call, Mapping):
        return ""
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else call.get("name")
    return name if isinstance(name, str) else ""


def _no_answer(data: Any, choice: Any = None) -> NoAnswer:
    for place in (data, choice):
        complaint = _complaint(place)
        if complaint is not None:
            return NoAnswer(f"it answers an error ({complaint.message[:SHOWN]})", complaint)
    return NoAnswer("it answers JSON that is not in OpenAI's form")


def _unfinished(text: str, chats: bool) -> str:
    """Return the usable part of a truncated answer: the complete lines of a text, or the reasoning in a conversation.

    A truncated answer in a conversation counts as reasoning, because some models do not mark where reasoning begins.
    """
    if chats:
        return text if text.lstrip().startswith(THOUGHT) else THOUGHT + text
    whole = text.rpartition("\n")[0]
    return whole if whole.strip() else THOUGHT + text


def _text(content: Any) -> str:
    """Return the text of an answer, which may come in parts, without reasoning and refusals."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text") and "text" in part:
            text = part["text"]
            text = text.get("value") if isinstance(text, dict) else text
            if not isinstance(text, str):
                raise NoAnswer("it answers JSON that is not in OpenAI's form")
            found.append(text)
        elif not (isinstance(part, dict) and isinstance(part.get("type"), str)):
            raise NoAnswer("it answers JSON that is not in OpenAI's form")
    return "".join(found)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0


def read_complaint(raw: bytes, key: str | None = None) -> Complaint:
    """Read the complaint in the body of an error.

    Args:
        raw: The body, or its beginning.
        key: The API key, which is hidden if the server repeats it.
    """
    try:
        complaint = _complaint(json.loads(raw), anything=True)
    except (ValueError, RecursionError):
        complaint = None
    if complaint is None:  # not JSON, or JSON without text
        page = raw.lstrip()[:1] == b"<"
        complaint = Complaint(one_line("an HTML page" if page else raw[:2000].decode("utf-8", "replace")))
    if key and key in complaint.message:
        return replace(complaint, message=complaint.message.replace(key, "***"))
    return complaint


#: Keys under which servers put messages, and codes.
_WORDS = ("error", "errors", "detail", "message", "msg", "error_msg", "error_description", "description", "title")
_CODES = ("code", "status", "status_code", "error_code")


def _complaint(data: Any, anything: bool = False) -> Complaint | None:
    """Return the complaint in a JSON document, or None if it contains no error.

    Args:
        data: The document.
        anything: Whether any text counts as a complaint, because the status is already an error.
    """
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, Mapping):
        return Complaint(one_line(str(data))) if anything else None
    explicit = any(data.get(k) for k in ("error", "errors", "detail"))
    coded = any(data.get(k) for k in ("message", "msg", "error_msg")) and (
        data.get("object") == "error" or any(k in data for k in _CODES)
    )
    if not (explicit or coded or anything):
        return None
    inner = data.get("error")
    places = [p for p in (inner, data) if isinstance(p, Mapping)]
    code = next((c for p in places for k in _CODES if (c := _status(p.get(k))) is not None), None)
    inward = [q for p in places for k in ("innererror", "inner_error") if isinstance(q := p.get(k), Mapping)]
    words = [str(p[k]) for p in (*places, *inward) for k in ("code", "type", "status") if isinstance(p.get(k), str)]
    parameter = next((p["param"] for p in places if isinstance(p.get("param"), str)), "")
    said = _words(data, 6)
    if anything and not said:
        return None
    message = one_line(said)
    lasting = " ".join(w for w in words if _LASTING.search(w) and w not in message)
    return Complaint(f"{message}, {lasting}" if lasting else message, code, parameter, " ".join(words))


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _words(value: Any, depth: int) -> str:
    """Return the first text in a nested complaint, with the place if pydantic gives one."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        return "; ".join(t for t in (_words(v, depth - 1) for v in value[:3]) if t)
    if not isinstance(value, Mapping):
        return ""
    text = next((t for k in _WORDS if (t := _words(value.get(k), depth - 1))), "")
    if isinstance(place := value.get("loc"), list):
        text = f"{'.'.join(str(p) for p in place[:6])}: {text}"
    # a router (a server that forwards requests) puts the original server's message here
    metadata = value.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(raw := metadata.get("raw"), str):
        text = f"{text}: {raw}"
    return text


def one_line(text: str) -> str:
    """Return untrusted text as one printable line of limited length."""
    clean = "".join(c if c.isprintable() else " " for c in text[:2000])
    return " ".join(clean.split()) or "without a reason"
