"""What a gradient baseline trains with, and what it hands back: class weights, and the texts that stand for them."""

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
    """A model's text tower and its vocabulary, made once for all that is learnt with it.

    tools = TextTools(encoder)
    tools.words.nearest(vectors)
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @functools.cached_property
    def tower(self) -> TextTower:
        from promptsearch.search.gradient import TextTower

        return TextTower(self.encoder.model, self.encoder.tokenizer)

    @functools.cached_property
    def words(self) -> Words:
        from promptsearch.search.gradient import Words

        self.encoder.progress(0, 0, "reading the vocabulary")
        return Words(self.tower)


@dataclass
class Setting:
    """What a method trains with."""

    problem: Problem
    task: Task
    evaluator: Evaluator
    tools: TextTools
    progress: Progress
    checkpoint: Checkpoint | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.task.class_names

    @property
    def support(self) -> Split:
        return self.task.support

    @property
    def logit_scale(self) -> float:
        return self.problem.encoder.logit_scale

    def bank_weights(self, templates: Sequence[str]) -> np.ndarray:
        """(T, C, D) unit class features of each template alone."""
        sets = [PromptSet.of(t) for t in templates]
        self.evaluator.score(sets)  # encodes them all in one call
        return np.stack([self.evaluator.class_weights(s) for s in sets])

    def pictures(self, split: str, indices: np.ndarray) -> Iterator[Image]:
        """The pictures themselves.

        Raises:
            InputError: there is a feature pack only.
        """
        return (picture.open() for picture in self.problem.source.stored(split, indices.tolist()))


@dataclass
class Row:
    """Class weights with the text that stands for them.

    Attributes:
        shares: of the texts in a weighted ensemble.
    """

    name: str
    weights: np.ndarray
    texts: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    readable: bool = True
    shares: list[float] | None = None


@dataclass
class Trained:
    """What a method hands back.

    Attributes:
        winner: what it learnt, as class weights.
        others: what else is to be scored, the decoded texts above all.
        support, test: picture features instead of the model's own, where pictures were prompted.
    """

    learned: Learned
    winner: Row
    others: list[Row] = field(default_factory=list)
    baselines: list[tuple[str, PromptSet]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    support: np.ndarray | None = None
    test: Callable[[np.ndarray], np.ndarray] | None = None


def decoded_row(setting: Setting, name: str, texts: Sequence[str], class_names: Sequence[str] | None = None) -> Row:
    """Templates (one, or one per class) that were decoded from vectors, scored as the texts they are."""
    names = list(class_names or setting.class_names)
    weights = setting.problem.encoder.encode_texts(filled(texts, names))
    return Row(name, weights, list(texts), None if class_names is None else names, readable=False)


def set_row(setting: Setting, name: str, prompt_set: PromptSet) -> Row:
    """A prompt set as it is."""
    names = None if prompt_set.class_names is None else list(prompt_set.class_names)
    shares = None if prompt_set.weights is None else list(prompt_set.weights)
    texts = [str(t) for t in prompt_set.templates]
    return Row(name, setting.evaluator.class_weights(prompt_set), texts, names, shares=shares)


def filled(texts: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """One text per class, from a template for all of them, or from one for each."""
    return [texts[c % len(texts)].replace("{}", n) for c, n in enumerate(class_names)]


def whole_bank(templates: Sequence[Any]) -> list[tuple[str, PromptSet]]:
    """The baseline of a method that has a bank."""
    return [("whole bank averaged", PromptSet.of(*templates))]
