"""Runs a searcher on an evaluator, and stores each run as an Optuna study."""

from promptsearch.runs.open_run import best_first, check_search, memory_run, open_run, reopen, resolved
from promptsearch.runs.pipeline import (
    LanguageTools,
    TestSplitWarning,
    Watch,
    begin_estimate,
    join_search,
    run_search,
    shareable,
)
from promptsearch.runs.result import Row, RunResult, Transfer
from promptsearch.runs.search_loop import Budget, Outcome, Sharing, prepare, search
from promptsearch.runs.selection.nested_cv import Estimate, nested
from promptsearch.runs.selection.select import SELECTIONS, Repeat, Selected, Selection, choose_selection
from promptsearch.runs.store.record import (
    MemoryRecord,
    Record,
    RunRecord,
    Trial,
    bank_from_dict,
    bank_to_dict,
    restore_bank,
)
from promptsearch.runs.store.storage import default_storage, open_storage
from promptsearch.runs.store.trial_claims import Claims
from promptsearch.runs.transfer import Target, open_targets, transfer

__all__ = [
    "SELECTIONS",
    "Budget",
    "Claims",
    "Estimate",
    "LanguageTools",
    "MemoryRecord",
    "Outcome",
    "Record",
    "Repeat",
    "Row",
    "RunRecord",
    "RunResult",
    "Selected",
    "Selection",
    "Sharing",
    "Target",
    "TestSplitWarning",
    "Transfer",
    "Trial",
    "Watch",
    "bank_from_dict",
    "bank_to_dict",
    "begin_estimate",
    "best_first",
    "check_search",
    "choose_selection",
    "default_storage",
    "join_search",
    "memory_run",
    "nested",
    "open_run",
    "open_storage",
    "open_targets",
    "prepare",
    "reopen",
    "resolved",
    "restore_bank",
    "run_search",
    "search",
    "shareable",
    "transfer",
]
