"""Runs: a searcher, an evaluator and a record joined; kept as Optuna studies."""

from promptsearch.runs.loop.outcome import Outcome
from promptsearch.runs.loop.search_loop import prepare, search
from promptsearch.runs.loop.shared_loop import Budget, Sharing
from promptsearch.runs.selection.nested_cv import Estimate, judge, nested
from promptsearch.runs.selection.rerun import Repeat
from promptsearch.runs.selection.select import SELECTIONS, Selected, Selection, choose_selection
from promptsearch.runs.store.record import RunRecord, Trial
from promptsearch.runs.store.restore import bank_from_dict, bank_to_dict, rebuild_searcher
from promptsearch.runs.store.storage import default_storage, open_storage
from promptsearch.runs.store.trial_claims import Claims

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
