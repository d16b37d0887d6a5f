"""Searchers by the name of their command: how a run is rebuilt from what is kept of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from promptsearch.banks import Bank
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.plugins import Registry
from promptsearch.search.beam import BeamSearch
from promptsearch.search.climb import HillClimb
from promptsearch.search.evolve import EvolveSearch
from promptsearch.search.lm_climb import AskClimb
from promptsearch.search.objective import of_options
from promptsearch.search.random_search import RandomSearch
from promptsearch.search.searcher import Searcher
from promptsearch.search.space import Space
from promptsearch.search.tpe import TpeSearch
from promptsearch.search.trial_searcher import TrialSearcher

#: Makes a searcher from a bank and a run's configuration (the command's own options, and "seed").
Builder = Callable[[Bank, Mapping[str, Any]], Searcher]


def beam(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Beam search over ensembles."""
    rounds = {k: o[k] for k in ("width", "depth", "patience")}
    return BeamSearch(bank, of_options(o), **rounds, pareto=o.get("pareto", False))


def random(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Random search."""
    return RandomSearch(Space(bank, o["ensemble"]), of_options(o), seed=o["seed"], batch=o["batch"])


def climb(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Hill climbing; with a language model, climbing by its proposals."""
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


def tpe(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Optuna's samplers."""
    return TpeSearch(
        Space(bank, o["ensemble"]),
        of_options(o),
        seed=o["seed"],
        batch=o["batch"],
        sampler=o["sampler"],
        startup=o["startup"],
        pareto=o.get("pareto", False),
    )


def evolve(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Evolution with a proposer."""
    return EvolveSearch(
        Space(bank, o["ensemble"]),
        of_options(o),
        seed=o["seed"],
        batch=o["offspring"],
        population=o["population"],
        elite=o["elite"],
        crowding=o["crowding"],
        immigrants=o.get("immigrants", 0.1),
        pareto=o.get("pareto", False),
    )


SEARCHERS = Registry("searchers")


def build_searcher(command: str, bank: Bank, options: Mapping[str, Any]) -> Searcher:
    """The searcher of a command, or of a plug-in.

    Raises:
        InputError: an unknown name, or options that its searcher refuses.
        PromptSearchError: a plug-in that does not load, or builds no searcher.
    """
    if command not in SEARCHERS:
        raise InputError(f"searcher {command!r} is not known here; this version has {', '.join(SEARCHERS)}")
    builder = SEARCHERS[command]
    searcher = _of_class(builder, bank, options) if isinstance(builder, type) else builder(bank, options)
    if not isinstance(searcher, Searcher):
        raise PromptSearchError(f"plug-in {command!r} (searchers) built {searcher!r}; it must build a Searcher")
    return searcher


def own_options(name: str) -> dict[str, Any]:
    """The options of a plug-in's class with their defaults: its keyword-only arguments but seed and batch.

    A function that builds a searcher reads what it wants and says nothing of it: it has none here.
    """
    builder = SEARCHERS[name]
    if not isinstance(builder, type):
        return {}
    return {
        p.name: p.default
        for p in inspect.signature(builder).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in ("seed", "batch")
    }


def _of_class(made: Any, bank: Bank, options: Mapping[str, Any]) -> Any:
    objective = of_options(options)
    wanted = {
        p.name: options[p.name]
        for p in inspect.signature(made).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name in options
    }
    if issubclass(made, TrialSearcher):
        wanted |= {k: options[k] for k in ("seed", "batch") if k in options}
        return made(Space(bank, options.get("ensemble", 1)), objective, **wanted)
    return made(bank, objective, **wanted)
