"""The input (Setting) and output (Trained) of the gradient baselines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import Encoder, Evaluator, Problem, Progress, Split, Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.search.gradient import Checkpoint, Learned, TextTower, Words


class TextTools:
    """A model's text tower and vocabulary, which are built on first use.

        tools = TextTools(encoder)
        tools.words.nearest(vectors)

    Args:
        encoder: The encoder of the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @functools.cached_property
    def tower(self) -> TextTower:
        """The text tower, which encodes prompts with learnt vectors."""
        from promptsearch.search.gradient import TextTower

        return TextTower(self.encoder.model, self.encoder.tokenizer)

    @functools.cached_property
    def words(self) -> Words:
        """The words that learnt vectors are decoded to."""
        from promptsearch.search.gradient import Words

        self.encoder.progress(0, 0, "reading the vocabulary")
        return Words(self.tower)


@dataclass
class Setting:
    """The input of a gradient baseline.

    Attributes:
        problem: Model and data set.
        task: The draw: support, validation and test split.
        evaluator: Scores prompt sets on the task.
        tools: Text tower and vocabulary of the model.
        progress: Called during training.
        checkpoint: Where the training's state is saved, if anywhere.
        start: Seed of the initial vectors, the batches and all else that a training draws; None for the draw's.
    """

    problem: Problem
    task: Task
    evaluator: Evaluator
    tools: TextTools
    progress: Progress
    checkpoint: Checkpoint | None = None
    start: int | None = None

    @property
    def training_seed(self) -> int:
        """Seed of what a training draws: initial vectors, batches, augmentation."""
        return self.task.seed if self.start is None else self.start

    @property
    def class_names(self) -> tuple[str, ...]:
        """The task's class names."""
        return self.task.class_names

    @property
    def support(self) -> Split:
        """The support set, the few labelled pictures to train on."""
        return self.task.support

    @property
    def logit_scale(self) -> float:
        """The model's logit scale (the factor, not its logarithm)."""
        return self.problem.encoder.logit_scale

    def bank_weights(self, templates: Sequence[str]) -> np.ndarray:
        """Return the unit class features (T, C, D) of T templates."""
        sets = [PromptSet.of(t) for t in templates]
        self.evaluator.score(sets)  # encodes all templates in one call
        return np.stack([self.evaluator.class_weights(s) for s in sets])

    def pictures(self, split: str, indices: np.ndarray) -> Iterator[Image]:
        """Yield the pictures at some indices of a split.

        Raises:
            InputError: The data set is a feature pack without pictures.
        """
        return (picture.open() for picture in self.problem.source.stored(split, indices.tolist()))


@dataclass
class Row:
    """A result of a method: class weights with the prompts they come from.

    Attributes:
        name: Name of the row in tables.
        weights: (C, D) class weights of unit length.
        texts: The templates; for learnt vectors, the nearest words.
        class_names: Class names, if they differ from the task's.
        readable: Whether the texts are the prompts themselves.
        shares: Weights of the texts in a weighted ensemble.
    """

    name: str
    weights: np.ndarray
    texts: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    readable: bool = True
    shares: list[float] | None = None


@dataclass
class Trained:
    """The result of a gradient baseline's training.

    Attributes:
        learned: Class weights and learnt tensors.
        winner: What was learnt.
        others: Further rows to score, such as decoded texts.
        baselines: Prompt sets to compare with, by name.
        notes: Sentences shown with the result.
        support: (N, D) features of the support set under a visual prompt, else None.
        test: Returns the features of test pictures under a visual prompt by their indices, else None.
    """

    learned: Learned
    winner: Row
    others: list[Row] = field(default_factory=list)
    baselines: list[tuple[str, PromptSet]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    support: np.ndarray | None = None
    test: Callable[[np.ndarray], np.ndarray] | None = None


def decoded_row(setting: Setting, name: str, texts: Sequence[str], class_names: Sequence[str] | None = None) -> Row:
    """Return the row of decoded text, with the class weights of the text itself.

    Args:
        setting: The input of the training.
        name: Name of the row.
        texts: One template, or one per class.
        class_names: Decoded class names; by default the task's.
    """
    names = list(class_names or setting.class_names)
    weights = setting.problem.encoder.encode_texts(filled(texts, names))
    return Row(name, weights, list(texts), None if class_names is None else names, readable=False)


def set_row(setting: Setting, name: str, prompt_set: PromptSet) -> Row:
    """Return the row of a prompt set."""
    said = prompt_set.phrases
    names = None if said is None else [" / ".join(phrase for phrase, _ in of_class) for of_class in said]
    shares = None if prompt_set.weights is None else list(prompt_set.weights)
    texts = [str(t) for t in prompt_set.templates]
    return Row(name, setting.evaluator.class_weights(prompt_set), texts, names, shares=shares)


def filled(texts: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Put class names into one template for all classes, or into one template per class."""
    return [texts[c % len(texts)].replace("{}", n) for c, n in enumerate(class_names)]


def whole_bank(templates: Sequence[Any]) -> list[tuple[str, PromptSet]]:
    """Return the baseline of methods with a bank: the average of all its templates."""
    return [("whole bank averaged", PromptSet.of(*templates))]
