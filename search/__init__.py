"""Searchers, which propose PromptSets (`ask`) and learn from their scores (`tell`)."""

from promptsearch.search.beam import BeamSearch
from promptsearch.search.climb import HillClimb
from promptsearch.search.evolve import EvolveSearch, Survival
from promptsearch.search.lm_climb import AskClimb
from promptsearch.search.objective import OBJECTIVES, Objective, choose_objective, get_objective, of_options
from promptsearch.search.proposal_search import Tools, WritingSearcher
from promptsearch.search.random_search import RandomSearch
from promptsearch.search.registry import SEARCHERS, build_searcher
from promptsearch.search.searcher import Searcher
from promptsearch.search.space import Names, Space
from promptsearch.search.tpe import SAMPLERS, TpeSearch
from promptsearch.search.trial_searcher import TrialSearcher

__all__ = [
    "OBJECTIVES",
    "SAMPLERS",
    "SEARCHERS",
    "AskClimb",
    "BeamSearch",
    "EvolveSearch",
    "HillClimb",
    "Names",
    "Objective",
    "RandomSearch",
    "Searcher",
    "Space",
    "Survival",
    "Tools",
    "TpeSearch",
    "TrialSearcher",
    "WritingSearcher",
    "build_searcher",
    "choose_objective",
    "get_objective",
    "of_options",
]
