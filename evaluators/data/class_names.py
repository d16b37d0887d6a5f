"""Class names as a model reads them: distinct, not empty, printable."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from promptsearch.banks.template import shorten, why_no_class_name
from promptsearch.errors import InputError

# Joiners that Persian and Indic words need; other invisible characters are refused.
_JOINERS = str.maketrans("", "", "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")


def spoken_names(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """The class names that go into prompts: underscores become spaces, spaces at the ends and repeated ones go.

    Args:
        place: what messages begin with, such as "data set 'pets'".
        names: as the data set writes them.

    Raises:
        InputError: a name that is empty or does not print, two that differ only in what models do not read: case,
            underscores, spaces, the form in which accents are written.
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
