"""Exports a run's winner as a folder that labels pictures without promptsearch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.config import MachineConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Encoder, Progress, default_cache, no_progress, resolve_model
from promptsearch.evaluators.encoding.given_model import prepares_alike
from promptsearch.evaluators.encoding.tokenizers import FILES
from promptsearch.evaluators.encoding.transformers_model import SOURCE
from promptsearch.reports.export import SCRIPTS, Winner, to_open_clip, write
from promptsearch.reports.model_card import model_card
from promptsearch.runs.classifier import Classifier
from promptsearch.runs.result import Calibration
from promptsearch.version import __version__

#: The file in which a folder describes itself.
CONFIG = "classifier.json"
FORMAT = 1

#: The name of the model if it is in the folder itself.
HERE = "local-dir:."


@dataclass(frozen=True)
class Exported:
    """The contents of an exported folder.

    Attributes:
        winner: The winning prompt set and its run.
        classifier: Its class weights, calibration and model.
        result: The run's result document; None for an unfinished run.
    """

    winner: Winner
    classifier: Classifier
    result: Mapping[str, Any] | None = None


def write_folder(exported: Exported, folder: Path) -> None:
    """Write class weights, preprocessing, a README and a script that labels pictures with open_clip.

    If open_clip can find the model by its name, the folder names it; otherwise the model is copied into the folder.

    Args:
        exported: The winner with its classifier and result.
        folder: The folder, which must be empty or missing.

    Raises:
        InputError: The folder has files, or cannot be written; or the model has no configuration that open_clip reads.
    """
    refuse_transformers(exported.classifier.encoder, "folder")
    with _whole(folder) as half:
        encoder = exported.classifier.encoder
        arguments = _by_name(encoder)
        if arguments is None:
            arguments = {"model_name": HERE}
            _copy_model(encoder, half)
        to_open_clip(
            exported.winner,
            exported.classifier.class_weights,
            exported.classifier.calibration.logit_scale,
            half / "classifier.safetensors",
        )
        write(half / CONFIG, _dumped({**describe(exported), "open_clip": arguments}))
        write(half / "README.md", model_card(exported.winner, exported.classifier, exported.result, "open_clip_torch"))
        shutil.copyfile(SCRIPTS / "predict_open_clip.py", half / "predict.py")


def write_onnx_folder(exported: Exported, folder: Path) -> None:
    """Write picture tower and class weights as one ONNX model, with a README and a script that runs it.

    Args:
        exported: The winner with its classifier and result.
        folder: The folder, which must be empty or missing.

    Raises:
        InputError: The folder has files or cannot be written, or the model resizes pictures in a way that the script
            does not support.
        PromptSearchError: A package is missing, or the model cannot be expressed in ONNX.
    """
    from promptsearch.reports.onnx_model import write_onnx

    refuse_transformers(exported.classifier.encoder, "onnx")
    about = describe(exported)
    size = about["preprocess"]["size"]
    square = isinstance(size, int) or len(set(size)) == 1
    if about["preprocess"]["resize_mode"] != "squash" and not (
        about["preprocess"]["resize_mode"] == "shortest" and square
    ):
        raise InputError(
            f"--to onnx: the model's pictures are resized by {about['preprocess']['resize_mode']!r} to {size}, which "
            "only open_clip does; use --to folder"
        )
    with _whole(folder) as half:
        write_onnx(exported.classifier, half / "model.onnx")
        write(half / CONFIG, _dumped(about))
        write(half / "README.md", model_card(exported.winner, exported.classifier, exported.result, "onnxruntime"))
        shutil.copyfile(SCRIPTS / "predict_onnx.py", half / "predict.py")


def refuse_transformers(encoder: Encoder, form: str) -> None:
    """Refuse a model in transformers' format, which open_clip does not read.

    Raises:
        InputError: The model is in transformers' format.
    """
    if encoder.spec.source.startswith(SOURCE):
        raise InputError(
            f"--to {form}: open_clip does not read the model of {encoder.spec.name}, which transformers wrote; use "
            "--to transformers, or --to open-clip for the class weights alone"
        )


#: The functions that write a winner as a folder, by the value of `export --to`.
FOLDERS: dict[str, Callable[[Exported, Path], None]] = {"folder": write_folder, "onnx": write_onnx_folder}


def describe(exported: Exported) -> dict[str, Any]:
    """Return the description that a folder contains: names and figures, but no path of this machine."""
    winner, classifier = exported.winner, exported.classifier
    return {
        "format": FORMAT,
        "promptsearch": __version__,
        "run": winner.study,
        "model": winner.shown_model,
        "model_fingerprint": classifier.encoder.spec.fingerprint,
        "class_names": list(classifier.class_names),
        "prompts": winner.prompt_set.to_dict(),
        **classifier.calibration.to_dict(),
        "preprocess": preprocessing(classifier.encoder),
    }


def preprocessing(encoder: Encoder) -> dict[str, Any]:
    """Return open_clip's preprocessing of a model's pictures: `size`, `mean`, `std`, `interpolation` …, in full.

    Raises:
        InputError: The model was given with a preprocessing of its own.
    """
    from dataclasses import asdict

    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    own = PreprocessCfg(**open_clip.get_model_preprocess_cfg(encoder.model))
    given = encoder.preprocess if encoder.spec.source == "given" else None
    if given is not None and not prepares_alike(given, image_transform_v2(own, is_train=False)):
        raise InputError("the model was given with a preprocess of its own, which no file holds; use --to open-clip")
    cfg = asdict(own)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in cfg.items()}


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder that `write_folder` or `write_onnx_folder` wrote."""
    return (Path(path) / CONFIG).is_file()


