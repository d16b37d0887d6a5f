"""What a gradient baseline ends with: class weights, and the vectors that were learnt."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import InputError


@dataclass(frozen=True)
class Learned:
    """Unit class weights (C, D) with the tensors that make them.

    Attributes:
        tensors: what was learnt, by name.
        losses: mean training loss of each epoch.
        steps: optimisation steps.
        about: how it was learnt: plain data.
    """

    class_weights: np.ndarray
    tensors: dict[str, np.ndarray]
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, about: dict[str, Any] | None = None) -> None:
        """Write a safetensors file: `class_weights` and the learnt tensors; everything else as JSON in its metadata.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors.numpy import save_file

        meta = {"losses": self.losses, "steps": self.steps, "about": {**self.about, **(about or {})}}
        arrays = {"class_weights": self.class_weights, **self.tensors}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, {"promptsearch": json.dumps(meta)})
        except OSError as e:
            raise InputError(f"--save {path}: cannot be written ({e.strerror or e})") from e

    @classmethod
    def load(cls, path: Path) -> Learned:
        """What `save` wrote.

        Raises:
            InputError: no such file, or not one of these.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as f:
                meta = json.loads((f.metadata() or {})["promptsearch"])
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  (no mapping)
            return cls(tensors.pop("class_weights"), tensors, meta["losses"], meta["steps"], meta["about"])
        except FileNotFoundError as e:
            raise InputError(f"{path}: no such file") from e
        except (SafetensorError, OSError, KeyError, ValueError) as e:
            raise InputError(f"{path}: holds no learnt prompt; write one with --save") from e


def score_weights(
    class_weights: np.ndarray, features: np.ndarray, labels: np.ndarray, logit_scale: float
) -> tuple[np.ndarray, float]:
    """(N,) bool, which pictures unit class weights (C, D) classify rightly; and the mean cross-entropy in nats."""
    logits = logit_scale * (features @ class_weights.T)  # (N, C)
    top = logits.max(axis=1)
    xent = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]
    return logits.argmax(axis=1) == labels, float(xent.mean(dtype=np.float64))
