"""A batch of PromptSets to a batch of Scores on one Task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators.encoder import TooLongError
from promptsearch.evaluators.score import Score
from promptsearch.evaluators.scoring import TemplateTable
from promptsearch.evaluators.task import Split, Task

#: Gives unit vectors (n, D) for n texts.
TextVectors = Callable[[Sequence[str]], np.ndarray]

_Row = tuple[Template, tuple[str, ...]]


class Evaluator:
    """Scores PromptSets by few-shot accuracy and cross-entropy, every text encoded once.

    evaluator = Evaluator(task, encoder.encode_texts, encoder.logit_scale)
    for score in evaluator.score([PromptSet.of("a photo of a {}."), PromptSet.of("a sketch of a {}.")]):
        print(score.accuracy, score.xent)
    """

    def __init__(self, task: Task, text_vectors: TextVectors, logit_scale: float, memory: int | None = None) -> None:
        self.task = task
        self.logit_scale = logit_scale
        self._text_vectors = text_vectors
        self._rows: dict[_Row, int] = {}
        self._table = TemplateTable(task.support.features, task.support.labels, logit_scale, memory)
        self.fluency: Callable[[Sequence[PromptSet]], list[float]] | None = None
        self.evaluations = 0

    def score(self, sets: Sequence[PromptSet]) -> list[Score]:
        """Scores on the support set, in the order of `sets`."""
        self.evaluations += len(sets)
        rows = self._index(sets)
        scores: list[Score | None] = [None] * len(sets)
        by_size: dict[tuple[int, bool], list[int]] = {}
        for i, s in enumerate(sets):
            by_size.setdefault((s.size, s.weights is not None), []).append(i)
        for (_, weighted), members in by_size.items():
            index = np.array([rows[i] for i in members], dtype=np.intp)
            weights = np.array([sets[i].weights for i in members], np.float32) if weighted else None
            accuracy, xent = self._table.score(index, weights)
            for i, a, x in zip(members, accuracy.tolist(), xent.tolist(), strict=True):
                scores[i] = Score(a, x)
        if self.fluency is None:
            return scores  # type: ignore[return-value]
        rated = zip(scores, self.fluency(sets), strict=True)
        return [dataclasses.replace(v, fluency=f) for v, f in rated]  # type: ignore[type-var, misc]

    def score_on(self, sets: Sequence[PromptSet], split: Split) -> list[Score]:
        """Scores on another split (validation; the opened test split), computed afresh."""
        self._index(sets)
        scores = []
        for s in sets:
            logits = self.logit_scale * (split.features @ self.class_weights(s).T)  # (N, C)
            top = logits.max(axis=1)
            true = logits[np.arange(len(logits)), split.labels]
            xent = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - true
            scores.append(Score(float((logits.argmax(1) == split.labels).mean()), float(xent.mean(dtype=np.float64))))
        return scores

    def predictions(self, prompt_set: PromptSet, split: Split) -> np.ndarray:
        """(N,) class index that the ensemble gives each picture of a split."""
        return (split.features @ self.class_weights(prompt_set).T).argmax(axis=1)

    def hits(self, prompt_set: PromptSet, split: Split) -> np.ndarray:
        """(N,) bool: which pictures of a split the ensemble classifies rightly."""
        return self.predictions(prompt_set, split) == split.labels

    def class_weights(self, prompt_set: PromptSet) -> np.ndarray:
        """(C, D) unit class weights: mean of the templates' unit text vectors, normalised (open_clip's rule)."""
        rows = self._index([prompt_set])[0]
        w = np.ones(len(rows)) if prompt_set.weights is None else np.asarray(prompt_set.weights)
        mean = np.tensordot(w.astype(np.float64), self._table.vectors(rows).astype(np.float64), axes=1)  # (C, D)
        return (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def prompts(self, prompt_set: PromptSet) -> list[list[str]]:
        """The very texts that are encoded: one list of class prompts per template."""
        names = prompt_set.class_names or self.task.class_names
        return [[t.fill(n) for n in names] for t in prompt_set.templates]

    def _encode(self, rows: Iterable[_Row], texts: Sequence[str]) -> np.ndarray:
        try:
            return self._text_vectors(texts)
        except TooLongError as e:
            template, name = next((t, n) for t, names in rows for n in names if t.fill(n) == e.text)
            raise InputError(
                f"template {str(template)!r} with class name {name!r} has {e.tokens} tokens and the model reads "
                f"{e.limit}; shorten the template"
            ) from e

    def _index(self, sets: Sequence[PromptSet]) -> list[list[int]]:
        """Rows of the table for every set; templates not met before are encoded first, all in one call."""
        fresh: dict[_Row, None] = {}
        keys = [[(t, s.class_names or self.task.class_names) for t in s.templates] for s in sets]
        for row in (row for rows in keys for row in rows):
            if row not in self._rows:
                fresh[row] = None
        if fresh:
            texts = [t.fill(n) for t, names in fresh for n in names]
            vectors = self._encode(fresh, texts).reshape(len(fresh), len(self.task.class_names), -1)  # (T, C, D)
            self._table.add(vectors)
            for row in fresh:
                self._rows[row] = len(self._rows)
        return [[self._rows[row] for row in rows] for rows in keys]
