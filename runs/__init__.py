"""Runs: a searcher, an evaluator and a record joined; kept as Optuna studies."""

from promptsearch.runs.record import RunRecord
from promptsearch.runs.run import Outcome, search
from promptsearch.runs.storage import default_storage, open_storage

__all__ = ["Outcome", "RunRecord", "default_storage", "open_storage", "search"]
