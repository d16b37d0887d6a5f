"""Loads CLIP and SigLIP folders written by transformers' `save_pretrained`, as if they were open_clip models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.banks.template import shorten
from promptsearch.errors import InputError
from promptsearch.evaluators.encoding.weights_file import SMALL, refuse_mistaken

if TYPE_CHECKING:
    from PIL.Image import Image

#: Prefix of `ModelSpec.source` for such a folder.
SOURCE = "transformers-dir:"

#: Values of `model_type` in config.json that can be loaded.
TYPES = ("clip", "siglip")

#: Name of the weights file; pickles and weights in several files are refused.
WEIGHTS = "model.safetensors"

#: Supported values of `resample`, with the names of Pillow's filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

#: By model type, a processor's settings that apply if its file does not set them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "siglip": {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
}


def is_transformers(folder: Path) -> bool:
    """Return whether transformers wrote a folder; if open_clip's config is there too, the folder is open_clip's."""
    return not (folder / "open_clip_config.json").exists() and (folder / "config.json").is_file()


def read_folder(folder: Path, spec: str) -> tuple[Path, dict[str, Any]]:
    """Read the configurations in a folder, without loading its model.

    Args:
        folder: The folder, which has a config.json.
        spec: The model as the user named it, for messages.

    Returns:
        The weights file, and the configurations of the model and of its processor.

    Raises:
        InputError: A file is missing or damaged, or the model is neither CLIP nor SigLIP.
    """
    config = _read(folder / "config.json")
    kind = config.get("model_type")
    if kind == "siglip2":
        raise InputError(
            f"--model {spec}: a SigLIP 2 for pictures of any shape (NaFlex), which cannot be opened; take one of a "
            "fixed size, e.g. --model ViT-B-16-SigLIP2:webli, or a folder of google/siglip2-base-patch16-224"
        )
    if kind not in TYPES:
        raise InputError(
            f"--model {spec}: config.json says model_type {shorten(kind)}; of transformers' models "
            f"{' and '.join(TYPES)} can be opened, and everything that open_clip saved (open_clip_config.json)"
        )
    file = folder / WEIGHTS
    if not file.is_file():
        raise InputError(f"--model {spec}: no {WEIGHTS} there; save the model with save_pretrained, in one file")
    refuse_mistaken(file)
    pictures = {**_DEFAULTS[kind], **_read_processor(folder, spec)}
    _check_processor(pictures, folder)
    return file, {"transformers": config, "processor": pictures}


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except OSError as e:
        raise InputError(f"{file}: cannot be read ({e.strerror or e})") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file}: not readable as JSON ({str(e)[:200]}); save the model again") from e
    if not isinstance(found, dict):
        raise InputError(f"{file}: is no JSON object; save the model again")
    return found


def _read_processor(folder: Path, spec: str) -> dict[str, Any]:
    """Return the settings of the picture processor, which transformers 5 writes into processor_config.json."""
    if (file := folder / "preprocessor_config.json").is_file():
        return _read(file)
    if (file := folder / "processor_config.json").is_file():
        found = _read(file).get("image_processor")
        if isinstance(found, dict):
            return found
    raise InputError(
        f"--model {spec}: no preprocessor_config.json there; save the model's processor too (processor.save_pretrained)"
    )


def _check_processor(settings: dict[str, Any], folder: Path) -> None:
    """Refuse unknown settings of a processor, because pictures would be prepared differently.

    Raises:
        InputError: A setting is not supported; the message names it.
    """
    place = f"{folder}: its processor"
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if settings.get(name, True) is not True:
            raise InputError(f"{place}: {name} {shorten(settings[name])} is not supported; only true is")
    if settings.get("resample", 3) not in _FILTERS:
        raise InputError(f"{place}: resample {shorten(settings['resample'])} is not supported; 0 to 3 are")
    factor = settings.get("rescale_factor", 1 / 255)
    if not isinstance(factor, (int, float)) or abs(factor * 255 - 1) > 1e-6:
        raise InputError(f"{place}: rescale_factor {shorten(factor)} is not supported; 1/255 is")
    for name in ("image_mean", "image_std"):
        values = settings[name]
        if not (isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)):
            raise InputError(f"{place}: {name} {shorten(values)} is not a list of three numbers")
    sizes = ["size", *(["crop_size"] if settings.get("do_center_crop") and "crop_size" in settings else [])]
    for name in sizes:
        if _sides(settings[name]) is None and _shortest(settings[name]) is None:
            raise InputError(f"{place}: {name} {shorten(settings[name])} is not supported; give height and width")


def _shortest(size: Any) -> int | None:
    """Return the length of the shorter side, if a size says only that."""
    side = size.get("shortest_edge") if isinstance(size, dict) else size
    return side if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 4096 else None


def _sides(size: Any) -> tuple[int, int] | None:
    """Return height and width, if a size says both."""
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
        return None
    sides = (size["height"], size["width"])
    ok = all(isinstance(s, int) and not isinstance(s, bool) and 1 <= s <= 4096 for s in sides)
    return sides if ok else None


def load_model(folder: Path, processor: dict[str, Any]) -> tuple[Any, Any]:
    """Return the model of a folder and its preprocessing of a picture.

    Args:
        folder: The folder.
        processor: The settings of its processor, from `read_folder`.

    Raises:
        InputError: The model in the configuration is larger than the weights file.
        ValueError: Weights are missing.
    """
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    given = {"local_files_only": True, "trust_remote_code": False}
    with torch.device("meta"):
        empty = AutoModel.from_config(AutoConfig.from_pretrained(folder, **given))
    needed, there = sum(p.numel() for p in empty.parameters()), (folder / WEIGHTS).stat().st_size
    if needed > max(SMALL, there):
        raise InputError(
            f"{folder / 'config.json'}: describes a model of {needed} parameters, but {WEIGHTS} has {there} bytes; "
            "save it again"
        )
    loaded, info = AutoModel.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **given
    )
    if missing := sorted(info["missing_keys"]):  # transformers would initialise them at random
        raise ValueError(f"Missing key(s) in state_dict: {missing[0]!r} and {len(missing) - 1} others")

    class Pictures(torch.nn.Module):
        """The picture tower, which maps pixels (N, 3, H, W) to features (N, D)."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = loaded
            self.image_size = loaded.config.vision_config.image_size

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return _features(self.inner.get_image_features(pixel_values=pixels))

    class Model(torch.nn.Module):
        """A model of transformers under the names that open_clip's models have."""

        def __init__(self) -> None:
            super().__init__()
            self.visual = Pictures()
            self.logit_scale = loaded.logit_scale
            self.context_length = loaded.config.text_config.max_position_embeddings

        def encode_image(self, pixels: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            found = self.visual(pixels)
            return torch.nn.functional.normalize(found, dim=-1) if normalize else found

        def encode_text(self, ids: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            found = _features(loaded.get_text_features(input_ids=ids))
            return torch.nn.functional.normalize(found, dim=-1) if normalize else found

    return Model(), _preprocessing(processor)


def _features(found: Any) -> Any:
    """Return the features (N, D), which transformers 5 wraps in an object and earlier versions return directly."""
    import torch

    return found if isinstance(found, torch.Tensor) else found.pooler_output


def _preprocessing(settings: dict[str, Any]) -> Any:
    """Return the transform of a PIL picture, as the processor's Pillow backend computes it."""
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

    mode = InterpolationMode(_FILTERS[settings.get("resample", 3)])
    sides, shortest = _sides(settings["size"]), _shortest(settings["size"])
    steps: list[Any] = [Resize(list(sides) if sides else shortest, interpolation=mode)]
    if settings.get("do_center_crop"):
        crop = settings.get("crop_size", settings["size"])
        steps.append(_Crop(_sides(crop) or (_shortest(crop) or 0,) * 2))
    return Compose([*steps, ToTensor(), Normalize(settings["image_mean"], settings["image_std"])])


class _Crop:
    """Crops the middle of a picture, and pads a smaller one with black.

    It rounds half a pixel down, as transformers does; torchvision rounds to the even pixel.
    """

    def __init__(self, sides: tuple[int, int]) -> None:
        self.height, self.width = sides

    def __call__(self, picture: Image) -> Image:
        left, top = (picture.width - self.width) // 2, (picture.height - self.height) // 2
        return picture.crop((left, top, left + self.width, top + self.height))
