"""Stores a run's bank in its study, and restores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from promptsearch.banks import Bank, Grammar, PhraseBank, Template
from promptsearch.errors import InputError
from promptsearch.runs.store.record import RunRecord
from promptsearch.search import SEARCHERS, Space


def bank_to_dict(bank: Bank) -> dict[str, Any]:
    """Return a bank as a JSON-serialisable dict: its templates, or its grammar and the templates outside it."""
    data: dict[str, Any] = {"name": bank.name, "class_names": {k: list(v) for k, v in bank.class_names.items()}}
    if bank.phrases is not None:
        data["phrases"] = bank.phrases.to_dict()
    if bank.grammar is None:
        return {**data, "templates": [str(t) for t in bank.templates]}
    return {**data, "templates": [str(t) for t in Space(bank).plain], "grammar": bank.grammar.to_dict()}


def bank_from_dict(data: Mapping[str, Any]) -> Bank:
    """Make a bank from the result of `bank_to_dict`.

    Raises:
        InputError: The data is invalid.
    """
    class_names = {k: tuple(v) for k, v in data["class_names"].items()}
    phrases = PhraseBank.from_dict(data["phrases"]) if "phrases" in data else None
    plain: dict[Template, int | None] = {Template(t): None for t in data["templates"]}
    if "grammar" not in data:
        return Bank(data["name"], tuple(plain), class_names=class_names, phrases=phrases)
    grammar = Grammar(data["grammar"]["patterns"], data["grammar"]["slots"])
    return replace(Bank.expanded(data["name"], grammar, plain, class_names=class_names), phrases=phrases)


def restore_bank(record: RunRecord) -> Bank:
    """Restore the bank of a run, so that any machine can resume it.

    Args:
        record: The run.

    Raises:
        InputError: This version makes a different bank of the stored data, or does not know the searcher.
    """
    config, kept = record.config, record.get("bank")
    if config.command not in SEARCHERS:
        raise InputError(
            f"run {record.name!r} was made by {config.command}, which is not a searcher of this version; "
            f"resume it with its own command, `promptsearch {config.command} … --study {record.name}`"
        )
    if kept is None:
        raise InputError(f"run {record.name!r} has no stored bank yet; run its own command again")
    bank = bank_from_dict(kept)
    if config.bank is None or bank.hash != config.bank.hash:
        raise InputError(
            f"run {record.name!r}: this version makes a different bank of {bank.name!r}; resume it with the version of "
            "promptsearch that made it"
        )
    return bank
