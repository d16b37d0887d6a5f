"""The objectives that need no labels, with their derivatives, as evidence for `PhraseTable.mix`.

Each function takes logits (N, C), and returns N times the objective and its derivatives by the logits (N, C). Like a
log-likelihood it is a sum over the pictures, which `mix` weighs against the prior.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from promptsearch.evaluators.scoring.phrase_table import Evidence

#: Smaller probabilities are raised to this before their logarithm is taken.
LEAST = 1e-12


def mutual_information(logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Return N times the mutual information of pictures and predictions, in nats."""
    p = _probabilities(logits)
    log_p, log_mean = np.log(np.maximum(p, LEAST)), np.log(np.maximum(p.mean(axis=0), LEAST))  # (N, C), (C,)
    by_p = log_p - log_mean
    value = (p * by_p).sum(axis=1)  # (N,) divergence of each prediction from the mean one
    return float(value.sum(dtype=np.float64)), p * (by_p - value[:, None])


def zpe(logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the sum over pictures of the largest debiased logit (ZPE, Allingham et al. 2023, section 3)."""
    debiased = logits - logits.mean(axis=0)
    top = np.eye(logits.shape[1], dtype=logits.dtype)[debiased.argmax(axis=1)]  # (N, C)
    return float((debiased * top).sum(dtype=np.float64)), top - top.mean(axis=0)


def agreement(logits: np.ndarray, consensus: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the sum over pictures of the probability of the class in the consensus (N,) of many templates."""
    p = _probabilities(logits)
    same = np.eye(logits.shape[1], dtype=logits.dtype)[consensus]  # (N, C)
    agreed = (p * same).sum(axis=1)  # (N,)
    return float(agreed.sum(dtype=np.float64)), agreed[:, None] * (same - p)


def evidence_of(figure: str, consensus: np.ndarray | None) -> Evidence:
    """Return the evidence of an objective that needs no labels.

    Args:
        figure: The field of the Score that the objective maximises.
        consensus: (N,) the classes that "agreement" compares with.
    """
    if figure == "agreement":
        assert consensus is not None  # `Evaluator.require` has computed it
        return partial(agreement, consensus=consensus)
    return {"mutual_information": mutual_information, "zpe": zpe}[figure]


def _probabilities(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))
