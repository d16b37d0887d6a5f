"""Classifies other pictures with the winner of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.config import MachineConfig, ProblemConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Encoder, Progress, default_cache, no_progress, resolve_model
from promptsearch.evaluators.encoding.device_check import checked
from promptsearch.evaluators.encoding.given_model import GIVEN
from promptsearch.runs.open_run import opened_config, reopen
from promptsearch.runs.result import Calibration, calibrate, probabilities
from promptsearch.runs.store.record import RunRecord
from promptsearch.runs.winner import winner_of


@dataclass(frozen=True)
class Classifier:
    """Class weights with a calibration, and the encoder of the pictures that they classify.

        classifier = open_classifier(RunRecord.load("my-run"))
        features = classifier.encoder.encode_pictures([Image.open("cat.png")])
        classifier.probabilities(features)  # (1, C)

    Attributes:
        name: The run, or the exported folder.
        class_names: The data set's C class names.
        class_weights: (C, D) unit text vectors of the classes.
        calibration: The logit scale, and the probability below which a picture is of no known class.
        encoder: The model.
    """

    name: str
    class_names: tuple[str, ...]
    class_weights: np.ndarray
    calibration: Calibration
    encoder: Encoder

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return the probability (N, C) of each class for unit vectors (N, D) of pictures."""
        return probabilities(features @ self.class_weights.T, self.calibration.logit_scale)


def open_classifier(
    record: RunRecord,
    *,
    model: str | None = None,
    weights: Path | None = None,
    dataset: str | None = None,
    machine: MachineConfig = MachineConfig(),  # noqa: B008 (frozen)
    progress: Progress = no_progress,
) -> Classifier:
    """Open the winner of a run and its model.  The pictures that it was found on are not needed.

    Args:
        record: The run.
        model: The run's model, if its path is different on this machine.
        weights: The run's weights, if their path is different on this machine.
        dataset: The run's data set, if its path is different on this machine; read only for a run that has no
            calibration: an unfinished one, or one of an earlier version.
        machine: How this machine computes.
        progress: Called during long work.

    Raises:
        InputError: The run's winner does not consist of prompts, or its model or pictures are not on this machine.
    """
    winner = winner_of(record)
    kept = (record.result or {}).get("calibration")
    if kept is not None and "classes" in record.about:
        encoder = open_encoder(record, model=model, weights=weights, machine=machine, progress=progress)
        calibration, classes = Calibration.from_dict(kept), tuple(record.about["classes"])
    else:
        where = {"model": model, "weights": weights, "dataset": dataset}
        try:
            problem = reopen(record, **where, machine=machine, progress=progress)  # type: ignore[arg-type]
        except PromptSearchError as e:
            raise InputError(
                f"run {record.name!r} has no calibration (it is unfinished, or of an earlier version), and its "
                f"pictures cannot be opened to compute one: {e}"
            ) from e
        search = record.config.search
        evaluator = problem.evaluator(problem.task(search.shots, search.seed, search.unlabelled))
        calibration, classes = calibrate(evaluator, winner), problem.source.class_names
        encoder = problem.encoder
    vectors = class_weights(winner, classes, encoder.encode_texts)
    encoder.close()
    return Classifier(record.name, classes, vectors, calibration, encoder)


def open_encoder(
    record: RunRecord,
    *,
    model: str | None = None,
    weights: Path | None = None,
    machine: MachineConfig = MachineConfig(),  # noqa: B008 (frozen)
    progress: Progress = no_progress,
) -> Encoder:
    """Open the model of a run without its pictures; arguments as for `open_classifier`.

    Raises:
        InputError: The model is not on this machine, or is not the run's.
    """
    if record.config.model.endswith(GIVEN):
        raise InputError(
            f"run {record.name!r}: its model was given as objects, which no run holds; call fit with the same model, "
            "pictures and storage, which returns the recorded result"
        )
    opened = opened_config(record) or ProblemConfig(model=record.config.model, precision=record.config.precision)
    if model is not None:
        opened = replace(opened, model=model, weights=None)
    if weights is not None:
        opened = replace(opened, weights=str(weights))
    cache, file = default_cache(), None if opened.weights is None else Path(opened.weights)
    try:
        spec = resolve_model(opened.model, cache, weights=file, device=machine.device, precision=opened.precision)
    except PromptSearchError as e:
        remedy = "" if model or weights else "; say where it is now with --model or --weights"
        raise InputError(f"run {record.name!r}: its model cannot be opened: {e}{remedy}") from e
    if spec.device == "mps":
        spec, _ = checked(spec, cache)
    if spec.fingerprint != record.config.model_fingerprint:
        raise InputError(
            f"run {record.name!r} was made with other weights of {opened.model} (fingerprint "
            f"{record.config.model_fingerprint!r}, here {spec.fingerprint!r}); name its own with --model and --weights"
        )
    return Encoder(spec, cache, progress, machine.encode_batch)


def class_weights(
    winner: PromptSet, class_names: Sequence[str], text_vectors: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Return the unit class weights (C, D) of a prompt set: the normalised mean of its prompts' unit vectors.

    Args:
        winner: The prompt set.
        class_names: The C class names.
        text_vectors: Returns unit vectors (n, D) of n texts.
    """
    prompts = winner.prompts_of(class_names)
    vectors = text_vectors([text for of_class in prompts for text, _ in of_class]).astype(np.float64)
    shares = np.array([share for of_class in prompts for _, share in of_class])
    begins = np.cumsum([0, *map(len, prompts)])[:-1]
    mean = np.add.reduceat(vectors * shares[:, None], begins, axis=0)  # (C, D)
    return (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype(np.float32)
