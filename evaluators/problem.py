"""Opens a model and a data set by name, and decides what `auto` stands for."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from promptsearch.banks import load_class_names
from promptsearch.config import MachineConfig, ProblemConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import Cache, default_cache
from promptsearch.evaluators.data.array_features import ArrayFeatures
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.data.dataset_names import SHORT_NAMES
from promptsearch.evaluators.data.datasets import dataset_cached, open_dataset
from promptsearch.evaluators.data.hub import find_cached, hub_reachable
from promptsearch.evaluators.data.picture_features import (
    LiveFeatures,
    PackFeatures,
    has_pack,
    packs_of,
    renamed_fingerprint,
)
from promptsearch.evaluators.encoding.device_check import checked
from promptsearch.evaluators.encoding.encoder import Encoder, Progress, no_progress
from promptsearch.evaluators.encoding.model_spec import (
    EMBEDDED,
    RN50_REPO,
    WEIGHT_FILES,
    ModelSpec,
    resolve_model,
)
from promptsearch.evaluators.evaluator import Evaluator, RatesFluency
from promptsearch.evaluators.task import Task

log = logging.getLogger(__name__)


@dataclass
class Problem:
    """A model with its pictures: `task()` draws the few shots, `evaluator()` scores prompts on them.

    problem = open_problem("zeroshot", "cifar10-dark")
    evaluator = problem.evaluator(problem.task(shots=16, seed=0))
    """

    encoder: Encoder
    source: PackFeatures | LiveFeatures | ArrayFeatures
    cache: Cache
    notes: list[str] = field(default_factory=list)
    memory: int | None = None
    other_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    allow_fewer: bool = False
    own_names: tuple[str, ...] = ()  # the data set's, where `call_classes` gave others

    def task(self, shots: int, seed: int, unlabelled: int | None = None) -> Task:
        """Draw the pictures of a few-shot task.

        Args:
            shots: Labelled pictures per class; 0 to draw pictures without their labels.
            seed: Seed of the draw.
            unlabelled: Number of pictures to draw if `shots` is 0.

        Raises:
            InputError: There are too few pictures, or a number is out of range.
        """
        if not isinstance(self.source, ArrayFeatures):
            return Task.build(self.source, shots, seed, unlabelled, self.allow_fewer)
        if self.source.whole:
            return Task.whole(self.source, shots, seed)
        # Given pictures are searched on; only `compare` looks at validation pictures.
        return Task.build(self.source, shots, seed, unlabelled, self.allow_fewer, validation=0)

    def call_classes(self, names: str | Sequence[str]) -> None:
        """Call the classes by other names than the data set's.

        Args:
            names: A name for each class, in order, or a file of names (see `load_class_names`), whose further names for
                a class are stored in `other_names`.

        Raises:
            InputError: The names do not fit the classes.
        """
        own = self.own_names = self.source.class_names
        if isinstance(names, str):
            called, self.other_names = load_class_names(names).of(own)
            spoken_names(f"--class-names {names}", called)
        else:
            called = list(names)
            if len(called) != len(own):
                raise InputError(f"{len(called)} class names for {len(own)} classes; give one for each")
        self.source.class_names = tuple(called)
        # A run with other names is another run, but the features depend on the pictures only.
        self.source.fingerprint = renamed_fingerprint(self.source.fingerprint, called)

    def evaluator(self, task: Task, fluency: RatesFluency | None = None) -> Evaluator:
        """Return an evaluator of prompt sets on a task's pictures, at the logit scale that fits the few labels.

        Args:
            task: The drawn pictures.
            fluency: Computes the fluency of prompt sets; None for scores without a fluency.
        """
        evaluator = Evaluator(task, self.encoder.encode_texts, self.encoder.logit_scale, self.memory, fluency)
        evaluator.fit_scale()
        return evaluator


def open_problem(
    model: str = ProblemConfig.model,
    dataset: str | os.PathLike[str] = ProblemConfig.dataset,
    *,
    cache: Cache | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> Problem:
    """Open a model and its pictures by name.

        problem = open_problem("zeroshot", "cifar10-dark", device="cpu")

    Args:
        model: Name of the model, as in `ProblemConfig`.
        dataset: Name of the data set, as in `ProblemConfig`.
        cache: The cache of features; by default the user's.
        progress: Called during long work.
        **options: Other fields of `ProblemConfig` and `MachineConfig`.

    Raises:
        InputError: The model, data set, a column, the device or the precision does not exist.
        PromptSearchError: The model or the data set is not on this machine and cannot be downloaded.
        TypeError: An option is unknown.
    """
    machine = {f.name: options.pop(f.name) for f in fields(MachineConfig) if f.name in options}
    config = ProblemConfig(model, os.fspath(dataset), **options)
    return open_configured(config, MachineConfig(**machine), cache=cache, progress=progress)


def open_configured(
    config: ProblemConfig,
    machine: MachineConfig = MachineConfig(),  # noqa: B008 (frozen)
    *,
    cache: Cache | None = None,
    progress: Progress = no_progress,
) -> Problem:
    """Open a model and its pictures; only "auto" lets promptsearch choose, a name means exactly this model or data set.

    Args:
        config: The model and the pictures.
        machine: How this machine computes.
        cache: The cache of features; by default the user's.
        progress: Called during long work.

    Raises:
        InputError: The model, data set, a column, the device or the precision does not exist.
        PromptSearchError: The model or the data set is not on this machine and cannot be downloaded.
    """
    cache = cache or default_cache()
    notes: list[str] = []
    cluster, device, precision = None, machine.device, config.precision
    weights = None if config.weights is None else Path(config.weights)
    if machine.ray is not None:
        from promptsearch.evaluators.encoding.ray_cluster import cluster_at

        cluster = cluster_at(machine.ray)
        device = cluster.device(device)
    here = cluster is None or cluster.address == "local"
    if config.model == "auto":
        if weights is not None:
            raise InputError(f"--weights {weights}: name the architecture they belong to with --model, e.g. RN50")
        spec, notes = _auto_model(config.dataset, cache, device, precision, here)
    else:
        spec = resolve_model(config.model, cache, weights=weights, device=device, precision=precision, here=here)
    if spec.device == "mps":
        spec, note = checked(spec, cache)
        notes += [note] if note else []
    dataset = "cifar10" if config.dataset == "auto" else config.dataset
    encoder = Encoder(spec, cache, progress, machine.encode_batch)
    if cluster is not None:
        from promptsearch.evaluators.encoding.ray_encoder import RemoteEncoder

        encoder = RemoteEncoder(spec, cache, cluster, progress, machine.encode_batch)
    source = open_pictures(encoder, dataset, cache, pictures=config.pictures, **config.reading)
    notes += [*([spec.note] if spec.note else []), *source.notes]
    log.info("model %s (%s, %s), fingerprint %s", spec.name, spec.device, spec.precision, spec.fingerprint[:16])
    log.info("pictures: %s, %s, %d classes", source.name, source.origin, len(source.class_names))
    problem = Problem(encoder, source, cache, notes, machine.memory, allow_fewer=config.allow_fewer)
    if config.class_names is not None:
        problem.call_classes(config.class_names)
    return problem


def open_pictures(
    encoder: Encoder,
    dataset: str,
    cache: Cache,
    *,
    pictures: str | None = None,
    **reading: Any,
) -> PackFeatures | LiveFeatures:
    """Open the features of a data set for an encoder, from a feature pack if there is one.

    Args:
        encoder: The encoder.
        dataset: Name of the data set, as in `ProblemConfig`.
        cache: The cache of features.
        pictures: The data set that a feature pack was made from, for methods that need the pictures.
        reading: How pictures are read: `ProblemConfig.reading`, or keywords of `open_dataset`.

    Raises:
        InputError: The data set, a column or a condition does not exist.
        PromptSearchError: The data set is not on this machine and cannot be downloaded.
    """
    share = reading.get("test_share")
    if has_pack(encoder.spec, dataset, cache):
        also = None  # the path of pictures of that name, spelled so that it is no pack's name
        if os.path.exists(dataset):
            also = os.path.join(dataset, "") if os.path.isabs(dataset) else os.path.join(os.curdir, dataset)
        if share is not None:
            folder = f", or write {also} for the pictures" if also else ""
            raise InputError(
                f"--test-share {share:g}: {dataset} is a feature pack with a test split; leave it out{folder}"
            )
        pack = PackFeatures(encoder.spec, dataset, cache)
        if also:
            pack.notes.append(
                f"The pictures in {dataset} are not read, because a feature pack has its name; write {also}."
            )
        if pictures is not None:
            try:
                data = open_dataset(pictures, **reading)
            except InputError as e:  # the message names --dataset, the usual option for data sets
                raise InputError(f"--pictures {e.message.removeprefix('--dataset ')}") from e
            pack.take_pictures(data)
        return pack
    name, condition = split_condition(dataset)
    try:
        data = open_dataset(name, **reading, cache=cache, told=encoder.progress)
    except PromptSearchError as e:
        makers = sorted({maker for model, maker in packs_of(dataset, cache) if model != encoder.spec.fingerprint})
        if not makers:
            raise
        raise InputError(
            f"--dataset {dataset}: no pictures, and its feature pack was made with another model or other weights "
            f"({'; '.join(makers)}) than --model {encoder.spec.name}; name that model, or give a folder of pictures"
        ) from e
    return LiveFeatures(data, condition, dataset, encoder, cache)


def _auto_model(dataset: str, cache: Cache, device: str, precision: str, here: bool) -> tuple[ModelSpec, list[str]]:
    """Choose the model for "auto", and return it with notes that say why.

    It is RN50 if RN50 and the data set are on this machine or can be downloaded, else the embedded model. The embedded
    model is also chosen for data sets of which only its feature packs exist.
    """

    def embedded() -> ModelSpec:
        return resolve_model(EMBEDDED, cache, device=device, precision=precision, here=here)

    named = split_condition(dataset)[0] if dataset != "auto" else "cifar10"
    needs_data = named if named in SHORT_NAMES else None
    if needs_data is None and has_pack(model := embedded(), dataset, cache):
        return model, [f"Using the embedded model {EMBEDDED}, which has a feature pack of {dataset}."]
    missing = []
    if not find_cached(RN50_REPO, WEIGHT_FILES[0]):
        missing.append("RN50's weights")
    if needs_data and not dataset_cached(needs_data):
        missing.append(f"{needs_data}'s pictures")
    if missing:
        reachable, reason = hub_reachable()
        why = f"{' and '.join(missing)} are neither cached nor can they be downloaded: {reason}"
    else:
        reachable, why = True, ""
    if reachable:
        try:
            return resolve_model("RN50", cache, device=device, precision=precision, here=here), []
        except InputError:
            raise
        except PromptSearchError as e:
            why = e.message.split(";")[0]
    pack = "" if dataset not in ("auto",) else " and its feature pack of CIFAR-10"
    note = (
        f"Using the embedded model {EMBEDDED}{pack} ({why}). To use RN50, run where huggingface.co can be "
        "reached, or give --model RN50 --weights FILE --dataset FOLDER."
    )
    return embedded(), [note]
