"""What a run says in the end: a document for machines, a table for people."""

from promptsearch.reports.result import Baseline, build_result, standard_baselines

__all__ = ["Baseline", "build_result", "standard_baselines"]
