"""Finds a model by its name, hub id, folder or weights file, and checks its config, without importing torch."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.banks.formats import mistaken_for
from promptsearch.banks.template import shorten
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import Cache, digest_of, model_folders, sha256_file
from promptsearch.evaluators.data.hub import find_cached, first_line, go_offline, hub_reachable
from promptsearch.evaluators.encoding.device import resolve_device
from promptsearch.evaluators.encoding.tokenizers import FILES, VOCABULARIES, hashes
from promptsearch.evaluators.encoding.transformers_model import SOURCE, is_transformers, read_folder
from promptsearch.evaluators.encoding.weights_file import SMALL, refuse_mistaken, trained_with_quick_gelu

#: Largest size of a config in bytes.
MOST_BYTES = 1_000_000

#: Largest values of the numbers in a tower's config, by key; open_clip itself refuses other bad values.
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

# Keys without which a tower's size is unknown; null is refused.
_NEVER_NULL = ("context_length", "layers", "mlp_ratio", "vocab_size", "width")


# Arguments that a config may pass on to the constructors of tokenizers and layers.
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
        The whole document, which has `model_cfg`; `check_config` checks it.

    Raises:
        InputError: The file is not a model's config.
            OSError: The file cannot be read.
    """
    with file.open("rb") as f:
        data = f.read(MOST_BYTES + 1)
    if found := mistaken_for(data[:512]):
        raise InputError(f"{file} is {found[0]}; {found[1]}")
    if len(data) > MOST_BYTES:
        raise InputError(f"{file}: larger than {MOST_BYTES // 10**6} MB, too large for a config; save the model again")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file}: not readable as JSON ({str(e)[:200]}); save the model again") from e
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise InputError(f"{file}: has no model_cfg; save the model in open_clip's own form")
    return config


def check_config(config: dict[str, Any], weights: Path, place: str) -> None:
    """Refuse a config that asks for code, for absurdly large layers, or for more parameters than its weights have.

    Args:
        config: A document with `model_cfg`.
        weights: The file with the model's weights.
        place: The start of error messages.

    Raises:
        InputError: A value is refused; the message names its key.
    """
    check_keys(config, place)
    _refuse_larger(config, weights, place)


def check_keys(config: dict[str, Any], place: str) -> None:
    """Refuse values of a config that no model of open_clip needs.

    Raises:
        InputError: A value is refused; the message names its key.
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
    """Refuse a config whose model has more parameters than the weights file has bytes, which would fill the memory.

    Raises:
        InputError: The model is larger than its weights; the message has both numbers.
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
            f"{place}: the config describes a model of some {wanted:.1e} parameters, but the weights file has "
            f"{size:,} bytes: they do not belong together; save the model again"
        )


def _check_tower(tower: dict[str, Any], place: str) -> None:
    for key, value in tower.items():
        if value is None and key not in _NEVER_NULL:  # for example the patch size of a ResNet
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
    """Refuse a value that is not a plain model name of the hub or timm, such as a path or another loader's scheme."""
    pattern = r"[\w.-]+" if key == "timm_model_name" else r"[\w][\w.-]*(/[\w][\w.-]*)?"
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise InputError(f"{place}: {key} {shorten(value)} is not a plain model name (such as roberta-base)")


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
            raise InputError(f"{place}: std {shorten(value)} must be above 0, because pictures are divided by it")
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


#: The embedded model.
EMBEDDED = "zeroshot"
RN50_REPO = "timm/resnet50_clip.openai"
#: Weights in open_clip's order of preference; the first two are the hub's.
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FOLDER_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
PRECISIONS = ("fp32", "bf16", "fp16")
REMEDIES = (
    "give local weights with --weights FILE or --model local-dir:FOLDER, set HF_ENDPOINT to a mirror, "
    "or use the embedded model with --model zeroshot"
)


@dataclass(frozen=True)
class ModelSpec:
    """A model, and how to load it.

    `fingerprint` changes whenever the model's features may change. `source` is the name for open_clip: a built-in
    architecture (with `tag`), a `local-dir:` or `hf-hub:` name; or `transformers-dir:` and a folder. `tokenizer` is the
    folder of the tokenizer's files if it is not open_clip's own; `note` is shown to the user.
    """

    name: str
    source: str
    tag: str | None
    weights: Path | None
    fingerprint: str
    device: str
    precision: str
    tokenizer: Path | None = None
    note: str | None = None

    @property
    def known_as(self) -> str | None:
        """Name of the model if it is known by name: the embedded one, or one in $PROMPTSEARCH_MODELS."""
        return next(
            (n for n, folder in model_folders().items() if self.source == f"local-dir:{folder.resolve()}"), None
        )

    @property
    def text_key(self) -> dict[str, str]:
        """Cache key of text vectors, which are always float32."""
        # "whole" tells these from vectors of older versions, whose texts may be truncated.
        return {"model": self.fingerprint, "device": self.device, "dtype": "fp32", "texts": "whole"}

    @property
    def picture_key(self) -> dict[str, str]:
        """Cache key of picture vectors, which depend on the precision."""
        return {"model": self.fingerprint, "device": self.device, "dtype": self.precision}


