"""What a run's options ask for beside its searcher and its evaluator: a proposer, and what proposals are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.evaluators import Evaluator, Problem
    from promptsearch.evaluators.fluency import Fluency
    from promptsearch.runs import RunRecord
    from promptsearch.search import Searcher
    from promptsearch.search.proposers import Proposer


def equip(searcher: Searcher, problem: Problem, evaluator: Evaluator, record: RunRecord) -> None:
    """Hand an evaluator what rates fluency, where the run's options ask for it, and a writing searcher its tools.

    Raises:
        InputError: a language model that is not the run's.
    """
    from promptsearch.runs.loop.search_loop import writing_tools
    from promptsearch.runs.store.reply_journal import StudyJournal
    from promptsearch.search import WritingSearcher

    names = evaluator.task.class_names
    if "fluency lm" in record.config:
        evaluator.fluency = _fluency(problem, record.config, names)
    if not isinstance(searcher, WritingSearcher):
        return

    proposer: Proposer | None = None
    usage: Callable[[], Mapping[str, int]] = dict
    if "lm" in record.config:
        from promptsearch.commands.lm_options import open_lm
        from promptsearch.search.proposers.language import LanguageProposer

        model = open_lm(record.config, record.get("lm") or {})
        proposer, usage = LanguageProposer(model), lambda: model.usage
    elif (name := record.config.get("proposer", "grammar")) != "grammar":
        from promptsearch.search.proposers import PROPOSERS

        proposer = PROPOSERS[name](searcher.space)
    tools = writing_tools(evaluator, problem.encoder, proposer=proposer, usage=usage, journal=StudyJournal(record))
    searcher.equip(tools)


def _fluency(problem: Problem, config: Mapping[str, Any], names: Sequence[str]) -> Fluency:
    """Rates prompts by the run's language model, which is loaded when a prompt is new to the cache."""
    from promptsearch.errors import InputError
    from promptsearch.evaluators.encoding.model_spec import resolve_device
    from promptsearch.evaluators.fluency import Fluency
    from promptsearch.lm import LocalModel, locate

    place = locate(config["fluency lm"], "--fluency-lm")
    if place.fingerprint != config["fluency lm fingerprint"]:
        raise InputError(f"--fluency-lm {place.name}: not the model that this run was made with; give that one")
    key = {"lm": place.fingerprint, "device": resolve_device("auto")}
    return Fluency(LocalModel(place).log_likelihood, problem.cache, key, names)


def reported(searcher: Searcher) -> dict[str, Any]:
    """What a result says of proposals: how many there were, how many were no use and why, what they cost."""
    from promptsearch.search import WritingSearcher

    return {"proposals": searcher.reported()} if isinstance(searcher, WritingSearcher) else {}
