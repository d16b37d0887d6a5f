"""Notes on banks that are valid but perhaps not what their author meant."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

from promptsearch.banks.bank import Bank
from promptsearch.banks.template import Template, shorten

_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}
_MARK = re.compile(r"\(?(\d{1,4}[.):]|[a-zA-Z][.)]|[-*•–—·‣▪>+]|\[[ x]?\])\s+\S")
_CURLY = str.maketrans("“”„‘’‚", "\"\"\"'''")


def bank_notes(bank: Bank) -> list[str]:
    """Find templates with leftover marks of a spreadsheet or a list, and templates that are the same for a model.

    Args:
        bank: A bank.

    Returns:
        One sentence per finding, which begins with "line 3: " if the bank knows its lines.
    """
    return [*_marks(bank), *_doubles(bank)]


def _marks(bank: Bank) -> Iterator[str]:
    for template, line in zip(bank.templates, bank.lines, strict=True):
        if what := _mark_of(str(template)):
            yield f"{_at(line)}{what}, which a model reads too: {shorten(template)}; remove it unless it is meant"


def _mark_of(text: str) -> str | None:
    bare = text.rstrip(",; ")
    if len(bare) > 1 and _QUOTES.get(bare[0]) == bare[-1]:
        return "quotes around the template" if bare == text else "quotes and a comma around the template"
    if _MARK.match(text):
        return "a list's mark before the template"
    if text.endswith((",", ";", '",', "\\n")):
        return "a separator behind the template"
    if text.startswith(("**", "__")) and text.endswith(("**", "__")):
        return "Markdown around the template"
    return None


def _doubles(bank: Bank) -> Iterator[str]:
    """Yield a note for templates that are equal to CLIP's tokenizer, which ignores case, spaces and curly quotes."""
    first: dict[str, tuple[Template, int | None]] = {}
    for template, line in zip(bank.templates, bank.lines, strict=True):
        read = html.unescape(unicodedata.normalize("NFC", str(template))).translate(_CURLY)
        other, at = first.setdefault(" ".join(read.lower().split()), (template, line))
        if other is not template:
            where = "" if at is None else f" of line {at}"
            same = f"the same text to CLIP's tokenizer as {shorten(other)}{where}"
            yield f"{_at(line)}{same}: {shorten(template)}; remove one"


def _at(line: int | None) -> str:
    return "" if line is None else f"line {line}: "
