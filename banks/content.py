"""Reads a bank from the content of a file, by its suffix."""

from __future__ import annotations

import codecs

from promptsearch.banks.bank import Bank
from promptsearch.banks.file_kinds import mistaken_for
from promptsearch.banks.formats import from_tree, from_txt
from promptsearch.banks.parse import parse_json, parse_yaml
from promptsearch.banks.phrase_formats import phrases_from_tree, phrases_from_txt
from promptsearch.banks.phrases import PhraseBank
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError

#: Longest line of a text or YAML file, in characters. JSON may be a single long line.
MAX_LINE = 10_000

_BOM = b"\xef\xbb\xbf"


def parse_bank(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> Bank:
    """Read a bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose from CLIP_benchmark's lists.

    Raises:
        InputError: The bank is invalid.
    """
    text = decode(data, place)
    if suffix == ".json":
        return from_tree(parse_json(text, place), place, name, place, key)
    _short_lines(text, place)
    if suffix == ".txt":
        if key is not None:
            raise InputError(f"{place}: a .txt bank has no parts to pick {shorten(key)} from; leave #{key} out")
        return from_txt(text, place, name, place)
    return from_tree(parse_yaml(text, place), place, name, place, key)


def parse_phrases(data: bytes, suffix: str, place: str, name: str, key: str | None = None) -> PhraseBank:
    """Read a phrase bank from the content of a file.

    Args:
        data: Content of the file.
        suffix: Suffix of the file, which decides the format.
        place: The file's name for messages.
        name: Name of the bank, if the file does not give one.
        key: The data set to choose, if the file has several.

    Raises:
        InputError: The bank is invalid.
    """
    text = decode(data, place)
    if suffix == ".json":
        return phrases_from_tree(parse_json(text, place), place, name, key)
    _short_lines(text, place)
    if suffix == ".txt":
        return phrases_from_txt(text, place, name)
    return phrases_from_tree(parse_yaml(text, place), place, name, key)


def decode(data: bytes, place: str) -> str:
    """Return the text of a UTF-8 file.

    Args:
        data: Content of the file.
        place: The file's name for messages.

    Raises:
        InputError: It is a Git LFS pointer or a web page, or not UTF-8; the message names the line.
    """
    if data and (found := mistaken_for(data[:512])):
        raise InputError(f"{place}: the file is {found[0]}; {found[1]}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # that of UTF-32 begins so, too
        raise InputError(f"{place}: the file is in UTF-16 or UTF-32, as Windows calls Unicode; save it as UTF-8")
    data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        at = e.start - data.rfind(b"\n", 0, e.start)
        raise InputError(
            f"{place}:{line}: not UTF-8: byte 0x{data[e.start]:02x}, number {at} of the line; save the file as UTF-8"
        ) from e


def _short_lines(text: str, place: str) -> None:
    for number, line_text in enumerate(text.split("\n"), start=1):
        if len(line_text) > MAX_LINE:
            raise InputError(
                f"{place}:{number}: line of {len(line_text)} characters: {shorten(line_text)}; keep it to {MAX_LINE}"
            )
