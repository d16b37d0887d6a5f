"""Class names as a model reads them: distinct, not empty, printable."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from promptsearch.banks.template import shorten, why_no_class_name
from promptsearch.errors import InputError

# Joiners that Persian and Indic words need; other invisible characters are refused.
_JOINERS = str.maketrans("", "", "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")

# Invisible characters (joiners, variation selectors), which are removed, and curly quotes, which become straight.
_SELECTORS = (*range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
_UNSEEN = dict.fromkeys((0x34F, 0x200C, 0x200D, *_SELECTORS))
_QUOTES = dict.fromkeys(map(ord, "‘’‚‛"), "'") | dict.fromkeys(map(ord, "“”„‟"), '"')


def as_read(name: str) -> str:
    """Return a class name in a form in which names are equal if tokenizers or readers cannot tell them apart.

    The form ignores case, repeated spaces, the encoding of accents, compatible forms of a character (full width,
    ligatures), HTML entities, curly quotes and invisible characters.
    """
    plain = unicodedata.normalize("NFKC", html.unescape(name)).translate(_UNSEEN | _QUOTES)
    return " ".join(unicodedata.normalize("NFKC", plain.casefold()).split())


def spoken_names(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as prompts contain them.

    Underscores are replaced by spaces, and repeated, leading and trailing spaces are removed.

    Args:
        place: The start of error messages, such as "data set 'pets'".
        names: The class names as the data set writes them.

    Raises:
        InputError: A name is empty or contains invisible characters, or two names differ only in what tokenizers or
            readers do not distinguish (see `as_read`).
    """
    spoken = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    met: dict[str, str] = {}
    for name, said in zip(names, spoken, strict=True):
        if why_no_class_name(said.translate(_JOINERS)):
            raise InputError(
                f"{place}: class {shorten(name)} cannot be used as a class name in prompts: "
                f"{'it is empty' if not said else 'it has characters that cannot be printed'}; rename it"
            )
        key = as_read(said)
        if key in met:
            raise InputError(
                f"{place}: classes {shorten(met[key])} and {shorten(name)} both read {shorten(said)} in a prompt: "
                "no prompt can tell them apart; rename one, or make them one class"
            )
        met[key] = name
    return spoken
