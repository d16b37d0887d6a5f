"""The score of a PromptSet on a set of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """The metrics of a PromptSet on a set of pictures.

    Accuracy and mean cross-entropy (in nats, at the evaluator's logit scale) are nan for pictures without labels. The
    other metrics (see `evaluators.scoring.metrics`) are None unless an objective needs them.
    """

    accuracy: float = math.nan
    xent: float = math.nan
    fluency: float | None = None
    margin: float | None = None
    balanced: float | None = None
    xent_fitted: float | None = None
    zpe: float | None = None
    mutual_information: float | None = None
    agreement: float | None = None
    worst_class: float | None = None

    @classmethod
    def of(cls, accuracy: float, xent: float) -> Score:
        """Make a score of these two alone, as `Score(accuracy, xent)` does, in a quarter of its time.

        A search makes tens of thousands of them, and the constructor of a frozen class sets every field by a call.
        """
        score = cls.__new__(cls)
        score.__dict__["accuracy"], score.__dict__["xent"] = accuracy, xent
        return score

    def to_dict(self) -> dict[str, float]:
        """Return the metrics that are neither None nor nan."""
        figures = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {name: v for name, v in figures if v is not None and not math.isnan(v)}
