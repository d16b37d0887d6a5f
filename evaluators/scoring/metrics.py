"""Accuracy, cross-entropy and the other metrics of prompt ensembles, and the definition of a hit (see `predict`).

A metric in `STATISTICS` takes the logits (S, C, N) of S ensembles at the model's scale, the labels (N,) and a consensus
(N,) (see `agreement`), and returns (S,) float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: exp of logits up to this size neither overflows nor underflows in float32, so that no shift is needed.
FAR = 64.0


class Losses:
    """Computes the accuracy and cross-entropy of ensembles on pictures with labels.

        losses = Losses(labels, logit_scale=100.0)
        accuracy, xent = losses(2, [(slice(0, 2), sums, norm)], again=lambda i: logits[i : i + 1])

    Args:
        labels: (N,) class indices, sorted.
        logit_scale: Factor by which cosines are multiplied.
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
                # Only long loops are split into pieces for threads, because in short loops threads wait for each other.
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

        This is faster if all classes have the same number of pictures.
        """
        s, classes, pictures = logits.shape
        each = pictures // classes
        if logits.flags.c_contiguous and self._even(classes, each):
            # a view of the true classes' logits
            old = np.einsum("sccn->scn", logits.reshape(s, classes, classes, each))
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


def predict(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the predicted class of each picture.

    Where the true class ties with another for the largest logit, the other is predicted, so that
    `predict(logits, labels) == labels` counts hits only.

    Args:
        logits: (N, C) logits or cosines.
        labels: (N,) true classes.

    Returns:
        (N,) class indices.
    """
    rows = np.arange(len(logits))
    others = np.array(logits)  # (N, C)
    others[rows, labels] = -np.inf
    rival = others.argmax(axis=1)
    return np.where(logits[rows, labels] > others[rows, rival], labels, rival)


def score_weights(
    class_weights: np.ndarray, features: np.ndarray, labels: np.ndarray, logit_scale: float
) -> tuple[np.ndarray, float]:
    """Score class weights on labelled pictures.

    Args:
        class_weights: (C, D) class weights of unit length.
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        logit_scale: The model's logit scale.

    Returns:
        (N,) bool, whether each picture is classified correctly, and the mean cross-entropy in nats.
    """
    logits = logit_scale * (features @ class_weights.T)  # (N, C)
    top = logits.max(axis=1)
    xent = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]
    return predict(logits, labels) == labels, float(xent.mean(dtype=np.float64))


#: Number of bins of equal width for the calibration error.
BINS = 15

#: Number of most probable classes for the top-5 accuracy, which is measured only if there are more classes.
TOP = 5


@dataclass(frozen=True)
class ClassReport:
    """Metrics on labelled pictures.

    Attributes:
        mean_per_class: Mean over classes of the accuracy on each class's pictures (balanced accuracy).
        worst_class: Accuracy on the pictures of the class for which it is lowest.
        worst: Index of that class.
        recall: For each class, the share of its pictures that are predicted as it; None without pictures.
        precision: For each class, the share of the pictures predicted as it that belong to it; None if there are none.
        top5: Share of pictures whose class is among the five most probable; None with five classes or fewer, or without
            probabilities.
        ece: Expected calibration error (Guo et al. 2017, equation 3), in `BINS` bins of equal width; None without
            probabilities.
        logit_scale: Factor of the cosines in the softmax: the scale fitted to the few shots.
    """

    mean_per_class: float
    worst_class: float
    worst: int
    recall: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    top5: float | None = None
    ece: float | None = None
    logit_scale: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as part of a JSON document; accuracies are fractions."""
        data: dict[str, Any] = {
            "mean_per_class": round(self.mean_per_class, 6),
            "worst_class": {"accuracy": round(self.worst_class, 6), "class": self.worst},
        }
        data |= {} if self.top5 is None else {"top5": round(self.top5, 6)}
        if self.ece is not None and self.logit_scale is not None:
            data["calibration"] = {"ece": round(self.ece, 6), "bins": BINS, "logit_scale": round(self.logit_scale, 4)}
        for name in ("recall", "precision"):
            data[name] = [None if v is None else round(v, 6) for v in getattr(self, name)]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassReport:
        """Return the object that `to_dict` has written."""
        calibration = data.get("calibration") or {}
        return cls(
            data["mean_per_class"],
            data["worst_class"]["accuracy"],
            data["worst_class"]["class"],
            tuple(data["recall"]),
            tuple(data["precision"]),
            data.get("top5"),
            calibration.get("ece"),
            calibration.get("logit_scale"),
        )


@dataclass(frozen=True)
class Judged:
    """The predictions of a classifier on labelled pictures, as the metrics need them.

    Attributes:
        predicted: (N,) predicted class indices.
        rivals: (N,) number of other classes that are at least as probable as the true one.
        confidence: (N,) largest probability.
    """

    predicted: np.ndarray
    rivals: np.ndarray
    confidence: np.ndarray

    @classmethod
    def of(cls, cosines: np.ndarray, labels: np.ndarray, logit_scale: float) -> Judged:
        """Return the predictions for cosines (N, C) of pictures and classes."""
        true = cosines[np.arange(len(labels)), labels][:, None]
        rivals = (cosines >= true).sum(axis=1) - 1  # (N,) a class that ties with the true one comes before it
        return cls(predict(cosines, labels), rivals, largest_probability(logit_scale * cosines))


def measure(cosines: np.ndarray, labels: np.ndarray, logit_scale: float) -> ClassReport:
    """Measure cosines of pictures and classes on labelled pictures.

    Args:
        cosines: (N, C) cosines, or other logits.
        labels: (N,) class indices.
        logit_scale: Factor of the cosines in the softmax.
    """
    return measure_judged(Judged.of(cosines, labels, logit_scale), labels, cosines.shape[1], logit_scale)


def measure_judged(judged: Judged, labels: np.ndarray, classes: int, logit_scale: float) -> ClassReport:
    """Compute the metrics of a classifier's predictions on labelled pictures.

    Args:
        judged: The predictions.
        labels: (N,) class indices.
        classes: Number of classes C.
        logit_scale: Factor of the cosines in the softmax.
    """
    predicted = judged.predicted
    pictures = np.bincount(labels, minlength=classes)  # (C,)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    said = np.bincount(predicted, minlength=classes)
    recall = [int(r) / int(n) if n else None for r, n in zip(right, pictures, strict=True)]
    there = {c: r for c, r in enumerate(recall) if r is not None}
    worst = min(there, key=lambda c: there[c])
    return ClassReport(
        float(np.mean(list(there.values()))),
        there[worst],
        worst,
        tuple(recall),
        tuple(int(r) / int(n) if n else None for r, n in zip(right, said, strict=True)),
        top5=float((judged.rivals < TOP).mean()) if classes > TOP else None,
        ece=expected_calibration_error(judged.confidence, predicted == labels),
        logit_scale=logit_scale,
    )


def largest_probability(logits: np.ndarray) -> np.ndarray:
    """Return the largest probability (N,) of each row of logits (N, C)."""
    exact = logits.astype(np.float64)
    return np.asarray(1 / np.exp(exact - exact.max(axis=1, keepdims=True)).sum(axis=1))


def expected_calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3).

    ECE = sum_b |B_b| / N · |accuracy(B_b) - confidence(B_b)|, over bins of equal width of the largest probability.

    Args:
        confidence: (N,) largest probability of each picture.
        hits: (N,) whether each picture is classified correctly.
        bins: Number of bins.
    """
    which = np.minimum(np.ceil(confidence * bins).astype(int) - 1, bins - 1)
    gaps = np.bincount(which, weights=hits - confidence, minlength=bins)  # (bins,) sums over the pictures of each
    return float(np.abs(gaps).sum() / len(hits))


