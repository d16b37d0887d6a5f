"""What every gradient baseline does around its training: open the problem, the record, train, score, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch import __version__
from promptsearch.commands.options import refuse_idle_pictures
from promptsearch.commands.progress import progress_bar
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Row, Setting, Trained


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
    fluency_lm: str | None = None,
    **options: Any,
) -> None:
    """Train on the problem that the options name, keep the run as a study, and print the result.

    Args:
        own: the command's own options, part of what must be the same for the run to be resumed.
        fluency_lm: the language model that rates the texts that were decoded.
    """
    from promptsearch.commands.search_run import default_study, emit
    from promptsearch.evaluators import open_problem
    from promptsearch.runs import RunRecord
    from promptsearch.runs.baselines.training_context import Setting, TextTools
    from promptsearch.runs.store.storage import learnt_folder
    from promptsearch.search.gradient import Checkpoint, Learned

    rate = None
    if fluency_lm is not None:
        from promptsearch.lm import LocalModel, locate

        place = locate(fluency_lm, "--fluency-lm")
        own = {**own, "fluency lm": place.fingerprint}
        rate = LocalModel(place).log_likelihood
    with progress_bar(quiet or as_json) as progress:
        started = time.perf_counter()
        problem = open_problem(**options, progress=progress)
        if (pictures := options.get("pictures")) is not None:
            refuse_idle_pictures(pictures, problem)
            own = {**own, "pictures fingerprint": problem.source.pictures_fingerprint}
        task = problem.task(shots, seed)
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
        kept = learnt_folder() / f"{default_study(config)}.safetensors"
        result = record.result
        if result is None or (save and not kept.exists()):
            drawn = {"support": task.support.indices.tolist(), "validation": task.validation.indices.tolist()}
            new = record.get("draw") is None
            record.set("draw", drawn)
            checkpoint = Checkpoint(kept.with_suffix(".pt"), default_study(config))
            tools = TextTools(problem.encoder)
            setting = Setting(problem, task, problem.evaluator(task), tools, progress, checkpoint)
            try:
                trained = train(setting)
            except InputError:  # nothing was begun: a wrong value leaves no run behind
                if new and not checkpoint.path.exists():
                    record.delete()
                raise
            trained.learned.save(kept, {k: v for k, v in config.items() if k not in own})
            if result is None:
                record.set("test_opened", [*(record.get("test_opened") or []), _now()])
                head = {k: config[k] for k in ("command", "model", "dataset", "shots", "seed")}
                head |= {"bank": own.get("bank"), "objective": "xent"}
                head |= {"run": {"study": record.name, "storage": record.url}}
                head |= {"notes": problem.notes + trained.notes, "version": __version__}
                result, details = _document(head, trained, setting, started, rate)
                record.set("details", details)
                record.finish(result)
            checkpoint.remove()
        problem.encoder.close()
    if save:
        Learned.load(kept).save(save)
    emit(result, as_json, quiet)


def _document(
    head: dict[str, Any],
    trained: Trained,
    setting: Setting,
    started: float,
    rate: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of reports/result.py, with what was decoded (scored as text) under `decoded`; and the details."""
    from promptsearch.banks import BASELINE, PromptSet
    from promptsearch.evaluators import Score, paired_difference, wilson
    from promptsearch.reports import build_details
    from promptsearch.runs.baselines.training_context import filled
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
        if row.shares is not None:
            data["weights"] = row.shares
        if row.class_names is not None:
            data["class_names"] = row.class_names
        if rate is not None and row.texts:
            texts = filled(row.texts, row.class_names or setting.class_names)
            likelihood, tokens = rate(texts).T
            data["fluency"] = round(float((likelihood / tokens).mean()), 4)
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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
