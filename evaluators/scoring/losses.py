"""Computes accuracy and cross-entropy of many prompt ensembles at once from their summed cosines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

#: exp of logits up to this size neither overflows nor underflows in float32, so that no shift is needed.
FAR = 64.0


class Losses:
    """Accuracy and cross-entropy of ensembles on pictures with labels.

        losses = Losses(labels, logit_scale=100.0)
        accuracy, xent = losses(2, [(slice(0, 2), sums, norm)], again=lambda i: logits[i : i + 1])

    Args:
        labels: (N,) class indices, sorted.
        logit_scale: The factor on cosines.
    """

    def __init__(self, labels: np.ndarray, logit_scale: float) -> None:
        self.labels, self.logit_scale = labels, np.float32(logit_scale)
        self._pictures = np.arange(len(labels))

    def __call__(
        self,
        sets: int,
        pieces: Iterable[tuple[slice, np.ndarray, np.ndarray]],
        again: Callable[[int], np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score S ensembles.

        Args:
            sets: S, the number of ensembles.
            pieces: Parts of the ensembles, each as (their positions among the S, their summed cosines (s, C, N), which
                are overwritten, the norms (s, C) of their summed vectors).
            again: Computes the logits (1, C, N) of the ensemble at a position again.

        Returns:
            (S,) accuracy and (S,) mean cross-entropy in nats, both float64.
        """
        true, rival, total = np.empty((3, sets, len(self.labels)), np.float32)
        with np.errstate(over="ignore"):
            for to, sums, norm in pieces:
                # Only the long loops run piece by piece, because threads in short loops wait for each other.
                sums *= self.scales(norm)
                # The largest logit of the other classes: a tie with one of them is not a hit (see `predict`).
                self._swap_true(sums, true[to], -np.inf)
                sums.max(axis=1, out=rival[to])
                self._swap_true(sums, None, true[to])
                np.exp(sums, out=sums)
                np.einsum("scn->sn", sums, out=total[to])
        accuracy = np.count_nonzero(true > rival, axis=1) / len(self.labels)
        top = np.maximum(true, rival, out=rival)
        far = np.flatnonzero((top.max(axis=1) > FAR) | (top.min(axis=1) < -FAR))
        total[far] = 1
        np.log(total, out=total)
        total -= true
        xent = total.mean(axis=1, dtype=np.float64)
        for at in far.tolist():
            xent[at] = self._shifted(again(at))
        return accuracy, xent

    def scales(self, norm: np.ndarray) -> np.ndarray:
        """Return the factors (S, C, 1) that turn summed cosines into logits, for norms (S, C)."""
        return (self.logit_scale / np.maximum(norm, np.float32(1e-12)))[:, :, None]

    def _shifted(self, logits: np.ndarray) -> float:
        """Return the cross-entropy of one ensemble's logits (1, C, N), subtracting the largest logit before exp."""
        top, true = logits.max(axis=1), logits[:, self.labels, self._pictures]
        losses = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - true
        return float(losses.mean(dtype=np.float64))

    def _swap_true(self, logits: np.ndarray, out: np.ndarray | None, new: np.ndarray | float) -> None:
        """Copy the true classes' logits of (S, C, N) to `out` (S, N), and write `new` in their places.

        Faster if classes are equally large.
        """
        s, classes, pictures = logits.shape
        each = pictures // classes
        if logits.flags.c_contiguous and self._even(classes, each):
            old = np.einsum("sccn->scn", logits.reshape(s, classes, classes, each))  # a view
            if out is not None:
                np.copyto(out.reshape(s, classes, each), old)
            old[...] = new if isinstance(new, float) else new.reshape(s, classes, each)
            return
        if out is not None:
            out[...] = logits[:, self.labels, self._pictures]
        logits[:, self.labels, self._pictures] = new

    def _even(self, classes: int, each: int) -> bool:
        """Return whether every class has this many pictures, one class after the other."""
        if each * classes != len(self.labels) or not each:
            return False
        return bool((self.labels.reshape(classes, each) == np.arange(classes)[:, None]).all())
