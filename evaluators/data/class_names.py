"""Class names as a model reads them: distinct, not empty, printable."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from promptsearch.banks.template import shorten, why_no_class_name
from promptsearch.errors import InputError

# Joiners that Persian and Indic words need; other invisible characters are refused.
_JOINERS = str.maketrans("", "", "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")


def spoken_names(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as prompts contain them.

    Underscores are replaced by spaces, and repeated, leading and trailing spaces are removed.

    Args:
        place: The start of error messages, such as "data set 'pets'".
        names: The class names as the data set writes them.

    Raises:
        InputError: A name is empty or contains invisible characters, or two names differ only in case, underscores,
            spaces or the encoding of accents, which models do not distinguish.
    """
    spoken = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    met: dict[str, str] = {}
    for name, said in zip(names, spoken, strict=True):
        if why_no_class_name(said.translate(_JOINERS)):
            raise InputError(
                f"{place}: class {shorten(name)} is no class name that a prompt can have: "
                f"{'nothing is left of it' if not said else 'not all of it prints'}; rename it"
            )
        key = unicodedata.normalize("NFC", said).casefold()
        if key in met:
            raise InputError(
                f"{place}: classes {shorten(met[key])} and {shorten(name)} both read {shorten(said)} in a prompt: "
                "no prompt can tell them apart; rename one, or make them one class"
            )
        met[key] = name
    return spoken
