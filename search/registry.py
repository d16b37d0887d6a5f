"""Builds searchers by name from a run's configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from promptsearch.banks import Bank
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.plugins import Registry
from promptsearch.search.beam import BeamSearch
from promptsearch.search.climb import HillClimb
from promptsearch.search.evolve import EvolveSearch, Survival
from promptsearch.search.lm_climb import AskClimb
from promptsearch.search.objective import of_options
from promptsearch.search.random_search import RandomSearch
from promptsearch.search.searcher import Searcher
from promptsearch.search.space import Space
from promptsearch.search.tpe import TpeSearch
from promptsearch.search.trial_searcher import TrialSearcher

#: Builds a searcher from a bank and a run's configuration (the command's options and "seed").
Builder = Callable[[Bank, Mapping[str, Any]], Searcher]


def beam(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Build a beam search."""
    rounds = {k: o[k] for k in ("width", "depth", "patience")}
    return BeamSearch(bank, of_options(o), **rounds, pareto=o.get("pareto", False))


def random(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Build a random search."""
    return RandomSearch(Space(bank, o["ensemble"]), of_options(o), seed=o["seed"], batch=o["batch"])


def climb(bank: Bank, o: Mapping[str, Any]) -> Searcher:
    """Build a hill climbing search, with a language model if one is configured."""
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
    """Build a search with one of Optuna's samplers."""
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
    """Build an evolutionary search."""
    return EvolveSearch(
        Space(bank, o["ensemble"]),
        of_options(o),
        seed=o["seed"],
        batch=o["offspring"],
        population=o["population"],
        survival=Survival(o["elite"], o["crowding"]),
        immigrants=o.get("immigrants", 0.1),
        pareto=o.get("pareto", False),
    )


SEARCHERS = Registry("searchers", {"beam": beam, "random": random, "climb": climb, "tpe": tpe, "evolve": evolve})


def build_searcher(command: str, bank: Bank, options: Mapping[str, Any]) -> Searcher:
    """Build a searcher.

    Args:
        command: Name of the searcher, promptsearch's own or a plug-in's.
        bank: The templates to search.
        options: The run's configuration.

    Raises:
        InputError: The name is unknown, or the searcher refuses an option.
        PromptSearchError: A plug-in cannot be imported or does not build a Searcher.
    """
    if command not in SEARCHERS:
        raise InputError(f"searcher {command!r} is unknown; choose from {', '.join(SEARCHERS)}, or install its package")
    builder = SEARCHERS[command]
    searcher = _of_class(builder, bank, options) if isinstance(builder, type) else builder(bank, options)
    if not isinstance(searcher, Searcher):
        raise PromptSearchError(f"plug-in {command!r} (searchers) built {searcher!r}; it must build a Searcher")
    return searcher


def own_options(name: str) -> dict[str, Any]:
    """Return the options of a plug-in's searcher class with their defaults.

    They are its keyword-only arguments except seed and batch. If the plug-in is a function, its options are unknown.

    Args:
        name: Name of the searcher.
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
