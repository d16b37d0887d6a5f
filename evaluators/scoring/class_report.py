"""Metrics on labelled pictures beside accuracy: by class, among the first five classes, and of the probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.evaluators.scoring.predictions import predict

#: Bins of equal width in which probabilities and hits are compared.
BINS = 15

#: Classes of which the true one is to be among the most probable; only counted where there are more.
TOP = 5


@dataclass(frozen=True)
class ClassReport:
    """Metrics on labelled pictures.

    Attributes:
        mean_per_class: Mean over classes of the accuracy on each class's pictures (balanced accuracy).
        worst_class: Accuracy on the pictures of the class with the lowest.
        worst: Index of that class.
        recall: For each class the share of its pictures that are predicted so; None without pictures.
        precision: For each class the share of the pictures predicted so that are of it; None if none is.
        top5: Share of pictures whose class is among the five most probable; None with five classes or fewer, or without
            probabilities.
        ece: Expected calibration error (Guo et al. 2017, equation 3), in `BINS` bins of equal width; None without
            probabilities.
        logit_scale: What cosines were multiplied by before the softmax: the scale fitted to the few shots.
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
        """Read what `to_dict` gave."""
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
    """What a classifier made of labelled pictures: all that the metrics need.

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
        """Judge cosines (N, C) of pictures and classes, which are multiplied by the logit scale before the softmax."""
        true = cosines[np.arange(len(labels)), labels][:, None]
        rivals = (cosines >= true).sum(axis=1) - 1  # (N,) a class that ties with the true one comes before it
        return cls(predict(cosines, labels), rivals, largest_probability(logit_scale * cosines))


def measure(cosines: np.ndarray, labels: np.ndarray, logit_scale: float) -> ClassReport:
    """Measure cosines of pictures and classes on labelled pictures.

    Args:
        cosines: (N, C) cosines, or other logits.
        labels: (N,) class indices.
        logit_scale: What they are multiplied by before the softmax.
    """
    return measure_judged(Judged.of(cosines, labels, logit_scale), labels, cosines.shape[1], logit_scale)


def measure_judged(judged: Judged, labels: np.ndarray, classes: int, logit_scale: float) -> ClassReport:
    """Measure what a classifier made of labelled pictures.

    Args:
        judged: What it made of them.
        labels: (N,) class indices.
        classes: Number of classes C.
        logit_scale: What cosines were multiplied by before the softmax.
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
