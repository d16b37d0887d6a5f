"""The result of a gradient baseline: class weights and learnt vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import InputError


@dataclass(frozen=True)
class Learned:
    """Class weights with the learnt tensors from which they are computed.

    Attributes:
        class_weights: (C, D) class weights of unit length.
        tensors: Learnt tensors by name.
        losses: Mean training loss of each epoch (of each step for methods without epochs), in nats.
        steps: Number of optimisation steps.
        about: The options of the training, JSON-serialisable.
    """

    class_weights: np.ndarray
    tensors: dict[str, np.ndarray]
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, about: dict[str, Any] | None = None) -> None:
        """Write `class_weights` and the learnt tensors to a safetensors file, and the other attributes as its metadata.

        Args:
            path: The file; its folder is created if needed.
            about: Further entries for the metadata.

        Raises:
            InputError: The file cannot be written.
        """
        from safetensors.numpy import save

        meta = {"losses": self.losses, "steps": self.steps, "about": {**self.about, **(about or {})}}
        arrays = {k: np.ascontiguousarray(v) for k, v in {"class_weights": self.class_weights, **self.tensors}.items()}
        header = json.dumps(meta)
        data = save(arrays, {"promptsearch": header, "checksum": _checksum(arrays, header)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as e:
            raise InputError(f"--save {path}: cannot be written ({e.strerror or e})") from e

    @classmethod
    def load(cls, path: Path) -> Learned:
        """Read a file written by `save`.

        Raises:
            InputError: The file does not exist, is damaged or was not written by `save`.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as f:
                header = f.metadata() or {}
                meta = json.loads(header["promptsearch"])
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  (no mapping)
            if header.get("checksum") not in (
                None,
                _checksum(tensors, header["promptsearch"]),
            ):  # earlier versions wrote no checksum
                raise InputError(f"{path}: is damaged (its checksum does not match); delete it and train again")
            return cls(tensors.pop("class_weights"), tensors, meta["losses"], meta["steps"], meta["about"])
        except FileNotFoundError as e:
            raise InputError(f"{path}: no such file") from e
        except InputError:
            raise
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as e:
            raise InputError(f"{path}: does not contain a learnt prompt; use a file written with --save") from e


def _checksum(arrays: Mapping[str, np.ndarray], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
