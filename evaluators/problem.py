"""From what a user names to a model and its pictures; what `auto` stands for is decided here."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache.store import Cache, default_cache
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.data.datasets import dataset_cached, open_dataset
from promptsearch.evaluators.data.hub import find_cached, hub_reachable
from promptsearch.evaluators.data.picture_features import LiveFeatures, PackFeatures, has_pack
from promptsearch.evaluators.encoding.encoder import Encoder, Progress, no_progress
from promptsearch.evaluators.encoding.model_spec import RN50_REPO, WEIGHT_FILES, ModelSpec, resolve_model
from promptsearch.evaluators.evaluator import Evaluator
from promptsearch.evaluators.task import Task

TINY_NOTE = "tiny is a small CLIP that was trained on CIFAR-10's training pictures: it is no zero-shot model."

log = logging.getLogger(__name__)


@dataclass
class Problem:
    """A model with its pictures: `task()` draws the few shots, `evaluator()` scores prompts on them.

    problem = open_problem("tiny", "cifar10-dark")
    evaluator = problem.evaluator(problem.task(shots=16, seed=0))
    """

    encoder: Encoder
    source: PackFeatures | LiveFeatures
    cache: Cache
    notes: list[str] = field(default_factory=list)
    memory: int | None = None

    def task(self, shots: int, seed: int, unlabelled: int | None = None) -> Task:
        """Draw a few-shot problem; with no shots, one of so many unlabelled pictures."""
        return Task.build(self.source, shots, seed, unlabelled)

    def evaluator(self, task: Task) -> Evaluator:
        return Evaluator(task, self.encoder.encode_texts, self.encoder.logit_scale, self.memory)


def open_problem(
    model: str = "auto",
    dataset: str = "auto",
    *,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    picture_column: str | None = None,
    label_column: str | None = None,
    pictures: str | None = None,
    memory: int | None = None,
    encode_batch: int | None = None,
    ray: str | None = None,
    cache: Cache | None = None,
    progress: Progress = no_progress,
) -> Problem:
    """Find the model and the pictures; what is named explicitly never falls back to something else.

    Args:
        pictures: data set that a feature pack was made of, for what needs more than features.
        memory: bytes that scoring may take (default: a quarter of the RAM).
        encode_batch: pictures computed at a time, and 64 times as many text prefixes (default: by the device).
        ray: address of the Ray cluster that encodes, `local` for one on this machine (see `Cluster`).

    Raises:
        InputError: no such model, data set, column, device, precision.
        PromptSearchError: something that is neither here nor to be had.
    """
    cache = cache or default_cache()
    notes: list[str] = []
    cluster = None
    if ray is not None:
        from promptsearch.evaluators.encoding.ray_cluster import cluster_at

        cluster = cluster_at(ray)
        device = cluster.device(device)
    here = cluster is None or cluster.address == "local"
    if model == "auto":
        if weights is not None:
            raise InputError(f"--weights {weights}: name the architecture they belong to with --model, e.g. RN50")
        spec, notes = _auto_model(dataset, cache, device, precision, here)
    else:
        spec = resolve_model(model, cache, weights=weights, device=device, precision=precision, here=here)
    if spec.is_tiny:
        notes.append(TINY_NOTE)
    dataset = "cifar10" if dataset == "auto" else dataset
    encoder = Encoder(spec, cache, progress, encode_batch)
    if cluster is not None:
        from promptsearch.evaluators.encoding.ray_encoder import RemoteEncoder

        encoder = RemoteEncoder(spec, cache, cluster, progress, encode_batch)
    columns = {"picture_column": picture_column, "label_column": label_column}
    source = open_pictures(encoder, dataset, cache, pictures=pictures, **columns)
    if isinstance(source, PackFeatures):
        notes.append(f"Pictures: {source.origin}.")
    log.info("model %s (%s, %s), fingerprint %s", spec.name, spec.device, spec.precision, spec.fingerprint[:16])
    log.info("pictures: %s, %s, %d classes", source.name, source.origin, len(source.class_names))
    return Problem(encoder, source, cache, notes, memory)


def open_pictures(
    encoder: Encoder,
    dataset: str,
    cache: Cache,
    *,
    picture_column: str | None = None,
    label_column: str | None = None,
    pictures: str | None = None,
) -> PackFeatures | LiveFeatures:
    """The pictures of a data set for an encoder: its feature pack where there is one.

    Args:
        pictures: where a pack's pictures lie.

    Raises:
        InputError: no such data set, column, condition.
        PromptSearchError: a data set that is neither here nor to be had.
    """
    if has_pack(encoder.spec, dataset, cache):
        pack = PackFeatures(encoder.spec, dataset, cache)
        if pictures is not None:
            try:
                data = open_dataset(pictures, picture_column=picture_column, label_column=label_column)
            except InputError as e:  # it names the option by which data sets come in otherwise
                raise InputError(f"--pictures {str(e).removeprefix('--dataset ')}") from e
            pack.take_pictures(data)
        return pack
    name, condition = split_condition(dataset)
    data = open_dataset(name, picture_column=picture_column, label_column=label_column)
    return LiveFeatures(data, condition, dataset, encoder, cache)


def _auto_model(dataset: str, cache: Cache, device: str, precision: str, here: bool) -> tuple[ModelSpec, list[str]]:
    """RN50 where it (and the default data set) is here or can be downloaded, else `tiny`, with the reason."""
    named = split_condition(dataset)[0] if dataset != "auto" else "cifar10"
    needs_data = named if named in ("cifar10", "cifar100") else None
    missing = []
    if not find_cached(RN50_REPO, WEIGHT_FILES[0]):
        missing.append("RN50's weights")
    if needs_data and not dataset_cached(needs_data):
        missing.append(f"{needs_data}'s pictures")
    if missing:
        reachable, reason = hub_reachable()
        why = f"{' and '.join(missing)} not in the caches and not to be downloaded: {reason}"
    else:
        reachable, why = True, ""
    if reachable:
        try:
            return resolve_model("RN50", cache, device=device, precision=precision, here=here), []
        except InputError:
            raise
        except PromptSearchError as e:
            why = str(e).split(";")[0]
    pack = "" if dataset not in ("auto",) else " and its feature pack of CIFAR-10"
    note = (
        f"Using the embedded model tiny{pack} ({why}). For RN50: run where huggingface.co can be reached, "
        "or --model RN50 --weights FILE --dataset FOLDER."
    )
    return resolve_model("tiny", cache, device=device, precision=precision, here=here), [note]
