"""Searchers: `ask()` for PromptSets, `tell()` their scores."""

from promptsearch.search.beam import BeamSearch
from promptsearch.search.objective import OBJECTIVES, Objective, ScoreLike, get_objective
from promptsearch.search.searcher import Searcher

__all__ = ["OBJECTIVES", "BeamSearch", "Objective", "ScoreLike", "Searcher", "get_objective"]
