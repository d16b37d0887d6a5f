"""What every gradient baseline does around its training: open the problem, the record, train, score, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from promptsearch import __version__
from promptsearch.commands.progress import progress_bar
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.banks import PromptSet
    from promptsearch.evaluators import Evaluator, Problem, Split, Task
    from promptsearch.search.gradient import Checkpoint, Learned, TextTower, Words

UNREADABLE = "What was learnt are vectors; the words shown are those nearest to them, scored as text below."


@dataclass
class Setting:
    """What a method trains with."""

    problem: Problem
    task: Task
    evaluator: Evaluator
    checkpoint: Checkpoint
    progress: Callable[[int, int, str], None]
    options: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.task.class_names

    @property
    def support(self) -> Split:
        return self.task.support

    @property
    def logit_scale(self) -> float:
        return self.problem.encoder.logit_scale

    def tower(self) -> TextTower:
        from promptsearch.search.gradient import TextTower

        return TextTower(self.problem.encoder.model, self.problem.encoder.tokenizer)

    def words(self) -> Words:
        from promptsearch.search.gradient import Words

        self.progress(0, 0, "reading the vocabulary")
        return Words(self.tower())

    def bank_weights(self, templates: Sequence[str]) -> np.ndarray:
        """(T, C, D) unit class features of each template alone."""
        from promptsearch.banks import PromptSet

        sets = [PromptSet.of(t) for t in templates]
        self.evaluator.score(sets)  # encodes them all in one call
        return np.stack([self.evaluator.class_weights(s) for s in sets])

    def pictures(self, split: str, indices: np.ndarray) -> Iterator[Image]:
        """The pictures themselves.

        Raises:
            InputError: there is a feature pack only.
        """
        from promptsearch.evaluators.conditions import degrade, split_condition
        from promptsearch.evaluators.data import open_dataset
        from promptsearch.evaluators.features import LiveFeatures

        source = self.problem.source
        if not isinstance(source, LiveFeatures):
            raise InputError(
                f"--dataset {source.name}: there is a feature pack only, and this needs the pictures; "
                "give them with --dataset FOLDER"
            )
        name, condition = split_condition(source.name)
        columns = {k: self.options[k] for k in ("picture_column", "label_column")}
        for picture in open_dataset(name, **columns).pictures(split, indices):
            yield degrade(picture, condition)


@dataclass
class Row:
    """Class weights with the text that stands for them, and whose features they classify."""

    name: str
    weights: np.ndarray
    texts: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    readable: bool = True


@dataclass
class Trained:
    """What a method hands back.

    Attributes:
        winner: what it learnt, as class weights.
        others: what else is to be scored, the decoded texts above all.
        support, test: picture features instead of the model's own, where pictures were prompted.
    """

    learned: Learned
    winner: Row
    others: list[Row] = field(default_factory=list)
    baselines: list[tuple[str, PromptSet]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    support: np.ndarray | None = None
    test: Callable[[np.ndarray], np.ndarray] | None = None


def run_learning(
    command: str,
    own: dict[str, Any],
    train: Callable[[Setting], Trained],
    *,
    save: Path | None,
    shots: int,
    seed: int,
    storage: str | None,
    study: str | None,
    as_json: bool,
    quiet: bool,
    fork: str | None = None,
    **options: Any,
) -> None:
    """Train on the problem that the options name, keep the run as a study, and print the result.

    Args:
        own: the command's own options, part of what must be the same for the run to be resumed.
    """
    from promptsearch.commands.searching import default_study, emit
    from promptsearch.evaluators import open_problem
    from promptsearch.runs import RunRecord
    from promptsearch.search.gradient import Checkpoint, Learned

    if fork is not None:
        raise InputError(f"--fork {fork}: a training begins from its own options; leave it out")
    with progress_bar(quiet or as_json) as progress:
        started = time.perf_counter()
        problem = open_problem(**options, progress=progress)
        spec = problem.encoder.spec
        config = {
            "command": command,
            "model": spec.name,
            "model fingerprint": spec.fingerprint,
            "precision": options["precision"],
            "dataset": problem.source.name,
            "data fingerprint": problem.source.fingerprint,
            "shots": shots,
            "seed": seed,
            "objective": "xent",
            **own,
        }
        about: dict[str, Any] = {"version": __version__, "started": _now(), "pictures": problem.source.origin}
        about["classes"] = list(problem.source.class_names)
        record = RunRecord.open(study or default_study(config), storage, config, about)
        kept = _folder() / f"{default_study(config)}.safetensors"
        result = record.result
        if result is None or (save and not kept.exists()):
            task = problem.task(shots, seed)
            drawn = {"support": task.support.indices.tolist(), "validation": task.validation.indices.tolist()}
            record.set("draw", drawn)
            checkpoint = Checkpoint(kept.with_suffix(".pt"), default_study(config))
            setting = Setting(problem, task, problem.evaluator(task), checkpoint, progress, options)
            trained = train(setting)
            trained.learned.save(kept, {k: v for k, v in config.items() if k not in own})
            if result is None:
                record.set("test_opened", [*(record.get("test_opened") or []), _now()])
                head = {k: config[k] for k in ("command", "model", "dataset", "shots", "seed")}
                head |= {"bank": own.get("bank"), "objective": "xent"}
                head |= {"run": {"study": record.name, "storage": record.url}}
                head |= {"notes": problem.notes + trained.notes, "version": __version__}
                result, details = _document(head, trained, setting, started)
                record.set("details", details)
                record.finish(result)
            checkpoint.remove()
        problem.encoder.close()
    if save:
        Learned.load(kept).save(save)
    emit(result, as_json, quiet)
    if not as_json:
        _print_decoded(result)


def _document(
    head: dict[str, Any], trained: Trained, setting: Setting, started: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of reports/result.py, with what was decoded (scored as text) under `decoded`; and the details."""
    from promptsearch.banks import BASELINE, PromptSet
    from promptsearch.evaluators import Score, paired_difference, wilson
    from promptsearch.reports import build_details
    from promptsearch.search.gradient import score_weights

    task, scale = setting.task, setting.logit_scale
    setting.progress(0, 0, "opening the test split")
    test = task.open_test()
    features = test.features if trained.test is None else trained.test(test.indices)
    support = task.support.features if trained.support is None else trained.support

    def scored(weights: np.ndarray, on: np.ndarray, tested: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        hits, xent = score_weights(weights, on, task.support.labels, scale)
        test_hits, _ = score_weights(weights, tested, test.labels, scale)
        score = Score(float(hits.mean()), xent)
        figures = {k: round(v, 6) for k, v in score.to_dict().items()}
        interval = wilson(int(test_hits.sum()), len(test))
        return {"support": figures, "test": _interval(interval, "accuracy")}, test_hits

    def shown(row: Row) -> dict[str, Any]:
        data: dict[str, Any] = {"name": row.name, "templates": row.texts}
        if row.class_names is not None:
            data["class_names"] = row.class_names
        return {**data, "readable": row.readable}

    figures, hits = scored(trained.winner.weights, support, features)
    winner = {**shown(trained.winner), **figures}
    decoded = [{**shown(r), **scored(r.weights, task.support.features, test.features)[0]} for r in trained.others]
    rivals = [("hand-written", PromptSet.of(BASELINE)), *trained.baselines]
    baselines = []
    against = hits
    for i, (name, prompt_set) in enumerate(rivals):
        row, base_hits = scored(setting.evaluator.class_weights(prompt_set), task.support.features, test.features)
        against = base_hits if i == 0 else against
        baselines.append({"name": name, "templates": [str(t) for t in prompt_set.templates], **row})
    paired = paired_difference(hits, against)
    plain = setting.evaluator.predictions(rivals[0][1], test)
    learnt = (features @ trained.winner.weights.T).argmax(axis=1)
    details = build_details(setting.class_names, test, plain, learnt)
    document = {
        **head,
        "evaluations": 1 + len(decoded) + len(baselines),
        "steps": trained.learned.steps,
        "losses": [round(x, 6) for x in _thinned(trained.learned.losses)],
        "seconds": round(time.perf_counter() - started, 3),
        "winner": winner,
        "decoded": decoded,
        "runners_up": [],
        "baselines": baselines,
        "paired": {"baseline": "hand-written", **_interval(paired, "difference")},
        "test_pictures": len(test),
    }
    return document, details


def _thinned(losses: list[float], most: int = 200) -> list[float]:
    """At most about `most` losses, evenly spaced, the last one always."""
    step = -(-len(losses) // most) or 1
    return losses[::-1][::step][::-1]


def _interval(interval: Any, name: str) -> dict[str, float]:
    return {name: round(interval.value, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def _print_decoded(result: dict[str, Any]) -> None:
    """Each decoded text, and what is lost from the learnt vectors to it."""
    best = result["winner"]["test"]["accuracy"]
    for row in result.get("decoded", []):
        lost = 100 * (row["test"]["accuracy"] - best)
        click.echo(f"{row['name']}: {100 * row['test']['accuracy']:.2f} % of the test pictures ({lost:+.2f} points)")
        for text in row["templates"][:10]:
            click.echo(f"  {text}")
        if "class_names" in row:
            click.echo(f"  names: {', '.join(row['class_names'][:20])}")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _folder() -> Path:
    """Where checkpoints and learnt vectors lie: beside the runs of this user."""
    from promptsearch.runs import default_storage

    return Path(default_storage().removeprefix("sqlite:///")).parent / "learnt"


def decoded_row(setting: Setting, name: str, texts: Sequence[str], class_names: Sequence[str] | None = None) -> Row:
    """Templates (one, or one per class) that were decoded from vectors, scored as the texts they are."""
    names = list(class_names or setting.class_names)
    filled = [texts[c % len(texts)].replace("{}", n) for c, n in enumerate(names)]
    weights = setting.problem.encoder.encode_texts(filled)
    return Row(name, weights, list(texts), None if class_names is None else names, readable=False)
