"""How far a winner's probabilities can be trusted: a logit scale, and the probability below which it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Evaluator

#: Largest share of pictures of the known classes that `unknown_below` may call unknown.
REFUSED = 0.05


@dataclass(frozen=True)
class Calibration:
    """The figures, estimated on the few-shot pictures, that turn a winner's cosines into probabilities.

    Attributes:
        logit_scale: What cosines are multiplied by before the softmax.
        unknown_below: Largest probability below which a picture is of no known class; None if there are too few
            few-shot pictures to estimate it.
    """

    logit_scale: float
    unknown_below: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as `calibration` of the JSON document."""
        return {"logit_scale": self.logit_scale, "unknown_below": self.unknown_below}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Read what `to_dict` returned."""
        below = data.get("unknown_below")
        return cls(float(data["logit_scale"]), None if below is None else float(below))


def calibrate(evaluator: Evaluator, winner: PromptSet) -> Calibration:
    """Estimate the calibration of a winner on the few-shot pictures that it was found on.

    Args:
        evaluator: The evaluator of the run, whose logit scale is fitted to the few labels.
        winner: The chosen prompt set.
    """
    cosines = evaluator.task.support.features @ evaluator.class_weights(winner).T  # (N, C)
    best = probabilities(cosines, evaluator.logit_scale).max(axis=1)  # (N,)
    return Calibration(float(evaluator.logit_scale), threshold(best))


def threshold(best: np.ndarray, refused: float = REFUSED) -> float | None:
    """Return the probability below which a picture counts as of no known class.

    It is the k-th smallest of the n few-shot pictures' largest probabilities, k = floor(refused (n + 1)): of new
    pictures of the same classes at most k / (n + 1) are expected below it, if they are like the few (split conformal
    prediction, Vovk et al. 2005; the score is the maximum softmax probability of Hendrycks & Gimpel 2017).

    Args:
        best: (n,) largest probability of each few-shot picture.
        refused: Largest share of pictures of known classes to call unknown.

    Returns:
        The threshold, or None if there are fewer than 1 / refused - 1 pictures.
    """
    k = int(refused * (len(best) + 1) + 1e-9)
    return float(np.sort(best)[k - 1]) if k else None


def probabilities(cosines: np.ndarray, logit_scale: float) -> np.ndarray:
    """Return the softmax (N, C) of cosines (N, C) times a logit scale, in float64."""
    logits = logit_scale * cosines.astype(np.float64)  # (N, C)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
