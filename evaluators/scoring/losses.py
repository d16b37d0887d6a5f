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
        true, top, total = np.empty((3, sets, len(self.labels)), np.float32)
        with np.errstate(over="ignore"):
            for to, sums, norm in pieces:
                # Only the long loops run piece by piece, because threads in short loops wait for each other.
                sums *= self.scales(norm)
                self._take_true(sums, true[to])
                sums.max(axis=1, out=top[to])
                np.exp(sums, out=sums)
                np.einsum("scn->sn", sums, out=total[to])
        accuracy = np.count_nonzero(true >= top, axis=1) / len(self.labels)
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
        top, true = logits.max(axis=1), np.empty((1, len(self.labels)), np.float32)
        self._take_true(logits, true)
        losses = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - true
        return float(losses.mean(dtype=np.float64))

    def _take_true(self, logits: np.ndarray, out: np.ndarray) -> None:
        """Copy the logits of the true classes from (S, C, N) to (S, N), faster if classes are equally large."""
        s, classes, pictures = logits.shape
        each = pictures // classes
        names = np.arange(classes)
        even = each * classes == pictures and each and (self.labels.reshape(classes, each) == names[:, None]).all()
        if even:
            np.copyto(out.reshape(s, classes, each), np.einsum("sccn->scn", logits.reshape(s, classes, classes, each)))
        else:
            out[...] = logits[:, self.labels, self._pictures]
