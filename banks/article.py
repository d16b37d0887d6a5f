"""Chooses the English article of a word."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Words spelt with a consonant or digit but spoken with a vowel, and the reverse. Both match lower case.
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
