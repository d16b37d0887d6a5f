"""Computes a grid of methods, shots, seeds and data sets, and opens each test split once at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from promptsearch.config import without_names
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Evaluator, Problem, Progress, Split, Task, no_progress
from promptsearch.evaluators.cache import digest_of
from promptsearch.evaluators.scoring.metrics import ClassReport, Judged, measure, measure_judged, predict, score_weights
from promptsearch.evaluators.task import draw
from promptsearch.runs.baselines.learners import Prompted, classify_prompted
from promptsearch.runs.baselines.tip_adapter import cached_logits, score_cached
from promptsearch.runs.baselines.training_context import Setting, TextTools
from promptsearch.runs.compare.cells import Cell, Cells
from promptsearch.runs.compare.methods import Method
from promptsearch.runs.store.record import now
from promptsearch.runs.transfer import Target
from promptsearch.version import __version__

log = logging.getLogger(__name__)

#: The result of a cell: its figures and its arrays.
Computed = tuple[dict[str, Any], dict[str, np.ndarray]]

#: Computes cells somewhere, and yields their results as they finish.
Spread = Callable[[Iterator[tuple[Cell, Method]]], Iterator[tuple[Cell, Computed]]]

#: Seconds between two checks of cells that other processes are computing.
POLL = 1.0

#: Largest number of templates that are stored for a row; only the average of the whole bank has more.
SHOWN = 32


@dataclass(frozen=True)
class Tested:
    """One row of a cell with its test result.

    Attributes:
        cell: The cell.
        name: Name of the row; empty for the method's own result.
        dataset: The data set whose test pictures were used: the cell's own, or "OWN → OTHER" for a transfer.
        figures: The row's figures.
        support: Accuracy and cross-entropy on the support set.
        validation: The same figures on the validation set, if they were computed.
        hits: (N,) bool, whether each test picture is classified correctly.
        report: Further metrics on the test pictures.
    """

    cell: Cell
    name: str
    dataset: str
    figures: Mapping[str, Any]
    support: Mapping[str, float]
    validation: Mapping[str, float] | None
    hits: np.ndarray  # (N,) bool
    report: ClassReport


@dataclass
class Comparison:
    """Computes the cells of a grid that are not in its study yet, and tests all of them.

        comparison = Comparison(cells, problems, methods, shots=(1, 16), seeds=3)
        comparison.compute()
        rows = comparison.test()

    All methods get the same draws: `shots` pictures per class to learn from, and min(shots, 4) others for validation,
    which no method uses and on which results are only reported. Cells are computed seed by seed, so that an interrupted
    comparison has complete draws.

    Args:
        cells: Stores the results.
        problems: Data sets by name, all with the same encoder.
        methods: Methods by name; a method that cannot run on a data set is skipped there (see `skipped`).
        shots: Numbers of labelled pictures per class.
        seeds: Number of draws.
        progress: Called before each cell, and while a cell is computed with what its method reports.
        targets: For each data set, others with the same classes on whose test pictures its results are judged too.

    Raises:
        InputError: A class has fewer pictures than `shots`, or no method can run.
    """

    cells: Cells
    problems: Mapping[str, Problem]
    methods: Mapping[str, Method]
    shots: Sequence[int]
    seeds: int
    progress: Progress = no_progress
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in self.problems.values():
            labels, _ = problem.source.labels("train")
            names, fewer = problem.source.class_names, problem.allow_fewer
            draw(labels, max(self.shots), 0, class_names=names, allow_fewer=fewer)
        self._tools = TextTools(next(iter(self.problems.values())).encoder)
        self._evaluator: tuple[tuple[str, int, int], Evaluator] | None = None
        self._counted = (0, 0)
        if not self.grid():
            raise InputError(f"--methods {','.join(self.methods)}: {' '.join(self.skipped)}")

    @property
    def skipped(self) -> list[str]:
        """A sentence for each skipped method that says why."""
        reasons = []
        for method in self.methods.values():
            lacking = {name: why for name, p in self.problems.items() if (why := self._lacks(method, p))}
            if lacking:
                reasons.append(f"{method.name} is skipped on {', '.join(lacking)}: {next(iter(lacking.values()))}.")
        return reasons

    @property
    def imbalances(self) -> list[str]:
        """A sentence for each data set in which classes have fewer pictures than the largest number of shots."""
        shots = max(self.shots)
        sentences = [(name, p.task(shots, 0).imbalance()) for name, p in self.problems.items() if p.allow_fewer]
        return [f"{name}: {sentence}" for name, sentence in sentences if sentence]

    def grid(self) -> list[tuple[Cell, Method]]:
        """Return every cell with its method, in the order in which they are computed."""
        return [
            (self._cell(method, dataset, problem, shots, seed), method)
            for seed in range(self.seeds)
            for dataset, problem in self.problems.items()
            for shots in self.shots
            for method in self.methods.values()
            if (method.seeds is None or seed < method.seeds) and self._lacks(method, problem) is None
        ]

    def compute(self, spread: Spread | None = None) -> None:
        """Compute the missing cells; processes with the same comparison share the work.

        Args:
            spread: Computes cells elsewhere, several at a time; by default they are computed in this process.

        Raises:
            PromptSearchError: A method failed; the message names the cell.
        """
        grid = self.grid()
        done = self.cells.done().keys()
        left = [(cell, method) for cell, method in grid if cell.key not in done]
        with self.cells.alive():
            self._compute(left, len(grid), spread or self._here)

    def _compute(self, left: list[tuple[Cell, Method]], total: int, spread: Spread) -> None:
        from promptsearch.search.gradient import Checkpoint

        while left:
            elsewhere: list[tuple[Cell, Method]] = []
            claims: dict[str, int] = {}
            for cell, (figures, arrays) in spread(self._claimed(left, claims, elsewhere, total)):
                if not self.cells.finish(claims[cell.key], cell, figures, arrays):
                    elsewhere.append((cell, self.methods[cell.method]))
                Checkpoint(self.cells.checkpoint(cell), cell.key).remove()
            done = self.cells.done().keys()
            left = [(cell, method) for cell, method in elsewhere if cell.key not in done]
            if left:
                self.progress(total - len(left), total, f"{left[0][0]} (computed by another process)")
                time.sleep(POLL)

    def _claimed(
        self,
        left: Sequence[tuple[Cell, Method]],
        claims: dict[str, int],
        elsewhere: list[tuple[Cell, Method]],
        total: int,
    ) -> Iterator[tuple[Cell, Method]]:
        """Yield the cells that no other process is computing, and claim each one before it is yielded."""
        for i, (cell, method) in enumerate(left):
            self._counted = (total - len(left) + i, total)
            self.progress(*self._counted, str(cell))
            claim = self.cells.claim(cell)
            if claim is None:
                elsewhere.append((cell, method))
            else:
                claims[cell.key] = claim
                yield cell, method

    def _here(self, cells: Iterator[tuple[Cell, Method]]) -> Iterator[tuple[Cell, Computed]]:
        for cell, method in cells:
            yield cell, self.work(cell, method)

    def test(self) -> list[Tested]:
        """Open the test split of each data set once, and test all results of all cells on it.

        Raises:
            PromptSearchError: The result of a computed cell was deleted.
        """
        record = self.cells.record
        done = self.cells.done()
        if gone := [str(cell) for cell, _ in self.grid() if cell.key not in done]:
            raise PromptSearchError(
                f"run {record.name!r}: the result of {gone[0]} was deleted after it was computed ({len(gone)} in all); "
                "run the same command again"
            )
        record.set("test_opened", [*(record.get("test_opened") or []), now()])
        found: list[Tested] = []
        for name, problem in self.problems.items():
            self.progress(0, 0, f"opening the test split of {name}")
            task = problem.task(min(self.shots), 0)
            test = task.open_test()
            cells = [(cell, method) for cell, method in self.grid() if cell.dataset == name]
            self._classify_prompted(problem, [c for c, m in cells if m.prompts_pictures], done, test)
            for cell, method in cells:
                found += self._tested(cell, method, done[cell.key], test)
            for target in self.targets.get(name, ()):
                self.progress(0, 0, f"opening the test split of {target.source.name}")
                judged, test = f"{name} → {target.source.name}", target.open_test()
                for cell, method in cells:
                    # a visual prompt would have to encode the other data set's pictures
                    if not method.prompts_pictures:
                        found += self._tested(cell, method, done[cell.key], test, judged)
        return found

    def _classify_prompted(
        self, problem: Problem, cells: Sequence[Cell], done: Mapping[str, Mapping[str, Any]], test: Split
    ) -> None:
        """Compute and store the predictions of visual prompts, each of which must encode all test pictures."""
        left = [cell for cell in cells if self.cells.judged(cell) is None]
        if not left:
            return
        prompts = []
        for cell in left:
            arrays = self.cells.arrays(cell)
            tensors = {k.removeprefix("tensor "): v for k, v in arrays.items() if k.startswith("tensor ")}
            prompts.append(Prompted(done[cell.key]["options"]["kind"], tensors, arrays["row 0"]))
        found = classify_prompted(problem, prompts, "test", test.indices)
        for cell, cosines in zip(left, found, strict=True):
            scale = done[cell.key].get("logit_scale") or 1.0
            self.cells.keep_judged(cell, Judged.of(cosines, test.labels, scale))

    def _lacks(self, method: Method, problem: Problem) -> str | None:
        """Return why a method cannot run on a data set, or None if it can."""
        from promptsearch.search.gradient import takes_tokens

        if not method.prompts_pictures:
            return None
        if not problem.source.has_pictures:
            return "it needs pictures, and the data set is a feature pack only (give --pictures FOLDER)"
        if method.options["kind"] != "border" and not takes_tokens(problem.encoder.model):
            return "the picture tower of this model is not a ViT"
        return None

    def _cell(self, method: Method, dataset: str, problem: Problem, shots: int, seed: int) -> Cell:
        source = problem.source
        data = source.pictures_fingerprint if method.prompts_pictures else source.fingerprint
        inputs = digest_of([data, list(source.class_names), without_names(method.options)])
        return Cell(method.name, dataset, shots, seed, inputs)

    def _setting(self, cell: Cell) -> Setting:
        from promptsearch.search.gradient import Checkpoint

        problem = self.problems[cell.dataset]
        at = (cell.dataset, cell.shots, cell.seed)
        if self._evaluator is None or self._evaluator[0] != at:
            self._evaluator = (at, problem.evaluator(problem.task(cell.shots, cell.seed)))
        evaluator = self._evaluator[1]
        checkpoint = Checkpoint(self.cells.checkpoint(cell), cell.key)
        # A seed for each cell, so that starts are independent between data sets and numbers of shots with the same
        # draw; the spelling of a folder's path does not change it.
        start = int(digest_of(["start", problem.source.identity, cell.shots, cell.seed])[:8], 16)

        def progress(done: int, total: int, what: str) -> None:
            self.progress(*self._counted, f"{cell}: {what}{f', {done} of {total}' if total else ''}")

        return Setting(problem, evaluator.task, evaluator, self._tools, progress, checkpoint, start)

    def work(self, cell: Cell, method: Method) -> Computed:
        """Run a method on a draw.

        Args:
            cell: The cell.
            method: Its method.

        Returns:
            The cell's figures and arrays.

        Raises:
            PromptSearchError: The method failed; the message names the cell.
        """
        setting = self._setting(cell)
        assert setting.checkpoint is not None  # set by `_setting`
        whole = not setting.checkpoint.path.exists()
        started = time.perf_counter()
        try:
            found = method.find(setting)
        except (InputError, PromptSearchError) as e:
            raise type(e)(f"{cell}: {e}") from e
        seconds = time.perf_counter() - started
        # All methods use the scale fitted to the labels, except those with a cache, which use the model's own.
        task, scale = setting.task, setting.evaluator.logit_scale

        def scored(split: Split, weights: np.ndarray, features: np.ndarray) -> dict[str, float]:
            if "cache features" in found.tensors:
                hits, xent = score_cached(weights, found.tensors, features, split.labels, setting.logit_scale)
            else:
                hits, xent = score_weights(weights, features, split.labels, scale)
            return {"accuracy": round(float(hits.mean()), 6), "xent": round(xent, 6)}

        rows: list[dict[str, Any]] = []
        arrays = {f"tensor {k}": v for k, v in found.tensors.items()}
        for i, row in enumerate(found.rows):
            arrays[f"row {i}"] = row.weights
            support = task.support.features if found.support is None or i else found.support
            readable = row.readable and (method.readable or i > 0)
            data: dict[str, Any] = {"name": row.name if i else "", "readable": readable}
            data |= {"templates": row.texts[:SHOWN], "size": len(row.texts), "class_names": row.class_names}
            data["support"] = scored(task.support, row.weights, support)
            if not method.prompts_pictures:
                data["validation"] = scored(task.validation, row.weights, task.validation.features)
            rows.append(data)
        figures = {
            "rows": rows,
            "support": rows[0]["support"],
            "evaluations": found.evaluations,
            "estimate": found.estimate,
            "steps": found.steps,
            "start": setting.training_seed if found.steps else None,
            "usage": dict(found.usage),
            # The duration of a training that was resumed from a checkpoint is unknown.
            "seconds": round(seconds, 4) if whole else None,
            "logit_scale": round(setting.logit_scale if "cache features" in found.tensors else scale, 6),
            "options": dict(method.options),
            "version": __version__,
            "draw": {"support": _indices(task, "support"), "validation": _indices(task, "validation")},
        }
        log.info("%s: %.1f s, few-shot accuracy %.1f %%", cell, seconds, 100 * rows[0]["support"]["accuracy"])
        return figures, arrays

    def _tested(
        self, cell: Cell, method: Method, figures: Mapping[str, Any], test: Split, place: str | None = None
    ) -> list[Tested]:
        place = place or cell.dataset
        arrays = self.cells.arrays(cell)
        classes = len(self.problems[cell.dataset].source.class_names)
        # Cells of earlier versions lack the scale, so their calibration is not measured.
        scale = figures.get("logit_scale")
        found = []
        for i, row in enumerate(figures["rows"]):
            if method.prompts_pictures:
                judged = self.cells.judged(cell)
                assert judged is not None  # `_classify_prompted` has stored it
                hits = judged.predicted == test.labels
                report = measure_judged(judged, test.labels, classes, scale or 1.0)
            else:
                logits = test.features @ arrays[f"row {i}"].T  # (N, C)
                if "tensor cache features" in arrays:
                    cache = {k.removeprefix("tensor "): v for k, v in arrays.items()}
                    logits = cached_logits(arrays[f"row {i}"], cache, test.features, self._tools.encoder.logit_scale)
                hits = predict(logits, test.labels) == test.labels
                report = measure(logits, test.labels, 1.0 if "tensor cache features" in arrays else scale or 1.0)
            report = replace(report, logit_scale=scale, ece=None if scale is None else report.ece)
            of_row = (row["support"], row.get("validation"), hits, report)
            found.append(Tested(cell, row["name"], place, {**figures, **row}, *of_row))
        return found


def _indices(task: Task, split: str) -> str:
    """Return a short hash of the drawn pictures' indices, which is the same for every method of a draw."""
    return digest_of(getattr(task, split).indices.tolist())[:12]
