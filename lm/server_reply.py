"""What a server of OpenAI's protocol answered: the text that was written, or what it complains of."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

#: Values of finish_reason that say that an answer has no end: OpenAI's, and those of servers that translate others'.
CUT_OFF = ("length", "max_tokens", "model_length", "max_output_tokens")
#: Marks a thought that was cut off; search/reply_parser.py takes what follows for no answer.
THOUGHT = "<think>"
#: Characters of a complaint that are shown.
SHOWN = 200

#: How servers spell the parameters that a request may do without, in the order in which they are given up.
PARAMETERS = {
    "seed": r"(?:random_)?seed",
    "stop": r"stop(?:_?sequences?)?",
    "top_p": r"top[_ -]?p",
    "temperature": r"temperature",
    "max_tokens": r"(?:max(?:imum)?[_ ]?(?:completion|output|new)?[_ ]?tokens|num_predict)",
}
_NAMED = {k: re.compile(rf"(?<![A-Za-z0-9]){v}(?![A-Za-z0-9])", re.IGNORECASE) for k, v in PARAMETERS.items()}
#: "stop" is a word of its own in many a sentence: it counts where it is quoted, or a list of names.
_NAMED["stop"] = re.compile(r"""[`'"\[. ]stop(?:_?sequences?)?[`'"\]]|: stop\b|\bstop_?sequences?\b""", re.IGNORECASE)
_REFUSES = re.compile(
    r"unsupported|not[ _]support|unknown|unrecogni[sz]ed|unexpected|invalid|extra|not (?:permitted|allowed|accepted)"
    r"|cannot|drop_params|deprecated|only (?:the )?default",
    re.IGNORECASE,
)
#: What no waiting mends, whatever the status is.
_LASTING = re.compile(
    r"insufficient[ _](?:quota|balance|credit|funds)|billing|credit balance|out of credits|payment"
    r"|maximum context|context[ _](?:length|size|window)|prompt is too long"
    r"|model[ _]not[ _](?:found|exist)|invalid[ _]api[ _]key",
    re.IGNORECASE,
)
_RETRY = re.compile(r"\b(?:retry|try again) (?:in|after)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Written:
    """An answer: its text, whether it was cut off before its end, and the tokens that it cost."""

    text: str
    cut: bool = False
    read: int = 0
    written: int = 0


@dataclass(frozen=True)
class Complaint:
    """What a server says is wrong: its own message on one line, and the code and the parameter where it names them."""

    message: str
    code: int | None = None
    parameter: str = ""

    def refuses(self, sent: Collection[str], status: int) -> str | None:
        """The one of the parameters `sent` that the server does not take and that is given up first, or None.

        Args:
            status: of the answer; beside 400 and 422 a complaint must say that something is not supported.
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

    def lasts(self) -> bool:
        """Whether it cannot pass by itself: no credit, no such model, a prompt that is too long."""
        return bool(_LASTING.search(self.message)) and not _RETRY.search(self.message)


class NoAnswer(Exception):
    """JSON that is no answer; `complaint` is what the server says in it, if it says anything."""

    def __init__(self, message: str, complaint: Complaint | None = None) -> None:
        super().__init__(message)
        self.complaint = complaint


def read_answer(raw: bytes, chats: bool) -> Written:
    """The answer in a body of status 200.

    Args:
        raw: the body.
        chats: whether it is one of a conversation, or goes on with a text.

    Raises:
        NoAnswer: it is not JSON, not in OpenAI's form, or an error.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as e:
        what = "HTML" if raw.lstrip()[:1] == b"<" else "something that is no JSON"
        raise NoAnswer(f"it answers {what} (is this the address of its API? it usually ends in /v1)") from e
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise _no_answer(data)
    message = choice.get("message") if chats else choice
    if not isinstance(message, dict) or ("content" if chats else "text") not in message:
        raise _no_answer(data, choice)
    text = _text(message["content" if chats else "text"])
    if not text and (data.get("error") or choice.get("error")):
        raise _no_answer(data, choice)
    cut = str(choice.get("finish_reason") or "").lower() in CUT_OFF
    if cut:
        text = _unfinished(text, chats)
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Written(text, cut, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _no_answer(data: Any, choice: Any = None) -> NoAnswer:
    for place in (data, choice):
        complaint = _complaint(place)
        if complaint is not None:
            return NoAnswer(f"it answers an error ({complaint.message[:SHOWN]})", complaint)
    return NoAnswer("it answers JSON that is not in OpenAI's form")


def _unfinished(text: str, chats: bool) -> str:
    """What is left of an answer that was cut off: of a text its whole lines; of a conversation a thought, no answer.

    Some models think without a mark for where they begin, so that nothing tells a long answer from a thought.
    """
    if chats:
        return text if text.lstrip().startswith(THOUGHT) else THOUGHT + text
    whole = text.rpartition("\n")[0]
    return whole if whole.strip() else THOUGHT + text


def _text(content: Any) -> str:
    """The answer's text, given whole or in parts; parts that think or refuse are left out."""
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
    """What a body with an error's status says.

    Args:
        raw: the body, or the beginning of it.
        key: the key that was sent, which is not shown where a server repeats it.
    """
    try:
        complaint = _complaint(json.loads(raw), anything=True)
    except (ValueError, RecursionError):
        complaint = None
    if complaint is None:  # no JSON, or JSON without a word of text
        page = raw.lstrip()[:1] == b"<"
        complaint = Complaint(one_line("an HTML page" if page else raw[:2000].decode("utf-8", "replace")))
    if key and key in complaint.message:
        return Complaint(complaint.message.replace(key, "***"), complaint.code, complaint.parameter)
    return complaint


#: Where servers put their words, and their numbers.
_WORDS = ("error", "errors", "detail", "message", "msg", "error_msg", "error_description", "description", "title")
_CODES = ("code", "status", "status_code", "error_code")


def _complaint(data: Any, anything: bool = False) -> Complaint | None:
    """What a document complains of, or None where it has no error in it.

    Args:
        anything: take any text for a complaint: the status said already that it is one.
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
    words = [str(p[k]) for p in places for k in ("code", "type", "status") if isinstance(p.get(k), str)]
    parameter = next((p["param"] for p in places if isinstance(p.get("param"), str)), "")
    said = _words(data, 6)
    if anything and not said:
        return None
    message = one_line(said)
    lasting = " ".join(w for w in words if _LASTING.search(w) and w not in message)
    return Complaint(f"{message}, {lasting}" if lasting else message, code, parameter)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _words(value: Any, depth: int) -> str:
    """The first text of a complaint, whatever it is wrapped in; with the place where pydantic gives one."""
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
    metadata = value.get("metadata")  # of a router: what the server behind it said
    if isinstance(metadata, Mapping) and isinstance(raw := metadata.get("raw"), str):
        text = f"{text}: {raw}"
    return text


def one_line(text: str) -> str:
    """A stranger's text as a terminal may show it: printable, on one line, with an end."""
    clean = "".join(c if c.isprintable() else " " for c in text[:2000])
    return " ".join(clean.split()) or "without a reason"
