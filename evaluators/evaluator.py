"""The evaluator, which scores PromptSets on a task."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from promptsearch.banks import BASELINE, PromptSet, Template
from promptsearch.banks.bank import fill
from promptsearch.banks.prompt_set import Phrases
from promptsearch.errors import InputError, PromptSearchError, PromptSearchWarning
from promptsearch.evaluators.encoding.encoder import TooLongError
from promptsearch.evaluators.scoring.evidence import evidence_of
from promptsearch.evaluators.scoring.metrics import NEED_LABELS, ClassReport, measure, predict
from promptsearch.evaluators.scoring.phrase_table import Evidence, PhraseTable, fit_scale
from promptsearch.evaluators.scoring.template_table import TemplateTable
from promptsearch.evaluators.task import Split, Task
from promptsearch.score import Score

#: Returns unit vectors (n, D) of n texts.
TextVectors = Callable[[Sequence[str]], np.ndarray]

#: Returns the fluency of each prompt set: mean log-likelihood per token, in nats.
RatesFluency = Callable[[Sequence[PromptSet]], list[float]]

#: Largest number of templates whose consensus the metric "agreement" uses.
CONSENSUS = 256

#: Number of texts encoded in a call: enough to share prefixes, and few enough for memory (200 MB with RN50).
TEXTS = 50_000

#: A template and the phrases of the classes; None for the task's own class names.
_Row = tuple[Template, "tuple[Phrases, ...] | None"]


class Evaluator:
    """Scores PromptSets by few-shot accuracy and cross-entropy, every text encoded once.

    evaluator = Evaluator(task, encoder.encode_texts, encoder.logit_scale)
    for score in evaluator.score([PromptSet.of("a photo of a {}."), PromptSet.of("a sketch of a {}.")]):
        print(score.accuracy, score.xent)
    """

    def __init__(
        self,
        task: Task,
        text_vectors: TextVectors,
        logit_scale: float,
        memory: int | None = None,
        fluency: RatesFluency | None = None,
    ) -> None:
        self.task = task
        self.logit_scale = self.model_scale = logit_scale
        self._fitted = False
        self._text_vectors = text_vectors
        self._rows: dict[tuple[Phrases, ...] | None, dict[Template, int]] = {}
        self._table = TemplateTable(task.support.features, task.support.labels, logit_scale, memory)
        self.fluency = fluency
        self._figures: tuple[str, ...] = ()
        self._consensus: np.ndarray | None = None

    def require(self, figures: Iterable[str], templates: Sequence[Template] = ()) -> None:
        """Let `score` compute further metrics.

        Args:
            figures: Names of metrics in `STATISTICS`.
            templates: The templates whose consensus "agreement" uses, at most `CONSENSUS` evenly spaced ones.

        Raises:
            InputError: A metric needs labels and there are none, or "agreement" has no templates.
        """
        for figure in figures:
            if not self.task.labelled and figure in NEED_LABELS:
                raise InputError(f"{figure!r} needs labelled pictures and this task has none; draw some shots")
            if figure not in self._figures:
                self._figures += (figure,)
        if "agreement" in self._figures and self._consensus is None:
            if not templates:
                raise InputError("objective 'agreement' needs the templates that agree; give a bank of them")
            at = np.unique(np.linspace(0, len(templates) - 1, min(CONSENSUS, len(templates))).astype(int))
            rows = self._index([PromptSet.of(templates[i]) for i in at])
            self._consensus = self._table.consensus([row for (row,) in rows])

    def evidence(self, objective: str) -> Evidence | None:
        """Return the function by which `PhraseTable.mix` rates logits on the support set.

        Args:
            objective: The field of the Score that the search maximises. If the pictures have no labels, call `require`
                with it first.

        Returns:
            None if the pictures have labels, for which `mix` uses the labels' log-likelihood.
        """
        if self.task.labelled:
            return None
        return evidence_of(objective, None if self._consensus is None else self._consensus_of_pictures())

    def fit_scale(self) -> None:
        """Set `logit_scale` to the value with which the hand-written prompt fits the few labels best.

        The model's own scale, `model_scale`, makes probabilities too confident for a model that is often wrong. Without
        labels it is kept.
        """
        if not self.task.labelled:
            return
        weights = self.class_weights(PromptSet.of(BASELINE))
        support = self.task.support
        self.logit_scale = fit_scale(support.features @ weights.T, support.labels, self.model_scale)
        self._table.rescale(self.logit_scale)
        self._fitted = True

    def phrase_table(self, templates: Sequence[Template], phrases: Sequence[Sequence[str]]) -> PhraseTable:
        """Return a table of templates filled with every phrase of every class, on the pictures of the support set.

        Args:
            templates: The templates. The first one must fit with every phrase; any other that makes a text too long for
                the model is left out.
            phrases: The phrases of each class.

        Returns:
            The table; its attribute `templates` lists the templates that were not left out.

        Raises:
            InputError: A phrase is too long for the model; the message names it.
        """
        flat = [phrase for of_class in phrases for phrase in of_class]
        vectors: dict[Template, np.ndarray] = {}
        for t in templates:
            try:
                vectors[t] = self._text_vectors([fill(t, phrase) for phrase in flat])
            except TooLongError as e:
                if vectors:
                    continue
                phrase = next(phrase for phrase in flat if fill(t, phrase) == e.text)
                raise InputError(
                    f"phrase {phrase!r} as {e.text!r} has {e.tokens} tokens and the model reads {e.limit}; "
                    "shorten the phrase"
                ) from e
        owner = np.repeat(np.arange(len(phrases)), [len(of_class) for of_class in phrases])
        support = self.task.support
        return PhraseTable(
            np.stack(list(vectors.values())), owner, support.features, support.labels, templates=tuple(vectors)
        )

    def score(self, sets: Sequence[PromptSet]) -> list[Score]:
        """Score sets on the support set.

        Args:
            sets: The sets.

        Returns:
            One score per set.
        """
        rows = self._index(sets)
        scores: list[Score | None] = [None] * len(sets)
        by_size: dict[tuple[int, bool], list[int]] = {}
        for i, s in enumerate(sets):
            by_size.setdefault((len(s.templates), s.weights is not None), []).append(i)
        for (_, weighted), members in by_size.items():
            index = np.array([rows[i] for i in members], dtype=np.intp)
            weights = np.array([sets[i].weights for i in members], np.float32) if weighted else None
            if not self._figures:
                accuracy, xent = self._table.score(index, weights)
                for i, a, x in zip(members, accuracy.tolist(), xent.tolist(), strict=True):
                    scores[i] = Score.of(a, x)
                continue
            figures = self._table.figures(index, weights, self._figures, self._consensus)
            if self.task.labelled:
                figures["accuracy"], figures["xent"] = self._table.score(index, weights)
            for row, i in enumerate(members):
                scores[i] = Score(**{name: float(v[row]) for name, v in figures.items()})
        if self.fluency is None:
            return scores  # type: ignore[return-value]
        rated = zip(scores, self.fluency(sets), strict=True)
        return [dataclasses.replace(v, fluency=f) for v, f in rated]  # type: ignore[type-var, misc]

    @property
    def processes(self) -> int:
        """Number of processes that can score parts of the support set at a time: cores, as far as memory allows."""
        return self._table.processes

    def part(self, at: np.ndarray, threads: int | None = None) -> Evaluator:
        """Return an evaluator on a part of the support set that reuses all encoded texts.

        Args:
            at: (n,) positions in the support set; they may repeat.
            threads: Number of threads that score sets; by default one per core.
        """
        other = copy.copy(self)
        other.task = dataclasses.replace(self.task, support=self.task.support.part(at), _test=_no_test)
        other._table = self._table.part(at, threads)
        other._rows = {phrases: dict(rows) for phrases, rows in self._rows.items()}
        if self._consensus is not None:
            other._consensus = self._consensus_of_pictures()[at][other._table.order]
        if self._fitted:
            other.fit_scale()
        return other

    def _consensus_of_pictures(self) -> np.ndarray:
        """Return the consensus (N,) in the order of the support set, which is not that of the table."""
        assert self._consensus is not None  # callers have checked that there is one
        of_picture = np.empty_like(self._consensus)
        of_picture[self._table.order] = self._consensus
        return of_picture

    def predictions(self, prompt_set: PromptSet, split: Split) -> np.ndarray:
        """Return the predicted class index (N,) of each picture of a split; the true class never wins a tie."""
        return predict(split.features @ self.class_weights(prompt_set).T, split.labels)

    def report(self, prompt_set: PromptSet, split: Split) -> ClassReport:
        """Return the metrics by class and of the probabilities on a split, at `logit_scale`."""
        return measure(split.features @ self.class_weights(prompt_set).T, split.labels, self.logit_scale)

    def hits(self, prompt_set: PromptSet, split: Split) -> np.ndarray:
        """Return whether each picture of a split is classified correctly, (N,) bool."""
        return self.predictions(prompt_set, split) == split.labels

    def losses(self, prompt_set: PromptSet, split: Split) -> np.ndarray:
        """Return the cross-entropy (N,) of each picture of a split, in nats at `logit_scale`."""
        logits = self.logit_scale * (split.features @ self.class_weights(prompt_set).T)  # (N, C)
        top = logits.max(axis=1)
        true = logits[np.arange(len(logits)), split.labels]
        return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - true

    def class_weights(self, prompt_set: PromptSet) -> np.ndarray:
        """Return the unit class weights (C, D): the normalised mean of the templates' unit text vectors."""
        rows = self._index([prompt_set])[0]
        w = np.ones(len(rows)) if prompt_set.weights is None else np.asarray(prompt_set.weights)
        mean = np.tensordot(w.astype(np.float64), self._table.vectors(rows).astype(np.float64), axes=1)  # (C, D)
        return (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def _encode(self, rows: Iterable[_Row], texts: Sequence[str]) -> np.ndarray:
        try:
            return self._text_vectors(texts)
        except TooLongError as e:
            own = self.task.class_names
            template, phrase = next(
                (t, phrase)
                for t, phrases in rows
                for of_class, said in zip(
                    _set_of(t, phrases).texts(t, own), _set_of(t, phrases).phrases_of(own), strict=True
                )
                for text, (phrase, _) in zip(of_class, said, strict=True)
                if text == e.text
            )
            what = "class name" if all(p is None or all(len(c) == 1 for c in p) for _, p in rows) else "phrase"
            longer = "template" if len(str(template).encode()) - 2 >= len(phrase.encode()) else what
            raise InputError(
                f"template {str(template)!r} with {what} {phrase!r} has {e.tokens} tokens and the model reads "
                f"{e.limit}; shorten the {longer if what == 'class name' else 'phrase or the template'}"
            ) from e

    def _class_vectors(self, rows: Sequence[_Row]) -> np.ndarray:
        """Return for each row and class the weighted sum of the phrases' unit text vectors, (T, C, D)."""
        classes = len(self.task.class_names)
        if odd := [len(phrases) for _, phrases in rows if phrases is not None and len(phrases) != classes]:
            raise InputError(f"a prompt set has phrases for {odd[0]} classes, and the task has {classes}; name these")
        said = [_set_of(t, phrases) for t, phrases in rows]
        by_class = [of_class for s in said for of_class in s.texts(s.templates[0], self.task.class_names)]
        texts = [text for of_class in by_class for text in of_class]
        vectors = self._encode(rows, texts)  # one row per text
        if len(texts) == len(by_class):
            return vectors.reshape(len(rows), classes, -1)
        weights = [w for s in said for of_class in s.phrases_of(self.task.class_names) for _, w in of_class]
        begins = np.cumsum([0, *map(len, by_class)])[:-1]
        summed = np.add.reduceat(vectors * np.array(weights, vectors.dtype)[:, None], begins, axis=0)
        return summed.reshape(len(rows), classes, -1)

    def _index(self, sets: Sequence[PromptSet]) -> list[list[int]]:
        """Return the rows of the table for every set, after encoding new templates, `TEXTS` texts in a call."""
        with contextlib.suppress(KeyError):  # a fast path, because nearly always all templates are known
            return self._rows_of(sets)
        fresh = dict.fromkeys(
            (t, s.phrases) for s in sets for t in s.templates if t not in self._rows.get(s.phrases, ())
        )
        step, new = max(1, TEXTS // len(self.task.class_names)), list(fresh)
        for some in (new[at : at + step] for at in range(0, len(new), step)):
            vectors = self._class_vectors(some)
            if not self._rows and some[0][1] is None:
                _warn_of_same(vectors[0], some[0][0], self.task.class_names)
            first = self._table.size
            self._table.add(vectors)
            for row, (template, phrases) in enumerate(some, first):
                self._rows.setdefault(phrases, {})[template] = row
        return self._rows_of(sets)

    def _rows_of(self, sets: Sequence[PromptSet]) -> list[list[int]]:
        """Return the rows of the table for every set.

        Raises:
            KeyError: A template is not in the table.
        """
        rows = self._rows
        return [list(map(rows[s.phrases].__getitem__, s.templates)) for s in sets]


def _set_of(template: Template, phrases: tuple[Phrases, ...] | None) -> PromptSet:
    return PromptSet._make((template,), None, phrases)


class ClassNameWarning(PromptSearchWarning):
    """A model has the same text vector for two classes, so that no picture of either can be a hit."""


def _warn_of_same(vectors: np.ndarray, template: Template, names: Sequence[str]) -> None:
    """Warn of classes whose prompts have the same vector, for example because the tokenizer knows neither name.

    Args:
        vectors: (C, D) text vectors of the classes in `template`.
        template: The template that the class names were filled into.
        names: The C class names.
    """
    first: dict[bytes, int] = {}
    for c, vector in enumerate(vectors):
        at = first.setdefault(vector.tobytes(), c)
        if at != c:
            warnings.warn(
                f"the model does not tell classes {names[at]!r} and {names[c]!r} apart: {template.fill(names[at])!r} "
                f"and {template.fill(names[c])!r} have the same vector, so no picture of either can be classified "
                "correctly; rename one class",
                ClassNameWarning,
                stacklevel=2,
            )
            return


def _no_test() -> Split:
    raise PromptSearchError("a part of a support set has no test split; open the test split of the whole task")
