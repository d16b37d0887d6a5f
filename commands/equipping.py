"""What a run's options ask for beside its searcher and its evaluator: a proposer, and what proposals are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from promptsearch.banks import PromptSet
    from promptsearch.evaluators import Evaluator, Problem
    from promptsearch.runs import RunRecord
    from promptsearch.search import Searcher
    from promptsearch.search.proposers import Proposer


def equip(searcher: Searcher, problem: Problem, evaluator: Evaluator, record: RunRecord) -> None:
    """Hand a searcher that writes its own templates what it needs; others are left alone."""
    from promptsearch.runs.journal import StudyJournal
    from promptsearch.search import Tools, WritingSearcher

    if not isinstance(searcher, WritingSearcher):
        return
    names = evaluator.task.class_names

    def vectors(sets: list[PromptSet]) -> np.ndarray:
        """(n, C D): all classes' unit weights behind one another, of unit length together."""
        return np.stack([evaluator.class_weights(s).reshape(-1) for s in sets]) / len(names) ** 0.5

    proposer: Proposer | None = None
    usage: Callable[[], Mapping[str, int]] = dict
    if "lm" in record.config:
        from promptsearch.commands.lm_options import open_lm
        from promptsearch.search.proposers.language import LanguageProposer

        model = open_lm(record.config, record.get("lm") or {})
        proposer, usage = LanguageProposer(model), lambda: model.usage
    tools = Tools(
        proposer=proposer,
        usage=usage,
        class_names=names,
        vectors=vectors,  # type: ignore[arg-type]
        fits=lambda templates: [problem.encoder.fits([t.fill(n) for n in names]) for t in templates],
        journal=StudyJournal(record),
    )
    searcher.equip(tools)


def reported(searcher: Searcher) -> dict[str, Any]:
    """What a result says of proposals: how many there were, how many were no use and why, what they cost."""
    from promptsearch.search import WritingSearcher

    return {"proposals": searcher.reported()} if isinstance(searcher, WritingSearcher) else {}