#: Bounds of the fitted logit scale, relative to the model's; without them it is infinite if all pictures are correct.
FITTED = (0.25, 4.0)


def margin(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean of the true class's probability minus the largest other one, from -1 to 1."""
    p = probabilities(logits)
    pictures = np.arange(logits.shape[2])
    true = p[:, labels, pictures]
    p[:, labels, pictures] = -1
    return (true - p.max(axis=1)).mean(axis=1, dtype=np.float64)


def balanced(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the balanced accuracy: the mean over classes of the accuracy on each class's pictures."""
    return np.mean(_by_class(logits, labels), axis=0)


def worst_class(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the accuracy on the pictures of the class for which it is lowest."""
    return np.min(_by_class(logits, labels), axis=0)


def _by_class(logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the accuracy (S,) on the pictures of each class that has any."""
    pictures = np.arange(logits.shape[2])
    others = np.array(logits)
    others[:, labels, pictures] = -np.inf
    hits = logits[:, labels, pictures] > others.max(axis=1)  # (S, N)
    return [hits[:, labels == c].mean(axis=1) for c in np.unique(labels)]


def xent_fitted(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean cross-entropy at the best logit scale of each ensemble, within the bounds `FITTED`.

    Cross-entropy is convex in the scale, so the zero of its derivative, the mean over pictures of
    E_p[logit] - true logit, is found by bisection.
    """
    true = logits[:, labels, np.arange(logits.shape[2])]  # (S, N)
    low, high = (np.full(len(logits), np.log(bound)) for bound in FITTED)
    for _ in range(12):  # error of the logarithm at most 0.0003
        middle = (low + high) / 2
        p = probabilities(logits * np.exp(middle).astype(np.float32)[:, None, None])
        p *= logits
        rising = (p.sum(axis=1) - true).mean(axis=1) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    scale = np.exp((low + high) / 2).astype(np.float32)
    scaled = logits * scale[:, None, None]
    top = scaled.max(axis=1)
    losses = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - true * scale[:, None]
    return losses.mean(axis=1, dtype=np.float64)


def zpe(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean over pictures of the largest debiased logit (ZPE, Allingham et al. 2023, section 3).

    A class's logits are debiased by subtracting their mean over the pictures.
    """
    debiased = logits - logits.mean(axis=2, keepdims=True)
    return debiased.max(axis=1).mean(axis=1, dtype=np.float64)


def mutual_information(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mutual information of pictures and predictions: H(mean prediction) - mean H(prediction), in nats."""
    p = probabilities(logits)
    return entropy(p.mean(axis=2, dtype=np.float64)) - entropy(p).mean(axis=1, dtype=np.float64)


def agreement(logits: np.ndarray, labels: np.ndarray, consensus: np.ndarray | None) -> np.ndarray:
    """Return the mean probability of the class that the consensus (N,) assigns to each picture."""
    if consensus is None:
        raise ValueError("agreement needs a consensus")
    return probabilities(logits)[:, consensus, np.arange(logits.shape[2])].mean(axis=1, dtype=np.float64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (S, C, N) over classes."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy over axis 1, in nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)


Statistic = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]

#: The metrics by their field in a Score.
STATISTICS: dict[str, Statistic] = {
    f.__name__: f for f in (margin, balanced, worst_class, xent_fitted, zpe, mutual_information, agreement)
}

#: The metrics that need labels.
NEED_LABELS = ("margin", "balanced", "worst_class", "xent_fitted")