def open_folder(
    folder: Path,
    machine: MachineConfig = MachineConfig(),  # noqa: B008 (frozen)
    progress: Progress = no_progress,
) -> Classifier:
    """Open a folder that `write_folder` wrote.

    Args:
        folder: The folder.
        machine: How this machine computes.
        progress: Called during long work.

    Raises:
        InputError: A file is missing or damaged, or the named model has other weights on this machine.
            PromptSearchError: The named model is not on this machine and cannot be downloaded.
    """
    about = _read_config(folder)
    name, weights = _model_of(folder, about), _read_weights(folder, about)
    cache = default_cache()
    spec = resolve_model(name, cache, device=machine.device)
    if about["open_clip"]["model_name"] != HERE and spec.fingerprint != about["model_fingerprint"]:
        raise InputError(f"{folder}: was made with other weights of {name} than those here; export it again")
    encoder = Encoder(spec, cache, progress, machine.encode_batch)
    if int(encoder.info["embed_dim"]) != weights.shape[1]:
        raise InputError(
            f"{folder}: class weights of {weights.shape[1]} numbers, and features of {encoder.info['embed_dim']}; "
            "export it again"
        )
    return Classifier(str(folder), tuple(about["class_names"]), weights, Calibration.from_dict(about), encoder)


def read_prompts(folder: Path) -> PromptSet:
    """Return the prompt set of an exported folder.

    Raises:
        InputError: The folder is damaged.
    """
    about = _read_config(folder)
    try:
        return PromptSet.from_dict(about["prompts"])
    except (KeyError, TypeError, AttributeError, InputError) as e:
        raise InputError(f"{folder / CONFIG}: is damaged (its prompts: {e}); export it again") from e


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        about = json.loads(file.read_text("utf-8"))
        if about["format"] != FORMAT:
            raise InputError(f"{file}: format {about['format']}, this version reads {FORMAT}; update promptsearch")
        Calibration.from_dict(about)
        names = about["class_names"]
        if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
            raise TypeError("class_names")
        if not isinstance(about["model_fingerprint"], str):
            raise TypeError("model_fingerprint")
    except OSError as e:
        raise InputError(f"{file}: cannot be read ({e.strerror or e})") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{file}: is damaged ({type(e).__name__}: {e}); export it again") from e
    return dict(about)


