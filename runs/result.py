"""The result of a run with its calibration.  The JSON document, the tables and the reports are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator, Interval, Score
from promptsearch.evaluators.intervals import Paired
from promptsearch.evaluators.scoring.metrics import ClassReport
from promptsearch.runs.selection.nested_cv import Estimate

#: Largest share of pictures of the known classes that `unknown_below` may call unknown.
REFUSED = 0.05


@dataclass(frozen=True)
class Calibration:
    """The figures, estimated on the few-shot pictures, that turn a winner's cosines into probabilities.

    Attributes:
        logit_scale: What cosines are multiplied by before the softmax.
        unknown_below: Largest probability below which a picture is of no known class; None if there are too few
            few-shot pictures to estimate it.
    """

    logit_scale: float
    unknown_below: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as `calibration` of the JSON document."""
        return {"logit_scale": self.logit_scale, "unknown_below": self.unknown_below}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_dict` has written."""
        below = data.get("unknown_below")
        return cls(float(data["logit_scale"]), None if below is None else float(below))


def calibrate(evaluator: Evaluator, winner: PromptSet) -> Calibration:
    """Estimate the calibration of a winner on its few-shot pictures.

    Args:
        evaluator: The evaluator of the run, whose logit scale is fitted to the few labels.
        winner: The chosen prompt set.
    """
    cosines = evaluator.task.support.features @ evaluator.class_weights(winner).T  # (N, C)
    best = probabilities(cosines, evaluator.logit_scale).max(axis=1)  # (N,)
    return Calibration(float(evaluator.logit_scale), threshold(best))


def threshold(best: np.ndarray, refused: float = REFUSED) -> float | None:
    """Return the probability below which a picture counts as of no known class.

    The threshold is the k-th smallest of the n few-shot pictures' largest probabilities, k = floor(refused (n + 1)). If
    new pictures of the same classes resemble the few-shot ones, at most a share k / (n + 1) of them is expected below
    it (split conformal prediction, Vovk et al. 2005; the score is the maximum softmax probability of Hendrycks & Gimpel
    2017).

    Args:
        best: (n,) largest probability of each few-shot picture.
        refused: Largest share of pictures of known classes to call unknown.

    Returns:
        The threshold, or None if there are fewer than 1 / refused - 1 pictures.
    """
    k = int(refused * (len(best) + 1) + 1e-9)
    return float(np.sort(best)[k - 1]) if k else None


def probabilities(cosines: np.ndarray, logit_scale: float) -> np.ndarray:
    """Return the softmax (N, C) of cosines (N, C) times a logit scale, in float64."""
    logits = logit_scale * cosines.astype(np.float64)  # (N, C)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Row:
    """The scores of one prompt set, or of the vectors that a gradient baseline learnt.

    Attributes:
        templates: The templates, or the texts nearest to the learnt vectors.
        support: Scores on the few-shot pictures, by name ("accuracy", "xent", ...).
        name: Name of a baseline or of a learnt row.
        weights: Weights of the templates, in their order, if the ensemble is weighted.
        class_names: The class names in the prompts, if they differ from the data set's own names.
        phrases: The phrases of each class with their weights, if a class has several; replaces `class_names`.
        test: Accuracy on the test split with its 95 % interval, if it was measured.
        report: Further metrics on the test split, by class and of the probabilities.
        words: Number of words, for the Pareto front.
        fluency: Mean log-likelihood per token (nats) of decoded texts.
        readable: False for learnt vectors; None for prompts that were searched for.
    """

    templates: tuple[str, ...]
    support: Mapping[str, float]
    name: str = ""
    weights: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    phrases: tuple[Mapping[str, float], ...] | None = None
    test: Interval | None = None
    words: int | None = None
    fluency: float | None = None
    readable: bool | None = None
    report: ClassReport | None = None

    @classmethod
    def of(cls, prompt_set: PromptSet, score: Score, **more: Any) -> Row:
        """Return the row of a scored prompt set."""
        data = prompt_set.to_dict()
        return cls(
            tuple(str(t) for t in prompt_set.templates),
            {k: round(v, 6) for k, v in score.to_dict().items()},
            weights=prompt_set.weights,
            class_names=prompt_set.class_names,
            phrases=_tuple(data.get("phrases")),
            **more,
        )

    @property
    def prompt_set(self) -> PromptSet:
        """The prompt set of this row."""
        return PromptSet(self.templates, self.weights, self.class_names, self.phrases)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as part of the JSON document."""
        data: dict[str, Any] = {"name": self.name} if self.name else {}
        data["templates"] = list(self.templates)
        data |= {} if self.weights is None else {"weights": list(self.weights)}
        data |= {} if self.class_names is None else {"class_names": list(self.class_names)}
        data |= {} if self.phrases is None else {"phrases": [dict(of_class) for of_class in self.phrases]}
        data |= {} if self.fluency is None else {"fluency": self.fluency}
        data |= {} if self.readable is None else {"readable": self.readable}
        data["support"] = dict(self.support)
        data |= {} if self.test is None else {"test": self.test.to_dict("accuracy")}
        data |= {} if self.report is None else {"metrics": self.report.to_dict()}
        return data | ({} if self.words is None else {"words": self.words})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """Return the object that `to_dict` has written."""
        return cls(
            tuple(data["templates"]),
            data["support"],
            data.get("name", ""),
            _tuple(data.get("weights")),
            _tuple(data.get("class_names")),
            _tuple(data.get("phrases")),
            Interval.from_dict(data["test"], "accuracy") if "test" in data else None,
            data.get("words"),
            data.get("fluency"),
            data.get("readable"),
            ClassReport.from_dict(data["metrics"]) if "metrics" in data else None,
        )


@dataclass(frozen=True)
class Choice:
    """How the winner was chosen among the prompt sets that the search found.

    Attributes:
        method: One of `runs.SELECTIONS`.
        tried: Number of prompt sets that were compared, or of searches that were repeated.
        scored: Number of these prompt sets that the search had not scored.
        shares: Probability (or weight) of each template of the winner, if the method computes it.
        kept: Number of folds in which each template of the winner was chosen again.
        refused: The prompt set that was chosen first, if the hand-written prompt was better on held-out pictures and
            replaced it.
    """

    method: str = "none"
    tried: int = 0
    scored: int = 0
    shares: tuple[float | None, ...] | None = None
    kept: tuple[int, ...] | None = None
    refused: PromptSet | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as `selection` of the JSON document."""
        shares = None if self.shares is None else list(self.shares)
        data: dict[str, Any] = {"method": self.method, "tried": self.tried, "scored": self.scored, "shares": shares}
        data |= {} if self.refused is None else {"refused": self.refused.to_dict()}
        return data if self.kept is None else {**data, "kept": list(self.kept)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        """Return the object that `to_dict` has written."""
        shares, kept = _tuple(data.get("shares")), _tuple(data.get("kept"))
        refused = PromptSet.from_dict(data["refused"]) if data.get("refused") else None
        return cls(data.get("method", "none"), data.get("tried", 0), data.get("scored", 0), shares, kept, refused)


@dataclass(frozen=True)
class Gains:
    """The gain of each change from the hand-written prompt: the accuracy that is lost if only that change is undone.

    Attributes:
        where: The pictures on which it was measured: "test" or "few-shot".
        templates: The accuracy lost without each template of the winner; empty for a single template.
        classes: The accuracy lost if each class is called by its own name; None for a class that already is, and
            empty if all are.
    """

    where: str
    templates: tuple[float, ...] = ()
    classes: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the gains as `gains` of the JSON document."""
        return {"where": self.where, "templates": list(self.templates), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gains:
        """Return the object that `to_dict` has written."""
        return cls(data["where"], tuple(data["templates"]), tuple(data["classes"]))


@dataclass(frozen=True)
class Transfer:
    """The winner and the baselines of a run on the test pictures of another data set with the same classes.

    Attributes:
        dataset: Name of the other data set.
        test_pictures: Size of its test split.
        winner: The run's winner, with its accuracy on that split.
        baselines: The run's baselines, with their accuracies on that split.
        paired: Comparison of the winner with the first baseline on that split.
        choices: Number of different winners for which this run opened that split.
        shared: Number of that split's pictures that are training pictures of the run's data set, byte for byte.
    """

    dataset: str
    test_pictures: int
    winner: Row
    baselines: tuple[Row, ...]
    paired: Paired
    choices: int = 1
    shared: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in `transfers` of the JSON document."""
        return {
            "dataset": self.dataset,
            "winner": self.winner.to_dict(),
            "baselines": [r.to_dict() for r in self.baselines],
            **_paired_to_dict("paired", self.paired, self.baselines[0].name if self.baselines else "hand-written"),
            "test_pictures": self.test_pictures,
            "choices": self.choices,
            **({"shared": self.shared} if self.shared else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transfer:
        """Return the object that `to_dict` has written."""
        return cls(
            data["dataset"],
            data["test_pictures"],
            Row.from_dict(data["winner"]),
            _rows(data["baselines"]) or (),
            Paired.from_dict(data["paired"]),
            data.get("choices", 1),
            data.get("shared", 0),
        )


@dataclass(frozen=True)
class RunResult:
    """The result of a run: the winner, its accuracy with an interval, and the baselines it is compared with.

        result = run_search(problem, bank, SearchConfig(), record)
        print(result.winner.templates, result.winner.test.value, result.paired.verdict)
        json.dumps(result.to_dict())

    Attributes:
        command: Name of the searcher or method.
        model, dataset, bank: Their names.
        shots, seed: Shots per class and seed of the drawn pictures; of pictures given in Python that are all used, the
            number of the class with the fewest.
        objective: Name of the objective of the search.
        winner: The chosen prompt set, with its accuracy on the test split.
        baselines: Prompt sets to compare the winner with; `paired` compares it with the first one.
        runners_up: The best other prompt sets that the search found.
        paired: Comparison of the winner with the first baseline on the same test pictures; None without a test split.
        test_pictures: Size of the test split; 0 if there is none.
        evaluations: Number of prompt sets scored.
        seconds: Wall time in seconds.
        study, storage: Name of the run's study, and where it is stored; `storage` is empty if the run is not stored.
        trials: Number of recorded prompt sets; None for a training.
        ended: Why the search ended: "exhausted", "trials" or "timeout".
        selection: How the winner was chosen.
        estimate: The accuracy expected on new pictures, if it was estimated.
        calibration: The figures that turn the winner's cosines into probabilities; None for a training.
        test_opened, test_choices: How often the test split was opened, and for how many different winners.
        front: The Pareto front of a search with several aims: the prompt sets that no other one dominates.
        decoded: The texts nearest to learnt vectors, scored as text.
        proposals: Counts of a proposer's prompts: {"proposed", "repaired", "rejected", "usage"}.
        steps, losses: Number of steps and the losses of a training.
        transfers: The winner's accuracy on other data sets, if it was measured.
        gains: The gain of each template and of each class's phrases; None if nothing differs from the hand-written
            prompt, and in documents of earlier versions.
        classes: The data set's class names.
        notes: Warnings for the reader of the result.
        version: Version of promptsearch.
    """

    command: str
    model: str
    dataset: str
    shots: int
    seed: int
    winner: Row
    baselines: tuple[Row, ...]
    paired: Paired | None = None
    test_pictures: int = 0
    bank: str | None = None
    objective: str | None = None
    runners_up: tuple[Row, ...] = ()
    evaluations: int = 0
    seconds: float = 0.0
    study: str = ""
    storage: str = ""
    trials: int | None = None
    ended: str | None = None
    selection: Choice | None = None
    estimate: Estimate | None = None
    calibration: Calibration | None = None
    test_opened: int = 0
    test_choices: int = 0
    front: tuple[Row, ...] | None = None
    decoded: tuple[Row, ...] | None = None
    proposals: Mapping[str, Any] | None = None
    steps: int | None = None
    losses: tuple[float, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    gains: Gains | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    version: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document that `--json` prints and studies store."""
        run: dict[str, Any] = {"study": self.study, "storage": self.storage}
        run |= {} if self.trials is None else {"trials": self.trials}
        run |= {} if self.ended is None else {"ended": self.ended}
        data: dict[str, Any] = {
            **{k: getattr(self, k) for k in ("command", "model", "dataset", "shots", "seed", "bank", "objective")},
            "run": run,
            **({"classes": list(self.classes)} if self.classes else {}),
            "notes": list(self.notes),
            "version": self.version,
        }
        data |= {} if self.proposals is None else {"proposals": dict(self.proposals)}
        data |= {} if self.front is None else {"front": [r.to_dict() for r in self.front]}
        data |= {} if self.selection is None else {"selection": self.selection.to_dict()}
        data |= {} if self.estimate is None else {"estimate": self.estimate.to_dict()}
        data |= {} if self.calibration is None else {"calibration": self.calibration.to_dict()}
        if self.test_opened:
            data["test_opened"] = {"opened": self.test_opened, "choices": self.test_choices}
        data |= {"evaluations": self.evaluations}
        data |= {} if self.steps is None else {"steps": self.steps, "losses": list(self.losses)}
        data |= {"seconds": round(self.seconds, 3), "winner": self.winner.to_dict()}
        data |= {} if self.decoded is None else {"decoded": [r.to_dict() for r in self.decoded]}
        data |= {
            "runners_up": [r.to_dict() for r in self.runners_up],
            "baselines": [r.to_dict() for r in self.baselines],
            **_paired_to_dict("paired", self.paired, self.baselines[0].name if self.baselines else "hand-written"),
            "test_pictures": self.test_pictures,
        }
        data |= {} if self.gains is None else {"gains": self.gains.to_dict()}
        return data | ({"transfers": [t.to_dict() for t in self.transfers]} if self.transfers else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunResult:
        """Read a document that `to_dict` returned, in this version or an earlier one."""
        run, times = data.get("run", {}), int(data.get("paired") is not None)
        opened = {"opened": times, "choices": times, **(data.get("test_opened") or {})}
        bare: dict[str, Any] = {"command": "", "model": "", "dataset": "", "shots": 0, "seed": 0}
        same = ("command", "model", "dataset", "shots", "seed", "bank", "objective", "evaluations", "seconds", "steps")
        return cls(
            **{k: data[k] for k in same if k in data},
            **{k: default for k, default in bare.items() if k not in data},
            winner=Row.from_dict(data["winner"]),
            baselines=_rows(data.get("baselines")) or (),
            runners_up=_rows(data.get("runners_up")) or (),
            paired=Paired.from_dict(data["paired"]) if data.get("paired") else None,
            test_pictures=data.get("test_pictures", 0),
            study=run.get("study", ""),
            storage=run.get("storage", ""),
            trials=run.get("trials"),
            ended=run.get("ended"),
            selection=Choice.from_dict(data["selection"]) if data.get("selection") else None,
            estimate=Estimate.from_dict(data["estimate"]) if data.get("estimate") else None,
            calibration=Calibration.from_dict(data["calibration"]) if data.get("calibration") else None,
            test_opened=opened["opened"],
            test_choices=opened["choices"],
            front=_rows(data.get("front")),
            decoded=_rows(data.get("decoded")),
            proposals=data.get("proposals"),
            losses=tuple(data.get("losses") or ()),
            transfers=tuple(Transfer.from_dict(t) for t in data.get("transfers") or ()),
            gains=Gains.from_dict(data["gains"]) if data.get("gains") else None,
            classes=tuple(data.get("classes") or ()),
            notes=tuple(data.get("notes") or ()),
            version=data.get("version", ""),
        )


def _paired_to_dict(key: str, paired: Paired | None, baseline: str) -> dict[str, Any]:
    return {} if paired is None else {key: {"baseline": baseline, **paired.to_dict()}}


def _rows(rows: Sequence[Mapping[str, Any]] | None) -> tuple[Row, ...] | None:
    return None if rows is None else tuple(Row.from_dict(r) for r in rows)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
