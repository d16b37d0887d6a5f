"""Phrases of all classes on one set of pictures: what each is worth, and which mixture of them fits the labels.

The class weight of class c is  w_c = normalise(sum_t a_t sum_p b_cp v_tp)  over templates t with weights a and the
class's phrases p with weights b; v are unit text vectors.  One product with the pictures scores every phrase of every
class at once: the derivatives of what the pictures say, by the phrases' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from promptsearch.banks import Template

#: Most steps of `PhraseTable.mix`, and the gain in nats below which it stops.
STEPS, GAIN = 80, 1e-3

#: Bounds of a fitted logit scale, relative to the model's, and how many values between them are tried.
SCALES, TRIED = (0.05, 2.0), 40

#: A fitted scale is log-normal around this share of the model's, with this standard deviation of its logarithm.
SHARE, SPREAD = 0.5, 0.7

#: Returns what the pictures say of logits (N, C): a value that grows with their number, and its derivatives (N, C).
Evidence = Callable[[np.ndarray], tuple[float, np.ndarray]]

#: Smallest logarithm of a weight, so that none becomes exactly zero.
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
    """What the pictures say of class weights (C, D).

    Attributes:
        weights: The unit class weights.
        norms: (C, 1) lengths of the sums that they were made of.
        value: The evidence.
        by_logits: (N, C) its derivatives.
    """

    weights: np.ndarray
    norms: np.ndarray
    value: float
    by_logits: np.ndarray


class PhraseTable:
    """Unit text vectors of all phrases in some templates, beside the pictures that they are to classify.

        table = PhraseTable(vectors, owner, features, labels)
        scale = fit_scale(features @ table.class_weights(a, b).T, labels, model_scale)
        found = table.mix(log_prior_of_templates, log_prior_of_phrases, scale, temper=0.5)

    Args:
        vectors: (T, P, D) unit text vectors.
        owner: (P,) class of each phrase.
        features: (N, D) unit vectors of the pictures.
        labels: (N,) class indices.
        templates: The T templates, for whoever asks.
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
        self._begins = np.flatnonzero(np.diff(owner, prepend=-1))  # phrases of a class are behind one another
        self._one_hot = np.eye(self.classes, dtype=np.float32)[labels]  # (N, C); without labels not used

    def part(self, at: np.ndarray) -> PhraseTable:
        """Return the table of some of the phrases.

        Args:
            at: (p,) their places, those of a class behind one another and of every class one.
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

        They maximise
        temper * evidence - KL(template weights | prior) - sum_c KL(weights of class c | prior):
        phrases are averaged where few pictures cannot tell, and chosen where many can.  Weights are multiplied by the
        exponential of the gradient (Kivinen and Warmuth 1997), with a step that is halved until the objective grows:
        the same numbers always give the same weights.

        Args:
            template_prior: (T,) logarithms of the templates' prior probabilities.
            phrase_prior: (P,) logarithms of the phrases', within each class.
            scale: The logit scale.
            temper: What the evidence is multiplied by; below one where the model's probabilities are too sure.
            refit: The model's own scale, to fit the scale anew (`fit_scale`) every few steps; 0 for none of it.
            evidence: What the pictures say of logits; by default the log-likelihood of their labels.
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
        """(C, D) weighted sums of text vectors, not normalised."""
        said = np.tensordot(a.astype(np.float32), self.vectors, axes=1)  # (P, D)
        return np.asarray(np.add.reduceat(said * b.astype(np.float32)[:, None], self._begins, axis=0))

    def _log_likelihood(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """The log-likelihood of the labels, and its derivatives by the logits (N, C)."""
        total = _logsumexp(logits)
        value = (logits[np.arange(len(logits)), self.labels] - total).sum(dtype=np.float64)
        return float(value), self._one_hot - np.exp(logits - total[:, None])

    def worth(
        self, a: np.ndarray, b: np.ndarray, scale: float, evidence: Evidence | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what more of each template and of each phrase is worth: the derivatives of the evidence.

        Args:
            a: (T,) weights of the templates.
            b: (P,) weights of the phrases.
            scale: The logit scale.
            evidence: What the pictures say of logits; by default the log-likelihood of their labels.

        Returns:
            (T,) and (P,), by the weights.
        """
        return self._worth(a, b, scale, self._told(a, b, scale, evidence or self._log_likelihood))

    def _told(self, a: np.ndarray, b: np.ndarray, scale: float, says: Evidence) -> _Told:
        """What the pictures say of weights of templates (T,) and of phrases (P,)."""
        weights, norms = _unit(self._summed(a, b))
        return _Told(weights, norms, *says(scale * (self.features @ weights.T)))

    def _worth(self, a: np.ndarray, b: np.ndarray, scale: float, told: _Told) -> tuple[np.ndarray, np.ndarray]:
        """The derivatives of what the pictures say, by the weights."""
        weights = told.weights
        pull = scale * (told.by_logits.T @ self.features)  # (C, D) by the class weights
        pull = (pull - (pull * weights).sum(axis=1, keepdims=True) * weights) / told.norms  # and by their summands
        along = np.einsum("tpd,pd->tp", self.vectors, pull[self.owner]).astype(np.float64)  # (T, P)
        return along @ b, a @ along


def _unit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unit length, and the lengths that they had (n, 1)."""
    norms = np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return x / norms, norms


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    return np.asarray(np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top)


def _softmax(logs: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Weights of logarithms, adding up to one within each group that begins at one of these positions."""
    sizes = np.diff(begins, append=len(logs))
    logs = np.maximum(logs - np.repeat(np.maximum.reduceat(logs, begins), sizes), LEAST_LOG)
    weights = np.exp(logs)
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, begins), sizes))
