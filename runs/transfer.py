"""The prompts of a finished run judged on the test pictures of other data sets with the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Problem, Split, Task, open_pictures
from promptsearch.evaluators.task import FeatureSource
from promptsearch.runs.pipeline import compare_on, test_row
from promptsearch.runs.result import RunResult, Transfer
from promptsearch.runs.store.memory_record import Record


@dataclass(frozen=True)
class Target:
    """A data set that prompts are transferred to.

    Attributes:
        source: Its pictures.
        order: For each of its labels, the label of that class in the data set of the run.
    """

    source: FeatureSource
    order: np.ndarray

    def open_test(self) -> Split:
        """Open the test pictures, with the labels of the run's data set."""
        test = Task.test_only(self.source).open_test()
        return Split(test.features, self.order[test.labels], test.indices)


def open_targets(problem: Problem, names: Sequence[str]) -> list[Target]:
    """Open the data sets that a run's prompts are transferred to, with the run's model.

    Args:
        problem: The model and the pictures of the run.
        names: Data sets, as for `--dataset`.

    Raises:
        InputError: A data set is the run's own or given twice, does not exist, or has other classes.
        PromptSearchError: A data set is neither here nor can be downloaded.
    """
    targets = []
    for name in names:
        if name == problem.source.name or names.count(name) > 1:
            raise InputError(f"--transfer {name}: already judged on; name each other data set once")
        source = open_pictures(problem.encoder, name, problem.cache)
        ours, theirs = problem.source.class_names, source.class_names
        if set(ours) != set(theirs):
            alone = [*sorted(set(ours) - set(theirs)), *sorted(set(theirs) - set(ours))]
            raise InputError(
                f"--transfer {name}: its {len(theirs)} classes are not the {len(ours)} of {problem.source.name} "
                f"({alone[0]!r} is in one only); name a data set with the same classes"
            )
        targets.append(Target(source, np.array([ours.index(c) for c in theirs])))
    return targets


def transfer(problem: Problem, record: Record, result: RunResult, targets: Sequence[Target]) -> RunResult:
    """Judge the winner and the baselines of a finished run on other data sets' test pictures, and record it.

        result = run_search(problem, bank, record)
        result = transfer(problem, record, result, open_targets(problem, ["pacs-sketch"]))
        print(result.transfers[0].winner.test, result.transfers[0].paired.verdict)

    Args:
        problem: The model and the pictures of the run.
        record: The run.
        result: What it found.
        targets: The other data sets. One that this winner was judged on before is not opened again.

    Returns:
        The result with its transfers, in the order of `targets`.
    """
    known = {t.dataset: t for t in result.transfers}
    names = [target.source.name for target in targets]
    if all(name in known for name in names):
        return replace(result, transfers=tuple(known[name] for name in names))
    config = record.config.search
    evaluator = problem.evaluator(problem.task(config.shots, config.seed, config.unlabelled))
    for target in targets:
        if target.source.name not in known:
            known[target.source.name] = _judge(evaluator, record, result, target)
    found = replace(result, transfers=tuple(known.values()))
    record.finish(found.to_dict())
    return replace(found, transfers=tuple(known[name] for name in names))


def _judge(evaluator: Evaluator, record: Record, result: RunResult, target: Target) -> Transfer:
    winner, name = result.winner.prompt_set, target.source.name
    opened = dict(record.get("transfers") or {})
    opened[name] = [*opened.get(name, []), winner.key]
    record.set("transfers", opened)
    test = target.open_test()
    rows = [test_row(evaluator, row.prompt_set, test, name=row.name) for row in result.baselines]
    return Transfer(
        dataset=name,
        test_pictures=len(test),
        winner=test_row(evaluator, winner, test),
        baselines=tuple(rows),
        paired=compare_on(evaluator, test, winner, result.baselines[0].prompt_set),
        choices=len(set(opened[name])),
    )
