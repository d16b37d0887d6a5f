"""What a run says in the end: a document for machines, a table for people."""

from promptsearch.reports.details import build_details, confusion_matrix
from promptsearch.reports.result import Baseline, build_result, front_rows, standard_baselines

__all__ = ["Baseline", "build_details", "build_result", "front_rows", "confusion_matrix", "standard_baselines"]
