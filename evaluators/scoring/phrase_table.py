"""Finds the mixture of templates and of each class's phrases that fits pictures best.

The class weight of class c is  w_c = normalise(sum_t a_t sum_p b_cp v_tp)  over templates t with weights a and the
class's phrases p with weights b; v are unit text vectors.  One matrix product with the pictures gives the derivatives
of the evidence by the weights of all phrases of all classes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from promptsearch.banks import Template

#: Largest number of steps of `PhraseTable.mix`, and the gain in nats below which it stops.
STEPS, GAIN = 80, 1e-3

#: Bounds of a fitted logit scale, relative to the model's, and number of values between them that are tried.
SCALES, TRIED = (0.05, 2.0), 40

#: The prior of a fitted scale is log-normal around this share of the model's scale, with this standard deviation.
SHARE, SPREAD = 0.5, 0.7

#: Returns the evidence of pictures for logits (N, C), a sum over the pictures, and its derivatives (N, C).
Evidence = Callable[[np.ndarray], tuple[float, np.ndarray]]

#: Smallest logarithm of a weight, so that no weight becomes exactly zero.
LEAST_LOG = -40.0


def fit_scale(cosines: np.ndarray, labels: np.ndarray, model_scale: float) -> float:
    """Return the logit scale that fits few labels best, with a prior around half of the model's own.

    A zero-shot model's own scale is far too sharp for its errors: cross-entropy at that scale rewards prompts that
    flatten the logits.

    Args:
        cosines: (N, C) of pictures and class weights.
        labels: (N,) class indices.
        model_scale: The model's logit scale.

    Returns:
        The scale of the largest posterior probability among `TRIED` values.
    """
    scales = model_scale * np.geomspace(*SCALES, TRIED)
    true = cosines[np.arange(len(labels)), labels].sum(dtype=np.float64)
    top = cosines.max(axis=1)
    below = np.ascontiguousarray((cosines - top[:, None]).T, np.float64)  # (C, N)
    room, first = np.empty_like(below), true - top.sum(dtype=np.float64)
    logs = [s * first - np.log(np.exp(np.multiply(below, s, out=room), out=room).sum(axis=0)).sum() for s in scales]
    prior = -(np.log(scales / (SHARE * model_scale)) ** 2) / (2 * SPREAD**2)
    return float(scales[int(np.argmax(np.asarray(logs) + prior))])


@dataclass(frozen=True)
class Mixture:
    """Weights of templates and phrases.

    Attributes:
        templates: (T,) weights that add up to one.
        phrases: (P,) weights that add up to one within each class.
        weights: (C, D) unit class weights.
    """

    templates: np.ndarray
    phrases: np.ndarray
    weights: np.ndarray


class _Told(NamedTuple):
    """The evidence of the pictures for class weights.

    Attributes:
        weights: (C, D) unit class weights.
        norms: (C, 1) lengths of the summed vectors before normalisation.
        value: The evidence.
        by_logits: (N, C) derivatives of the evidence by the logits.
    """

    weights: np.ndarray
    norms: np.ndarray
    value: float
    by_logits: np.ndarray


class PhraseTable:
    """Unit text vectors of all phrases in some templates, and the pictures on which mixtures of them are fitted.

        table = PhraseTable(vectors, owner, features, labels)
        scale = fit_scale(features @ table.class_weights(a, b).T, labels, model_scale)
        found = table.mix(log_prior_of_templates, log_prior_of_phrases, scale, temper=0.5)

    Args:
        vectors: (T, P, D) unit text vectors.
        owner: (P,) class of each phrase.
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        templates: The T templates, kept as an attribute.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        owner: np.ndarray,
        features: np.ndarray,
        labels: np.ndarray,
        templates: Sequence[Template] = (),
    ) -> None:
        self.vectors, self.owner, self.features, self.labels = vectors, owner, features, labels
        self.templates = tuple(templates)
        self.classes = int(owner.max()) + 1
        self._begins = np.flatnonzero(np.diff(owner, prepend=-1))  # the phrases of a class are contiguous
        self._one_hot = np.eye(self.classes, dtype=np.float32)[labels]  # (N, C); without labels not used

    def part(self, at: np.ndarray) -> PhraseTable:
        """Return the table of some of the phrases.

        Args:
            at: (p,) indices of the phrases; those of a class are contiguous, and every class has one.
        """
        owner = self.owner[at]
        return PhraseTable(self.vectors[:, at], owner, self.features, self.labels, templates=self.templates)

    def class_weights(self, templates: np.ndarray, phrases: np.ndarray) -> np.ndarray:
        """Return the (C, D) unit class weights for weights of templates (T,) and of phrases (P,)."""
        return _unit(self._summed(templates, phrases))[0]

    def mix(
        self,
        template_prior: np.ndarray,
        phrase_prior: np.ndarray,
        scale: float,
        *,
        temper: float,
        refit: float = 0.0,
        evidence: Evidence | None = None,
    ) -> Mixture:
        """Return the weights of templates and phrases with the largest tempered posterior probability.

        The weights maximise

            temper * evidence - KL(template weights | prior) - sum_c KL(weights of class c | prior).

        With few pictures, weights stay near the prior; with many, the best phrases get all the weight. Each step
        multiplies weights by the exponential of the gradient (Kivinen and Warmuth 1997), with a step size that is
        halved until the objective grows. The result is deterministic.

        Args:
            template_prior: (T,) logarithms of the templates' prior probabilities.
            phrase_prior: (P,) logarithms of the phrases' prior probabilities, which sum to 1 within each class.
            scale: The logit scale.
            temper: Factor of the evidence; below 1 because the model's probabilities are too confident.
            refit: The model's own logit scale, to fit the scale again (`fit_scale`) every few steps; 0 to keep `scale`.
            evidence: Computes the evidence of the pictures for logits; by default the log-likelihood of their labels.
        """
        says = self._log_likelihood if evidence is None else evidence

        def objective(a: np.ndarray, b: np.ndarray, scale: float) -> tuple[float, _Told]:
            told = self._told(a, b, scale, says)
            divergence = (a * (np.log(a) - template_prior)).sum() + (b * (np.log(b) - phrase_prior)).sum()
            return float(temper * told.value - divergence), told

        a, b = np.exp(template_prior), np.exp(phrase_prior)
        step, (last, told) = 1.0, objective(a, b, scale)
        for i in range(STEPS):
            to_a, to_b = self._worth(a, b, scale, told)
            up_a = temper * to_a - (np.log(a) - template_prior)
            up_b = temper * to_b - (np.log(b) - phrase_prior)
            for _ in range(8):
                new_a = _softmax(np.log(a) + step * up_a, np.zeros(1, np.intp))
                new_b = _softmax(np.log(b) + step * up_b, self._begins)
                value, new_told = objective(new_a, new_b, scale)
                if value > last:
                    break
                step /= 2
            else:
                break
            gain, last, told, a, b, step = value - last, value, new_told, new_a, new_b, 1.5 * step
            if refit and i % 5 == 4:
                scale = fit_scale(self.features @ told.weights.T, self.labels, refit)
                last, told = objective(a, b, scale)
            if gain < GAIN:
                break
        return Mixture(a, b, told.weights)

    def _summed(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the weighted sums (C, D) of text vectors, without normalising them."""
        said = np.tensordot(a.astype(np.float32), self.vectors, axes=1)  # (P, D)
        return np.asarray(np.add.reduceat(said * b.astype(np.float32)[:, None], self._begins, axis=0))

    def _log_likelihood(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log-likelihood of the labels, and its derivatives by the logits (N, C)."""
        total = _logsumexp(logits)
        value = (logits[np.arange(len(logits)), self.labels] - total).sum(dtype=np.float64)
        return float(value), self._one_hot - np.exp(logits - total[:, None])

    def worth(
        self, a: np.ndarray, b: np.ndarray, scale: float, evidence: Evidence | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives of the evidence by the weights of the templates and of the phrases.

        Args:
            a: (T,) weights of the templates.
            b: (P,) weights of the phrases.
            scale: The logit scale.
            evidence: Computes the evidence of the pictures for logits; by default the log-likelihood of their labels.

        Returns:
            The derivatives (T,) by the templates' weights, and (P,) by the phrases' weights.
        """
        return self._worth(a, b, scale, self._told(a, b, scale, evidence or self._log_likelihood))

    def _told(self, a: np.ndarray, b: np.ndarray, scale: float, says: Evidence) -> _Told:
        """Return the evidence `says` for weights of templates (T,) and of phrases (P,)."""
        weights, norms = _unit(self._summed(a, b))
        return _Told(weights, norms, *says(scale * (self.features @ weights.T)))

    def _worth(self, a: np.ndarray, b: np.ndarray, scale: float, told: _Told) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives (T,) and (P,) of the evidence by the weights of templates and phrases."""
        weights = told.weights
        pull = scale * (told.by_logits.T @ self.features)  # (C, D) by the class weights
        pull = (
            pull - (pull * weights).sum(axis=1, keepdims=True) * weights
        ) / told.norms  # by the sums of vectors before normalisation
        along = np.einsum("tpd,pd->tp", self.vectors, pull[self.owner]).astype(np.float64)  # (T, P)
        return along @ b, a @ along


def _unit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows scaled to unit length, and their original lengths (n, 1)."""
    norms = np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return x / norms, norms


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    return np.asarray(np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top)


def _softmax(logs: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return the softmax of logarithms within groups, each of which begins at one of the positions `begins`."""
    sizes = np.diff(begins, append=len(logs))
    logs = np.maximum(logs - np.repeat(np.maximum.reduceat(logs, begins), sizes), LEAST_LOG)
    weights = np.exp(logs)
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, begins), sizes))
