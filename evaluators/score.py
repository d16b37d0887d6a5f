"""Score: the figures of one PromptSet on one set of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy and mean cross-entropy (nats, at the evaluator's logit scale) of one PromptSet on one set of pictures.

    Both are nan where the pictures have no labels.  The other figures (see `evaluators.scoring.metrics`)
    are None unless an objective asked for them.
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

    def to_dict(self) -> dict[str, float]:
        """The figures that there are."""
        figures = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: v for name, v in figures if v is not None and not math.isnan(v)}
