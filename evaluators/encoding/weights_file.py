"""Reads weights files: tells their kind and origin, and reads TorchScript archives without running their code."""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.banks.formats import mistaken_for
from promptsearch.errors import InputError

#: A model of at most this many parameters is built whatever its weights file holds; loading then reports problems.
SMALL = 100_000_000

#: Architectures for which OpenAI published weights; these were trained with QuickGELU, which no file says.
OPENAI = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")

#: Those of them for which others published weights too, which were trained with GELU.
ALSO_OTHERS = ("RN101", "ViT-B-32", "ViT-B-16", "ViT-L-14")

# Entries of OpenAI's archives that are not weights.
_EXTRA = ("input_resolution", "context_length", "vocab_size")

_STORAGES: dict[str, Any] = {"HalfStorage": np.float16, "FloatStorage": np.float32, "DoubleStorage": np.float64}
_STORAGES |= {"LongStorage": np.int64, "IntStorage": np.int32, "ByteStorage": np.uint8, "BoolStorage": np.bool_}


def refuse_mistaken(path: Path) -> None:
    """Refuse a file that cannot hold weights, whatever its name: a Git LFS pointer, a web page or an empty file.

    Raises:
        InputError: The file holds no weights; the message says what it is.
    """
    with path.open("rb") as f:
        head = f.read(512)
    if found := mistaken_for(head):
        raise InputError(f"weights {path}: the file is {found[0]}; {found[1]}")


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, as OpenAI published its models."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def trained_with_quick_gelu(name: str, path: Path) -> tuple[bool, bool]:
    """Tell whether weights of an architecture are OpenAI's, which need QuickGELU.

    OpenAI trained in half precision, so its weights are stored in half precision or are all representable in it. That
    is a guess for architectures for which others published weights, because they may store half precision too.

    Returns:
        Whether they need QuickGELU, and whether that is certain.
    """
    if name not in OPENAI:
        return False, True
    if name not in ALSO_OTHERS or is_torchscript(path):
        return True, True
    try:
        tensors = dict(_tensors(path, ("text_projection", *_EXTRA)))
    except Exception:  # the file is damaged or of an unknown format; loading reports that
        return False, False
    if any(extra in tensors for extra in _EXTRA):
        return True, True
    projection = tensors.get("text_projection")
    if projection is None:
        return False, False
    with np.errstate(over="ignore"):
        return bool((projection.astype(np.float16).astype(projection.dtype) == projection).all()), False


def read_torchscript(path: Path) -> dict[str, np.ndarray]:
    """Read the parameters and buffers of a TorchScript archive without running its code.

    Returns:
        Arrays by the names of a state dict.

    Raises:
        InputError: The archive is damaged, or does not hold a model.
    """
    try:
        found = dict(_tensors(path))
    except Exception as e:  # zipfile's, pickle's and numpy's errors share no base class
        raise InputError(f"weights {path}: the TorchScript archive cannot be read ({e}); fetch it again") from e
    return {k: v for k, v in found.items() if k not in _EXTRA and not k.endswith("attn_mask")}


def _tensors(path: Path, only: tuple[str, ...] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the named arrays of a safetensors file or a zip of torch's, or those of `only` that it has."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(path), framework="np") as f:
            for name in f.keys():  # noqa: SIM118  (no mapping)
                if only is None or name in only:
                    yield name, f.get_tensor(name)
        return
    with zipfile.ZipFile(path) as archive:
        index = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        home = index.removesuffix("data.pkl")
        tree = _Reader(archive.open(index)).load()
        for name, tensor in _named(tree, ""):
            # prefixes in checkpoints of training scripts
            name = name.removeprefix("state_dict.").removeprefix("module.")
            if only is None or name in only:
                yield name, tensor.array(archive, home)


class _Holder:
    """Stands for an object of a class in the archive: it has the object's attributes, but none of its code."""

    def __new__(cls, *args: Any) -> _Holder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Tensor:
    """The place of a tensor's numbers in the archive."""

    def __init__(self, storage: tuple[Any, ...], offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def array(self, archive: zipfile.ZipFile, home: str) -> np.ndarray:
        _, kind, key, _, _ = self.storage
        dtype = np.dtype(kind)
        numbers = np.frombuffer(archive.read(f"{home}data/{key}"), dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if min((*self.shape, 1)) > 0 and not 0 <= last < len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        steps = [step * dtype.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False).copy()


def _rebuild(storage: tuple[Any, ...], offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


class _Reader(pickle.Unpickler):
    """Unpickles torch's pickles as tensors, dicts and holders only, so that no name in them reaches real code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name == "OrderedDict":
            return collections.OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *rest: tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle":
            return lambda *values: list(*values)
        if module.startswith("__torch__"):
            return _Holder
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a model")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _named(value: Any, prefix: str) -> Iterator[tuple[str, _Tensor]]:
    """Yield the tensors of a tree of holders and dicts by their dotted names."""
    state = value.state if isinstance(value, _Holder) else value
    if isinstance(state, _Tensor):
        yield prefix, state
    elif isinstance(state, dict):
        for name, inner in state.items():
            yield from _named(inner, f"{prefix}.{name}" if prefix else str(name))
