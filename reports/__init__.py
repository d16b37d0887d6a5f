"""Reports on finished runs: JSON documents, terminal tables, HTML pages and exports."""

from promptsearch.reports.details import build_details, confusion_matrix
from promptsearch.reports.result import Baseline, build_result, front_rows, standard_baselines

__all__ = ["Baseline", "build_details", "build_result", "front_rows", "confusion_matrix", "standard_baselines"]
