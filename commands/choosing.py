"""Between the end of a search and the opening of the test split: choose the winner and say how good it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.banks import Bank, PromptSet
    from promptsearch.evaluators import Evaluator
    from promptsearch.runs import Outcome, RunRecord
    from promptsearch.search import Searcher

#: Searches that are not repeated in a fold: a sampler's model would take too long each time.
ONCE = ("tpe",)


def choose(
    bank: Bank,
    searcher: Searcher,
    evaluator: Evaluator,
    outcome: Outcome,
    record: RunRecord,
    progress: Callable[[int, int, str], None],
    estimate: bool = True,
) -> tuple[PromptSet, dict[str, Any]]:
    """The set that a run keeps, and what its result says of the choice: `selection`, `estimate`, `held_out`.

    Args:
        estimate: whether to repeat everything in folds for an estimate.
    """
    from promptsearch.banks import BASELINE, PromptSet
    from promptsearch.evaluators.stats.paired import compare_paired
    from promptsearch.runs import Repeat, Selection, judge
    from promptsearch.runs.store.restore import give_start
    from promptsearch.search import TrialSearcher, WritingSearcher, build_searcher
    from promptsearch.search.proposal_search import Memory

    config, task = record.config, evaluator.task
    method = config.get("select", "none")
    by_trials = isinstance(searcher, TrialSearcher)

    def fresh(over: Bank) -> Searcher:
        made = build_searcher(config["command"], over, config)
        give_start(record, made)
        if isinstance(made, WritingSearcher) and isinstance(searcher, WritingSearcher):
            made.equip(replace(searcher.tools, journal=Memory()))  # what it writes is not the run's
        return made

    selection = Selection(method, bank, searcher.objective, config["seed"], whole=not by_trials)
    found = tuple(s for s, _ in outcome.ranked)
    trials = outcome.evaluations if by_trials else None
    written = isinstance(searcher, WritingSearcher) and searcher.tools.proposer is not None  # it would be asked again
    once = config["command"] in ONCE or written
    repeat = Repeat(None if once else fresh, bank, evaluator, found, trials)
    progress(0, 0, "choosing the winner")
    chosen = selection.choose(evaluator, outcome.ranked, repeat)
    document: dict[str, Any] = {
        "selection": {
            "method": method,
            "tried": chosen.tried,
            "scored": chosen.scored,
            "shares": [chosen.shares.get(t) for t in chosen.prompt_set.templates] if chosen.shares else None,
        }
    }
    if not task.labelled:
        return chosen.prompt_set, document
    if estimate:
        e = judge(selection, repeat, chosen, progress)
        document["selection"]["kept"] = [e.kept.get(t, 0) for t in chosen.prompt_set.templates]
        document["estimate"] = {
            "accuracy": round(e.accuracy.value, 6),
            "low": round(e.accuracy.low, 6),
            "high": round(e.accuracy.high, 6),
            "naive": round(e.naive, 6),
            "way": e.way,
            "folds": e.folds,
            "search_repeated": e.repeated,
            "against": {"baseline": "hand-written", **e.against.to_dict()},
        }
    plain = PromptSet.of(BASELINE)
    held = task.validation
    paired = compare_paired(evaluator.hits(chosen.prompt_set, held), evaluator.hits(plain, held), config["seed"])
    document["held_out"] = {"baseline": "hand-written", **paired.to_dict()}
    return chosen.prompt_set, document


def open_test_once(record: RunRecord, winner: PromptSet) -> dict[str, Any]:
    """Record that the test split is opened for this winner, and warn where it was opened for another before.

    Returns:
        How often it was opened, and for how many choices: part of the result.
    """
    kept = record.get("test_opened") or []
    opened = [kept] if isinstance(kept, str) else list(kept)
    choices = list(record.get("test_choices") or [])
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record.set("test_choices", [*choices, winner.key])
    record.set("test_opened", [*opened, now])
    if set(choices) - {winner.key}:
        print(
            f"Warning: the test split was opened for run {record.name!r} before ({opened[-1] if opened else now}), "
            "for another choice; to pick among choices by their test accuracy is no test",
            file=sys.stderr,
        )
    return {"opened": len(opened) + 1, "choices": len({*choices, winner.key})}
