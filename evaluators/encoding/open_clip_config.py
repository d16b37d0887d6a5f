"""What a model's open_clip_config.json may say: what makes a model of the size of its weights, and runs no code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from promptsearch.banks.file_kinds import mistaken_for
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError

#: Bytes of a config.
MOST_BYTES = 1_000_000

#: Largest value of a number of a tower, by its key; others are refused by open_clip itself.
BOUNDS = {
    "context_length": 100_000,
    "embed_dim": 100_000,
    "head_width": 10_000,
    "heads": 1_000,
    "dim_head": 10_000,
    "attn_pooler_heads": 1_000,
    "attn_pooler_queries": 10_000,
    "n_queries": 10_000,
    "image_size": 4_096,
    "layers": 1_000,
    "mlp_ratio": 100,
    "patch_size": 4_096,
    "vocab_size": 10_000_000,
    "width": 100_000,
}

# A tower has no size without these.
_NEVER_NULL = ("context_length", "layers", "mlp_ratio", "vocab_size", "width")

#: Parameters of a model that is made whatever its weights file is: loading says what is wrong with that.
SMALL = 100_000_000

# What a config may pass on to the constructors of tokenizers and layers.
_PASSED_ON: dict[str, dict[str, Callable[[Any], bool]]] = {
    "tokenizer_kwargs": {
        "clean": lambda v: v in ("canonicalize", "lower", "whitespace"),
        **dict.fromkeys(("strip_sep_token", "use_fast", "do_lower_case", "legacy"), lambda v: isinstance(v, bool)),
        **dict.fromkeys(("add_bos_token", "add_eos_token", "keep_accents"), lambda v: isinstance(v, bool)),
        "language": lambda v: isinstance(v, str),
        "padding_side": lambda v: v in ("left", "right"),
    },
    "act_kwargs": {"approximate": lambda v: v in ("none", "tanh")},
    "norm_kwargs": {"eps": lambda v: _number(v) and 0 <= v < 1},
}

_CHOICES = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}


def read_config(file: Path) -> dict[str, Any]:
    """Read a model's config.

    Returns:
        The whole document, with `model_cfg`, to be checked by `check_config`.

    Raises:
        InputError: the file is no such config.
        OSError: it cannot be read.
    """
    with file.open("rb") as f:
        data = f.read(MOST_BYTES + 1)
    if found := mistaken_for(data[:512]):
        raise InputError(f"{file} is {found[0]}; {found[1]}")
    if len(data) > MOST_BYTES:
        raise InputError(f"{file}: larger than {MOST_BYTES // 10**6} MB, which no config is; save the model again")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file}: not readable as JSON ({str(e)[:200]}); save the model again") from e
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise InputError(f"{file}: has no model_cfg; save the model in open_clip's own form")
    return config


def check_config(config: dict[str, Any], weights: Path, place: str) -> None:
    """Refuse what no model of open_clip needs: code, endless layers, what is no number, more than its weights hold.

    Args:
        config: a document with `model_cfg`.
        weights: the weights that belong to it.
        place: what messages begin with.

    Raises:
        InputError: naming the key and its value.
    """
    check_keys(config, place)
    _refuse_larger(config, weights, place)


def check_keys(config: dict[str, Any], place: str) -> None:
    """Refuse a key's value that no model of open_clip needs.

    Raises:
        InputError: naming the key and its value.
    """
    model = config["model_cfg"]
    _check_number(model.get("embed_dim"), "embed_dim", f"{place}: model_cfg")
    for name in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if name == "multimodal_cfg" and model.get(name) is None:
            continue
        if not isinstance(model.get(name), dict):
            raise InputError(f"{place}: model_cfg has no {name}; save the model in open_clip's own form")
        _check_tower(model[name], f"{place}: {name}")
    if model["text_cfg"].get("tokenizer_mode") not in (None, "", "clips"):
        raise InputError(f"{place}: text_cfg: tokenizer_mode {shorten(model['text_cfg']['tokenizer_mode'])} is unknown")
    preprocess = config.get("preprocess_cfg", {})
    if not isinstance(preprocess, dict):
        raise InputError(f"{place}: preprocess_cfg is {shorten(preprocess)}; it must be an object")
    _check_preprocess(preprocess, f"{place}: preprocess_cfg")


def _refuse_larger(config: dict[str, Any], weights: Path, place: str) -> None:
    """Refuse a config whose model has more parameters than the weights file has bytes: it would fill the memory.

    Raises:
        InputError: with both numbers.
    """
    model, size = config["model_cfg"], weights.stat().st_size
    text, vision = model["text_cfg"], model["vision_cfg"]
    wanted = 0.0
    if not text.get("hf_model_name"):
        width, layers, ratio = (text.get(k, d) for k, d in (("width", 512), ("layers", 12), ("mlp_ratio", 4)))
        wanted += layers * (4 + 2 * ratio) * width**2
        wanted += (text.get("vocab_size", 49408) + text.get("context_length", 77)) * width
    if not vision.get("timm_model_name"):
        width, layers, ratio = (vision.get(k, d) for k, d in (("width", 768), ("layers", 12), ("mlp_ratio", 4)))
        if isinstance(layers, list):  # a ResNet: bottlenecks of 17 planes²
            wanted += sum(17 * n * (width * 2**i) ** 2 for i, n in enumerate(layers))
        else:
            side = max(_pair(vision.get("image_size", 224))) / min(_pair(vision.get("patch_size", 16)))
            wanted += layers * (4 + 2 * ratio) * width**2 + side**2 * width
    if wanted > max(size, SMALL):
        raise InputError(
            f"{place}: the config describes a model of some {wanted:.1e} parameters, and the weights file has "
            f"{size:,} bytes: they do not belong together; save the model again"
        )


def _check_tower(tower: dict[str, Any], place: str) -> None:
    for key, value in tower.items():
        if value is None and key not in _NEVER_NULL:  # as for a patch size of a ResNet
            continue
        if key in _PASSED_ON:
            _check_passed_on(value, key, place)
        elif key == "layers" and isinstance(value, list):
            for n in value:
                _check_number(n, key, place)
            if len(value) != 4:
                raise InputError(f"{place}: layers {shorten(value)}: a ResNet has four stages")
        elif key in ("image_size", "patch_size"):
            for n in _pair(value):
                _check_number(n, key, place)
        elif key in BOUNDS:
            _check_number(value, key, place)
        elif key in ("hf_model_name", "timm_model_name") and value:
            _check_name(value, key, place)


def _check_name(value: Any, key: str, place: str) -> None:
    """A name of the hub (or of timm's list): no path of this machine, no scheme of another loader."""
    pattern = r"[\w.-]+" if key == "timm_model_name" else r"[\w][\w.-]*(/[\w][\w.-]*)?"
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise InputError(f"{place}: {key} {shorten(value)} is no plain name of a model (such as roberta-base)")


def _check_passed_on(value: Any, key: str, place: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{place}: {key} is {shorten(value)}; it must be an object")
    for name, given in value.items():
        allowed = _PASSED_ON[key].get(name)
        if allowed is None or not allowed(given):
            raise InputError(
                f"{place}: {key} may not hold {name} = {shorten(given)}: a config may set "
                f"{', '.join(_PASSED_ON[key])} only; remove it"
            )


def _check_preprocess(preprocess: dict[str, Any], place: str) -> None:
    for key in ("mean", "std"):
        value = preprocess.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != 3 or not all(map(_number, value)):
            raise InputError(f"{place}: {key} {shorten(value)} must be three numbers, one per colour")
        if key == "std" and min(value) <= 0:
            raise InputError(f"{place}: std {shorten(value)} must be above 0: pictures are divided by it")
    for n in _pair(preprocess.get("size", 224)):
        _check_number(n, "image_size", place)
    for key, choices in _CHOICES.items():
        if preprocess.get(key) not in (None, *choices):
            raise InputError(f"{place}: {key} {shorten(preprocess[key])}: choose from {', '.join(choices)}")
    if preprocess.get("mode") not in (None, "RGB"):
        raise InputError(f"{place}: mode {shorten(preprocess['mode'])}: pictures are RGB")


def _check_number(value: Any, key: str, place: str) -> None:
    whole = key != "mlp_ratio"
    if not _number(value) or (whole and value != int(value)) or not 0 < value <= BOUNDS[key]:
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{place}: {key} {shorten(value)} must be {kind} from 1 to {BOUNDS[key]}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (value, value)
