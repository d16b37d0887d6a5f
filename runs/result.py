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
        """Read what `to_dict` returned."""
        below = data.get("unknown_below")
        return cls(float(data["logit_scale"]), None if below is None else float(below))


def calibrate(evaluator: Evaluator, winner: PromptSet) -> Calibration:
    """Estimate the calibration of a winner on the few-shot pictures that it was found on.

    Args:
        evaluator: The evaluator of the run, whose logit scale is fitted to the few labels.
        winner: The chosen prompt set.
    """
    cosines = evaluator.task.support.features @ evaluator.class_weights(winner).T  # (N, C)
    best = probabilities(cosines, evaluator.logit_scale).max(axis=1)  # (N,)
    return Calibration(float(evaluator.logit_scale), threshold(best))


def threshold(best: np.ndarray, refused: float = REFUSED) -> float | None:
    """Return the probability below which a picture counts as of no known class.

    It is the k-th smallest of the n few-shot pictures' largest probabilities, k = floor(refused (n + 1)): of new
    pictures of the same classes at most k / (n + 1) are expected below it, if they are like the few (split conformal
    prediction, Vovk et al. 2005; the score is the maximum softmax probability of Hendrycks & Gimpel 2017).

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
    """The scores of one prompt set, or of what a gradient method learnt.

    Attributes:
        templates: its templates, or the texts nearest to what was learnt.
        support: figures on the few-shot pictures, by name ("accuracy", "xent", ...).
        name: what a baseline or a learnt row is called.
        weights: of the templates in a weighted ensemble, in their order.
        class_names: the class names in the prompts, if they differ from the data set's own names.
        phrases: for each class its phrases with their weights, if a class has several; replaces `class_names`.
        test: accuracy on the test split with its 95 % interval, if it was measured.
        report: further metrics there: by class, and of the probabilities.
        words: number of words, for the front of several aims.
        fluency: mean log-likelihood per token (nats) of decoded texts.
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
        """Read what `to_dict` gave."""
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
        method: one of `runs.SELECTIONS`.
        tried: prompt sets that were compared, or searches that were repeated.
        scored: those of them that were scored for the choice alone.
        shares: probability (or weight) of each template of the winner, if the method computes one.
        kept: number of folds in which each template of the winner was chosen again.
        refused: the prompt set that was chosen first, if the hand-written prompt was better on held-out pictures and
            was kept instead.
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
        """Read what `to_dict` gave."""
        shares, kept = _tuple(data.get("shares")), _tuple(data.get("kept"))
        refused = PromptSet.from_dict(data["refused"]) if data.get("refused") else None
        return cls(data.get("method", "none"), data.get("tried", 0), data.get("scored", 0), shares, kept, refused)


@dataclass(frozen=True)
class Gains:
    """What each change from the hand-written prompt gained: the accuracy lost if that change alone is undone.

    Attributes:
        where: the pictures that it was measured on: "test" or "few-shot".
        templates: for each template of the winner what the set loses without it; empty for a single template.
        classes: for each class what is lost if it is called by its own name; None where it is, empty if all are.
    """

    where: str
    templates: tuple[float, ...] = ()
    classes: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the gains as `gains` of the JSON document."""
        return {"where": self.where, "templates": list(self.templates), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gains:
        """Read what `to_dict` gave."""
        return cls(data["where"], tuple(data["templates"]), tuple(data["classes"]))


@dataclass(frozen=True)
class Transfer:
    """The winner and the baselines of a run on the test pictures of another data set with the same classes.

    Attributes:
        dataset: name of the other data set.
        test_pictures: size of its test split.
        winner: the run's winner, with its accuracy there.
        baselines: the run's baselines, with their accuracies there.
        paired: the winner and the first baseline on the same pictures there.
        choices: number of different winners for which this run opened that test split.
    """

    dataset: str
    test_pictures: int
    winner: Row
    baselines: tuple[Row, ...]
    paired: Paired
    choices: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in `transfers` of the JSON document."""
        return {
            "dataset": self.dataset,
            "winner": self.winner.to_dict(),
            "baselines": [r.to_dict() for r in self.baselines],
            **_paired_to_dict("paired", self.paired, self.baselines[0].name if self.baselines else "hand-written"),
            "test_pictures": self.test_pictures,
            "choices": self.choices,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transfer:
        """Read what `to_dict` gave."""
        return cls(
            data["dataset"],
            data["test_pictures"],
            Row.from_dict(data["winner"]),
            _rows(data["baselines"]) or (),
            Paired.from_dict(data["paired"]),
            data.get("choices", 1),
        )


@dataclass(frozen=True)
class RunResult:
    """The result of a run: the winner, its accuracy with an interval, and the baselines it is compared with.

        result = run_search(problem, bank, SearchConfig(), record)
        print(result.winner.templates, result.winner.test.value, result.paired.verdict)
        json.dumps(result.to_dict())

    Attributes:
        command: the searcher or method.
        model, dataset, bank: their names.
        shots, seed: shots per class and seed of the drawn pictures.
        objective: the quantity that the search optimised.
        winner: the chosen prompt set, with its accuracy on the test split.
        baselines: prompt sets to compare the winner with; `paired` compares it with the first one.
        runners_up: the search's best other prompt sets.
        paired: the winner's and the first baseline's accuracy on the same test pictures; None without a test split.
        test_pictures: size of the test split; 0 if there is none.
        evaluations: prompt sets scored.
        seconds: wall time in seconds.
        study, storage: name of the run's study and where it is stored; `storage` is empty if it is not stored.
        trials: number of recorded prompt sets; None for a training.
        ended: why the search ended: "exhausted", "trials" or "timeout".
        selection: how the winner was chosen.
        estimate: the accuracy expected on new pictures, if it was asked for.
        calibration: what turns the winner's cosines into probabilities; None for a training.
        test_opened, test_choices: how often the test split was opened, and for how many different winners.
        front: with several objectives, the Pareto front: the prompt sets that no other one beats in all objectives.
        decoded: texts nearest to learnt vectors, scored as text.
        proposals: counts of a proposer's prompts: {"proposed", "repaired", "rejected", "usage"}.
        steps, losses: number of steps and the losses of a training.
        transfers: the winner's accuracy on other data sets, if it was measured.
        gains: what each template and each class's phrases gained; None where nothing differs from the hand-written
            prompt, and in documents of earlier versions.
        classes: the data set's class names.
        notes: warnings for the reader of the result.
        version: version of promptsearch.
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
