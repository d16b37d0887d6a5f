"""Judges the prompts of a finished run on the test pictures of other data sets with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Problem, Split, Task, open_pictures
from promptsearch.evaluators.data.picture_features import LiveFeatures
from promptsearch.evaluators.task import FeatureSource
from promptsearch.runs.pipeline import compare_on, test_row
from promptsearch.runs.result import RunResult, Transfer
from promptsearch.runs.store.record import Record


@dataclass(frozen=True)
class Target:
    """A data set that prompts are transferred to.

    Attributes:
        source: The pictures of the data set.
        order: For each label of the data set, the label of the same class in the data set of the run.
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
        source = _opened(problem, name)
        if (why := _differs(problem, source)) is not None:
            raise InputError(f"--transfer {name}: {why}; name a data set with the same classes")
        targets.append(_target(problem, source))
    return targets


def targets_of_each(problems: Mapping[str, Problem], names: Sequence[str]) -> dict[str, list[Target]]:
    """Open the data sets that several data sets' prompts are transferred to, each to those with its classes.

    Args:
        problems: The data sets that are drawn from, by name, all with the same encoder.
        names: The data sets to transfer to.

    Returns:
        The targets of each data set that has any, by its name.

    Raises:
        InputError: A data set is given twice, does not exist, or no data set that is drawn from has its classes.
        PromptSearchError: A data set is neither here nor can be downloaded.
    """
    found: dict[str, list[Target]] = {}
    first = next(iter(problems.values()))
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--transfer {name}: already judged on; name each other data set once")
        source = _opened(first, name)
        same = [own for own, p in problems.items() if own != name and _differs(p, source) is None]
        if not same:
            others = [p for own, p in problems.items() if own != name]
            why = _differs(others[0], source) if others else "it is the data set that is drawn from"
            raise InputError(f"--transfer {name}: {why}; name a data set with the same classes")
        for own in same:
            found.setdefault(own, []).append(_target(problems[own], source))
    return found


def _opened(problem: Problem, name: str) -> FeatureSource:
    """Open a data set to transfer to; errors name the option by which it was given."""
    try:
        return open_pictures(problem.encoder, name, problem.cache)
    except InputError as e:
        raise InputError(f"--transfer {e.message.removeprefix('--dataset ')}") from e


def _differs(problem: Problem, source: FeatureSource) -> str | None:
    """Return how the classes of two data sets differ, or None if they are the same."""
    ours, theirs = problem.source.class_names, source.class_names
    if set(ours) == set(theirs):
        return None
    alone = [*sorted(set(ours) - set(theirs)), *sorted(set(theirs) - set(ours))]
    return f"its {len(theirs)} classes are not the {len(ours)} of {problem.source.name} ({alone[0]!r} is in one only)"


def _target(problem: Problem, source: FeatureSource) -> Target:
    return Target(source, np.array([problem.source.class_names.index(c) for c in source.class_names]))


def transfer(problem: Problem, record: Record, result: RunResult, targets: Sequence[Target]) -> RunResult:
    """Judge the winner and the baselines of a finished run on other data sets' test pictures, and record it.

        result = run_search(problem, bank, record)
        result = transfer(problem, record, result, open_targets(problem, ["pacs-sketch"]))
        print(result.transfers[0].winner.test, result.transfers[0].paired.verdict)

    Args:
        problem: The model and the pictures of the run.
        record: The run.
        result: The result of the run.
        targets: The other data sets. One that this winner was judged on before is not opened again, unless it has
            changed.

    Returns:
        The result with its transfers, in the order of `targets`.
    """
    prints = {target.source.name: target.source.fingerprint for target in targets}
    judged = dict(record.get("transferred") or {})  # a run of an earlier version has none
    changed = {name for name, found in prints.items() if judged.get(name, found) != found}
    known = {t.dataset: t for t in result.transfers if t.dataset not in changed}
    names = [target.source.name for target in targets]
    if all(name in known for name in names):
        return replace(result, transfers=tuple(known[name] for name in names))
    config = record.config.search
    evaluator = problem.evaluator(problem.task(config.shots, config.seed, config.unlabelled))
    for target in targets:
        if target.source.name not in known:
            trained = _count_trained(target.source, problem.source)
            known[target.source.name] = replace(_judge(evaluator, record, result, target), shared=trained)
    found = replace(result, transfers=tuple(known.values()))
    record.set("transferred", {**judged, **prints})
    record.finish(found.to_dict())
    return replace(found, transfers=tuple(known[name] for name in names))


def _count_trained(source: FeatureSource, own: FeatureSource) -> int:
    """Count the test pictures of a data set that are training pictures of the run's, where both have pictures."""
    return source.count_trained(own) if isinstance(source, LiveFeatures) and isinstance(own, LiveFeatures) else 0


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
