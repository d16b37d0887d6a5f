"""Runs: a searcher, an evaluator and a record joined; kept as Optuna studies."""

from promptsearch.runs.claims import Claims
from promptsearch.runs.estimate import Estimate, judge, nested
from promptsearch.runs.outcome import Outcome
from promptsearch.runs.rebuild import bank_from_dict, bank_to_dict, rebuild_searcher
from promptsearch.runs.record import RunRecord, Trial
from promptsearch.runs.repeat import Repeat
from promptsearch.runs.run import prepare, search
from promptsearch.runs.selection import SELECTIONS, Selected, Selection, choose_selection
from promptsearch.runs.share import Budget, Sharing
from promptsearch.runs.storage import default_storage, open_storage

__all__ = [
    "SELECTIONS",
    "Budget",
    "Claims",
    "Estimate",
    "Outcome",
    "Repeat",
    "RunRecord",
    "Selected",
    "Selection",
    "Sharing",
    "Trial",
    "bank_from_dict",
    "bank_to_dict",
    "choose_selection",
    "default_storage",
    "judge",
    "nested",
    "open_storage",
    "prepare",
    "rebuild_searcher",
    "search",
]