def resolve_model(
    spec: str,
    cache: Cache,
    *,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    here: bool = True,
) -> ModelSpec:
    """Find a model's weights, downloading them if needed, and compute its fingerprint without loading it.

    Args:
        spec: `zeroshot`, a folder in $PROMPTSEARCH_MODELS, an open_clip architecture (`RN50` means OpenAI's weights),
            `NAME:PRETRAINED` (`NAME:random` for a random initialisation), `hf-hub:OWNER/NAME` or
            `local-dir:PATH` (saved by open_clip or transformers).
        cache: The cache, which remembers hashes of weights files.
        weights: A safetensors file or a state dict for the architecture `spec`.
        device: "auto", "cpu" or "cuda".
        precision: "fp32", "bf16" or "fp16", for pictures.
        here: Whether the model runs on this machine, so that the device must exist here.

    Raises:
        InputError: The model, file, device or precision does not exist.
        PromptSearchError: The weights are not on this machine and cannot be downloaded.
    """
    device = resolve_device(device, here, cache)
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: choose from {', '.join(PRECISIONS)}")
    if precision == "fp16" and device == "cpu":
        raise InputError("--precision fp16 is slower and less exact than fp32 on a CPU; use fp32 or bf16")
    source, tag, file, about = _locate(spec, weights, cache)
    about["weights"] = _file_hash(file, cache) if file else None
    note = about.pop("note", None)
    tokenizer = _locate_tokenizer(spec, source, about.get("config") or _built_in_config(source))
    if tokenizer is not None:
        about["tokenizer"] = hashes(tokenizer)
    return ModelSpec(spec, source, tag, file, digest_of(about), device, precision, tokenizer, note)


def _locate(spec: str, weights: Path | None, cache: Cache) -> tuple[str, str | None, Path | None, dict[str, Any]]:
    """Return open_clip's name, tag and weights file of a model, and what its fingerprint depends on besides weights."""
    if (known := model_folders().get(spec)) is not None:
        spec = f"local-dir:{known}"
    if spec.startswith(("local-dir:", "hf-hub:")):
        if weights is not None:
            raise InputError(f"--weights cannot be combined with --model {spec}, which has its own; leave one out")
        return _locate_folder(spec) if spec.startswith("local-dir:") else _locate_hub(spec)
    name, _, tag = spec.partition(":")
    if weights is not None:
        if tag:
            raise InputError(f"--weights {weights} and the tag {tag!r} of --model {spec} exclude each other")
        return _locate_file(name, weights)
    if tag == "random":
        return name, tag, None, {"architecture": name, "random": True}
    tag = tag or ("openai" if name == "RN50" else "")
    if (name, tag) == ("RN50", "openai") and (found := find_cached(RN50_REPO, WEIGHT_FILES[0])):
        return name, tag, found, {"architecture": name, "tag": tag}
    return name, tag, _download_tag(name, tag, cache), {"architecture": name, "tag": tag}


def _locate_folder(spec: str) -> tuple[str, None, Path, dict[str, Any]]:
    folder = Path(spec.removeprefix("local-dir:")).expanduser()
    config = folder / "open_clip_config.json"
    if not folder.is_dir():
        raise InputError(f"--model {spec}: no such folder")
    if is_transformers(folder):
        weights, about = read_folder(folder, spec)
        return f"{SOURCE}{folder.resolve()}", None, weights.resolve(), about
    try:
        model_config = read_config(config)
    except FileNotFoundError as e:
        raise InputError(
            f"--model {spec}: {config} is missing; save the model in open_clip's format, or in transformers'"
        ) from e
    except OSError as e:
        raise InputError(f"{config}: cannot be read ({e.strerror or e}); name a folder that you may read") from e
    file = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"--model {spec}: no weights there ({' or '.join(WEIGHT_FILES)})")
    refuse_mistaken(file)
    check_config(model_config, file, str(config))
    return f"local-dir:{folder.resolve()}", None, file.resolve(), {"config": model_config}


def _locate_file(name: str, weights: Path) -> tuple[str, None, Path, dict[str, Any]]:
    """Locate weights in a file; they need QuickGELU, which no file says, if they are OpenAI's."""
    if not weights.is_file():
        raise InputError(f"--weights {weights}: no such file")
    try:
        refuse_mistaken(weights)
    except OSError as e:
        raise InputError(f"--weights {weights}: cannot be read ({e.strerror or e}); make it readable") from e
    about: dict[str, Any] = {}
    quick, certain = trained_with_quick_gelu(name, weights)
    if not certain:
        taken, other, remedy = (
            ("QuickGELU, as OpenAI's in half precision", "GELU", "give --model local-dir:FOLDER with their config")
            if quick
            else (f"GELU, as most of {name} but OpenAI's", "QuickGELU", f"name --model {name}-quickgelu")
        )
        about["note"] = (
            f"Weights in a file do not say their activation: {weights.name} is taken for weights trained with {taken} "
            f"are; if they were trained with {other}, {remedy}."
        )
    name = f"{name}-quickgelu" if quick else name
    return name, None, weights.resolve(), {**about, "architecture": name}