def _model_of(folder: Path, about: Mapping[str, Any]) -> str:
    """Return the name, for `--model`, of the model that a folder was made with."""
    arguments = about.get("open_clip")
    if arguments is None:
        raise InputError(f"{folder}: is an ONNX export, which its own predict.py runs; export the run --to folder")
    if not isinstance(arguments, dict) or not isinstance(arguments.get("model_name"), str):
        raise InputError(f"{folder / CONFIG}: is damaged (open_clip names no model); export it again")
    name, tag = arguments["model_name"], arguments.get("pretrained")
    if name == HERE:
        return f"local-dir:{folder}"
    if not name.startswith("hf-hub:") and (":" in name or not isinstance(tag, str)):
        raise InputError(f"{folder / CONFIG}: is damaged (no model {name!r}); export it again")
    return name if name.startswith("hf-hub:") else f"{name}:{tag}"


def _read_weights(folder: Path, about: Mapping[str, Any]) -> np.ndarray:
    """Return the class weights (C, D) of a folder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / "classifier.safetensors"
    try:
        weights = np.ascontiguousarray(load_file(file)["classifier"].T)
    except (OSError, SafetensorError, KeyError, ValueError) as e:
        raise InputError(f"{file}: cannot be read ({e}); export it again") from e
    if weights.ndim != 2 or len(weights) != len(about["class_names"]) or not np.isfinite(weights).all():
        raise InputError(
            f"{file}: has weights for another number of classes than {len(about['class_names'])}; export it again"
        )
    return weights.astype(np.float32)


def _by_name(encoder: Encoder) -> dict[str, Any] | None:
    """Return open_clip's arguments for a model that it finds by its name on any machine, or None for another model."""
    import open_clip

    spec = encoder.spec
    if spec.source.startswith("hf-hub:"):
        return {"model_name": spec.source}
    if spec.tag in (None, "random") or ":" in spec.source or spec.tag == "given":
        return None
    quick = bool(open_clip.get_pretrained_cfg(spec.source, spec.tag).get("quick_gelu", False))
    return {"model_name": spec.source, "pretrained": spec.tag, "force_quick_gelu": quick}


def _copy_model(encoder: Encoder, folder: Path) -> None:
    """Write a model in open_clip's format: its configuration, weights and the files of its tokenizer."""
    spec = encoder.spec
    if spec.source.startswith("local-dir:"):
        source = Path(spec.source.removeprefix("local-dir:"))
        assert spec.weights is not None  # a model in a folder has weights
        shutil.copyfile(source / "open_clip_config.json", folder / "open_clip_config.json")
        shutil.copyfile(spec.weights, folder / spec.weights.name)
    else:
        import open_clip
        from safetensors.torch import save_file

        config = open_clip.get_model_config(spec.source)
        if config is None:
            raise InputError(
                "--to folder: a model that was given as objects has no configuration to write; name it instead"
            )
        cfg = {k: v for k, v in preprocessing(encoder).items() if k != "size"}
        write(folder / "open_clip_config.json", _dumped({"model_cfg": config, "preprocess_cfg": cfg}))
        state = {name: tensor.cpu().contiguous().clone() for name, tensor in encoder.model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
    if spec.tokenizer is not None:
        for file in (spec.tokenizer / name for name in FILES):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Context manager that yields a temporary folder, and renames it to `folder` when everything is written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder}: exists already; name a folder that is empty or not there yet")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as e:
        raise InputError(f"--out {folder}: cannot be written ({e.strerror or e}); name another folder") from e
    try:
        half.chmod(0o755)
        yield half
        if folder.is_dir():
            folder.rmdir()
        half.replace(folder)
    except OSError as e:
        raise PromptSearchError(f"{folder}: cannot be written ({e.strerror or e}); name another folder") from e
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _dumped(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
