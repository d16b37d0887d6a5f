"""Searchers by the name of their command: how a run is rebuilt from what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from promptsearch.banks import Bank
from promptsearch.errors import InputError
from promptsearch.search.ask_climb import AskClimb
from promptsearch.search.beam import BeamSearch
from promptsearch.search.climb import HillClimb
from promptsearch.search.evolve import EvolveSearch
from promptsearch.search.objective import of_options
from promptsearch.search.random_search import RandomSearch
from promptsearch.search.searcher import Searcher
from promptsearch.search.space import Space
from promptsearch.search.tpe import TpeSearch

#: Makes a searcher from a bank and a run's configuration (the command's own options, and "seed").
Builder = Callable[[Bank, Mapping[str, Any]], Searcher]


def _beam(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    return BeamSearch(bank, of_options(o), width=o["width"], depth=o["depth"], patience=o["patience"])


def _random(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    return RandomSearch(Space(bank, o["ensemble"]), of_options(o), seed=o["seed"], batch=o["batch"])


def _climb(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    if "lm" in o:
        return AskClimb(
            Space(bank, o["ensemble"]),
            of_options(o),
            seed=o["seed"],
            batch=o["batch"],
            pool=o["pool"],
            shown=o["shown"],
            patience=o["patience"],
        )
    return HillClimb(Space(bank, o["ensemble"]), of_options(o), seed=o["seed"], batch=o["batch"])


def _tpe(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    return TpeSearch(
        Space(bank, o["ensemble"]),
        of_options(o),
        seed=o["seed"],
        batch=o["batch"],
        sampler=o["sampler"],
        startup=o["startup"],
    )


def _evolve(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    return EvolveSearch(
        Space(bank, o["ensemble"]),
        of_options(o),
        seed=o["seed"],
        batch=o["offspring"],
        population=o["population"],
        elite=o["elite"],
        crowding=o["crowding"],
        pareto=o.get("pareto", False),
    )


SEARCHERS: dict[str, Builder] = {
    "beam": _beam,
    "random": _random,
    "climb": _climb,
    "tpe": _tpe,
    "evolve": _evolve,
}


def build_searcher(command: str, bank: Bank, options: Mapping[str, Any]) -> Searcher:
    """The searcher of a command.

    Raises:
        InputError: an unknown command, or options that its searcher refuses.
    """
    if command not in SEARCHERS:
        raise InputError(f"searcher {command!r} is not known here; this version has {', '.join(SEARCHERS)}")
    return SEARCHERS[command](bank, options)
