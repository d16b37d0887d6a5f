"""Templates: lines of text with exactly one `{}` for the class name, behind the right article."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from promptsearch.errors import InputError

# In lower case: beginnings of words that are spelt with a consonant or digit but spoken with a vowel, and the reverse.
_AN = re.compile(r"hour|honest|honou?r|heir|8|1[18]\b|suv\b")
_A = re.compile(
    r"eu|ewe|on(?:e|ce)(?![a-z])|ouija|ufo\b|usb\b|u-|uni(?!n|m|dent)|us[aeu]|ut[ie]|utopi|uk|ura[nl]|urin|ubiq"
)
# Single letters and abbreviations without vowels are spoken letter by letter: "an X-ray", "an MP3 player".
_SPELLED = re.compile(r"[A-Za-z]-|[B-DF-HJ-NP-TV-Z][B-DF-HJ-NP-TV-Z0-9]+(?![A-Za-z])")


@lru_cache(maxsize=65536)
def article(phrase: str) -> str:
    """Return "an" or "a", by the first letter of `phrase` and the usual exceptions ("an hour", "a unicorn")."""
    plain = unicodedata.normalize("NFD", phrase).lstrip("\"'“‘(#@ ")
    word = plain.lower()
    if _SPELLED.match(plain):
        return "an" if word[0] in "aefhilmnorsx" else "a"
    if _AN.match(word):
        return "an"
    return "an" if word.startswith(("a", "e", "i", "o", "u")) and not _A.match(word) else "a"


#: Largest number of characters of a template.
MAX_LENGTH = 500

_NAMED = re.compile(r"\{[^{}]+\}")
_AGREEING = re.compile(r"(?<!\w)(a)\((n)\)(?= +\{\})", re.IGNORECASE)


def shorten(value: object, limit: int = 60) -> str:
    """Return a value for an error message: quoted, printable, and cut after `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return repr(cut) if isinstance(value, str) else cut


def unprintable(text: str) -> str | None:
    """Return the first unprintable character (control, line end, lone surrogate …) as an escape, or None."""
    return None if text.isprintable() else next(f"{c!r}" for c in text if not c.isprintable())


def printable(value: object) -> str:
    """Return a value as one line of text in which control characters are replaced."""
    return "".join(c if c.isprintable() else " " if c in "\r\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def why_invalid(text: object) -> str | None:
    """Return why `text` is not a valid template, as "what is wrong: value; remedy", or None if it is."""
    if not isinstance(text, str):
        return f"a template must be text: {shorten(text)}; quote it"
    text = text.strip()
    shown = shorten(text)
    if not text:
        return f"empty template: {shown}; write a sentence with {{}} for the class name"
    if len(text) > MAX_LENGTH:
        return f"template of {len(text)} characters: {shown}; shorten it to {MAX_LENGTH}"
    if character := unprintable(text):
        return f"character {character} in a template: {shown}; write one line of printable text"
    placeholders = text.count("{}")
    rest = text.replace("{}", "")
    if "{" in rest or "}" in rest:
        if named := _NAMED.search(text):
            return f"placeholder {named[0]} in a template: {shown}; write {{}} in its place"
        return f"stray brace in a template: {shown}; use braces for the one {{}} only"
    if placeholders == 0:
        return f"no {{}} in a template: {shown}; write {{}} where the class name goes"
    if placeholders > 1:
        return f"{placeholders} times {{}} in a template: {shown}; keep exactly one"
    return None


def why_no_class_name(name: object) -> str | None:
    """Return why `name` is not a valid class name, as "what is wrong: value; remedy", or None if it is."""
    if not isinstance(name, str):
        return f"a class name must be text: {shorten(name)}; quote it"
    if not name.strip() or unprintable(name):
        return f"a class name must be one printable line: {shorten(name)}; write it out"
    return None


class Template(str):
    """An immutable string with exactly one `{}`, which is replaced by the class name and never formatted.

        template = Template("a photo of a(n) {}.")
        for name in ("airplane", "cat"):
            print(template.fill(name))  # a photo of an airplane. / a photo of a cat.

    Args:
        text: The text; spaces at the ends are removed.

    Raises:
        InputError: There is not exactly one `{}`, or another brace, or the text is not one printable line, or has more
            than 500 characters.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Template:
        """Validate the text; a Template is returned as it is."""
        if type(text) is cls:
            return text
        if reason := why_invalid(text):
            raise InputError(reason)
        return super().__new__(cls, text.strip())

    def __reduce__(self) -> tuple[Any, ...]:
        return Template, (str(self),)

    def fill(self, class_name: str) -> str:
        """Return the prompt for a class; "a(n) {}" becomes "an airplane" or "a cat", and "a {}" keeps its "a"."""
        text = str(self)
        if "(" in text:
            text = _AGREEING.sub(lambda m: m[1] + m[2] if article(class_name) == "an" else m[1], text, count=1)
        return text.replace("{}", class_name)


#: The usual hand-written prompt for CLIP, with which every result is compared.
BASELINE = Template("a photo of a {}.")
