"""Runs: a searcher, an evaluator and a record joined; kept as Optuna studies."""

from promptsearch.runs.claims import Claims
from promptsearch.runs.outcome import Outcome
from promptsearch.runs.rebuild import bank_from_dict, bank_to_dict, rebuild_searcher
from promptsearch.runs.record import RunRecord, Trial
from promptsearch.runs.run import search
from promptsearch.runs.share import Budget, Sharing
from promptsearch.runs.storage import default_storage, open_storage

__all__ = [
    "Budget",
    "Claims",
    "Outcome",
    "RunRecord",
    "Sharing",
    "Trial",
    "bank_from_dict",
    "bank_to_dict",
    "default_storage",
    "open_storage",
    "rebuild_searcher",
    "search",
]