def _built_in_config(name: str) -> dict[str, Any]:
    """Return the config of one of open_clip's architectures without importing open_clip; empty if there is none."""
    found = importlib.util.find_spec("open_clip")
    for home in (found.submodule_search_locations or []) if found else []:
        file = Path(home) / "model_configs" / f"{name}.json"
        if file.is_file():
            return {"model_cfg": json.loads(file.read_text("utf-8"))}
    return {}


def _locate_tokenizer(spec: str, source: str, config: dict[str, Any]) -> Path | None:
    """Return the folder of a model's tokenizer files, downloaded if needed; None for open_clip's own tokenizer."""
    name = config.get("model_cfg", {}).get("text_cfg", {}).get("hf_tokenizer_name")
    if not name and not source.startswith(SOURCE):
        return None
    if source.startswith(("local-dir:", SOURCE)):
        folder = Path(source.partition(":")[2])
        if not any((folder / file).is_file() for file in VOCABULARIES):
            raise InputError(f"--model {spec}: no tokenizer in {folder} ({VOCABULARIES[0]} …); save it there too")
        return folder
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name):
        raise InputError(f"--model {spec}: its tokenizer {shorten(name)} is not on the hub; save the model again")
    if not any(find_cached(name, file) for file in VOCABULARIES):
        _need_hub(f"{spec}: its tokenizer {name}")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            for file in FILES:
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(name, file)
        except Exception as e:  # as above
            raise PromptSearchError(
                f"--model {spec}: its tokenizer {name} cannot be downloaded ({first_line(e)}); {REMEDIES}"
            ) from e
    else:
        _offline_unless_reachable()
    found = next((path for file in VOCABULARIES if (path := find_cached(name, file))), None)
    if found is None:
        raise PromptSearchError(f"--model {spec}: its tokenizer {name} has no vocabulary ({VOCABULARIES[0]} …)")
    return found.parent


def _locate_hub(spec: str) -> tuple[str, None, Path, dict[str, Any]]:
    repo = spec.removeprefix("hf-hub:")
    found = next((f for name in WEIGHT_FILES if (f := find_cached(repo, name))), None)
    config = find_cached(repo, "open_clip_config.json")
    if found is None or config is None:
        _need_hub(spec)
        from huggingface_hub import hf_hub_download
        from open_clip.pretrained import download_pretrained_from_hf

        try:
            config = Path(hf_hub_download(repo, "open_clip_config.json"))
            found = Path(download_pretrained_from_hf(repo))
        except Exception as e:  # the hub's client raises many types of errors; each means that the download failed
            raise PromptSearchError(f"--model {spec} cannot be downloaded ({first_line(e)}); {REMEDIES}") from e
    else:
        _offline_unless_reachable()
    model_config = read_config(config)
    check_config(model_config, found, f"--model {spec}: {config.name}")
    return spec, None, found, {"config": model_config}


def _download_tag(name: str, tag: str, cache: Cache) -> Path:
    """Return the file of one of open_clip's named weights; its path is cached, to avoid importing open_clip again."""
    key = {"name": name, "tag": tag}
    if (memo := cache.get("model-files", key)) and (path := Path(memo.meta["path"])).is_file():
        _offline_unless_reachable()
        return path
    import open_clip

    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, [EMBEDDED, *open_clip.list_models()], 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() names them all"
        raise InputError(f"--model {name}: open_clip has no such architecture; {hint}")
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        which = f"{tag!r} is not among the weights" if tag else "say which weights"
        raise InputError(f"--model {name}: {which}: NAME:PRETRAINED with one of {tags}, or --weights FILE")
    repo = config.get("hf_hub", "").rstrip("/")
    cached = next((f for w in WEIGHT_FILES if repo and (f := find_cached(repo, w))), None)
    if cached is None:
        _need_hub(f"{name}:{tag}")
    else:
        _offline_unless_reachable()
    try:
        path = Path(open_clip.download_pretrained(config))
    except Exception as e:  # as above, any error means that the download failed
        raise PromptSearchError(f"--model {name}:{tag} cannot be downloaded ({first_line(e)}); {REMEDIES}") from e
    cache.add("model-files", key, {}, {"path": str(path)})
    return path


def _need_hub(what: str) -> None:
    reachable, reason = hub_reachable()
    if not reachable:
        raise PromptSearchError(f"--model {what} is not in the caches and cannot be downloaded ({reason}); {REMEDIES}")


def _offline_unless_reachable() -> None:
    """Switch the hub's client to offline mode if the hub cannot be reached, which saves its retries."""
    if not hub_reachable()[0]:
        go_offline()


def _file_hash(path: Path, cache: Cache) -> str:
    """Return the SHA-256 of a weights file, which is cached by path, size and times of modification and change."""
    stat = path.stat()
    key = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    if stat.st_size < 1 << 25:
        return sha256_file(path)
    if memo := cache.get("file-hashes", key):
        return str(memo.meta["sha256"])
    sha = sha256_file(path)
    cache.add("file-hashes", key, {}, {"sha256": sha})
    return sha
