"""A run's bank as a study stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.banks import Bank, Grammar, Template
from promptsearch.errors import InputError
from promptsearch.runs.store.record import RunRecord
from promptsearch.search import SEARCHERS, Space


def bank_to_dict(bank: Bank) -> dict[str, Any]:
    """A bank as plain data: its templates, or its grammar and the templates beside it."""
    data: dict[str, Any] = {"name": bank.name, "class_names": {k: list(v) for k, v in bank.class_names.items()}}
    if bank.grammar is None:
        return {**data, "templates": [str(t) for t in bank.templates]}
    return {**data, "templates": [str(t) for t in Space(bank).plain], "grammar": bank.grammar.to_dict()}


def bank_from_dict(data: Mapping[str, Any]) -> Bank:
    """What `bank_to_dict` gave.  Raises InputError for anything else."""
    class_names = {k: tuple(v) for k, v in data["class_names"].items()}
    plain: dict[Template, int | None] = {Template(t): None for t in data["templates"]}
    if "grammar" not in data:
        return Bank(data["name"], tuple(plain), class_names=class_names)
    grammar = Grammar(data["grammar"]["patterns"], data["grammar"]["slots"])
    return Bank.expanded(data["name"], grammar, plain, class_names=class_names)


def restore_bank(record: RunRecord) -> Bank:
    """The bank of a run, so that any machine can go on with it.

    Raises:
        InputError: this version makes another bank of what is stored, or has no such searcher.
    """
    config, kept = record.config, record.get("bank")
    if config.command not in SEARCHERS:
        raise InputError(
            f"run {record.name!r} was made by {config.command}, which is no searcher of this version; "
            f"go on with it by its own command, `promptsearch {config.command} … --study {record.name}`"
        )
    if kept is None:
        raise InputError(f"run {record.name!r} holds no bank yet; give its own command again")
    bank = bank_from_dict(kept)
    if config.bank is None or bank.hash != config.bank.hash:
        raise InputError(f"run {record.name!r}: its bank {bank.name!r} cannot be made again by this version")
    return bank
