"""Lets a sampler learn from the templates of ensembles regardless of their position."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.search.encoding import SlotEncoding
from promptsearch.search.pareto import front
from promptsearch.search.space import Space

if TYPE_CHECKING:
    import optuna


class Members:
    """The templates of the scored ensembles, each with the value of the best ensemble that contains it.

        members = Members(space)
        members.learn(PromptSet.of("a {}.", "a dark {}."), rank=(-0.8,), values=[0.8])
        study = members.study(sampler)  # a trial for each of the two templates

    The order of an ensemble has no meaning, but with parameters for each position a sampler would not know at the
    second position what it learnt about a word at the first. Therefore the sampler sees a study of single templates,
    and a template that it samples is added to a good ensemble or replaces one of its templates.

    Args:
        space: The space of sets.
        aims: Number of objective values per trial; if there are several, parents are drawn from the Pareto front.
    """

    def __init__(self, space: Space, aims: int = 1) -> None:
        self.encoding = SlotEncoding(space, 1)
        self._space, self._aims = space, aims
        self._best: dict[Template, tuple[tuple, list[float]]] = {}
        self._ranked: list[tuple[tuple, PromptSet]] = []
        self._front: list[tuple[PromptSet, list[float]]] = []

    def learn(self, prompt_set: PromptSet, rank: tuple, values: list[float]) -> None:
        """Add a scored set.

        Args:
            prompt_set: The set.
            rank: Sort key; smaller is better.
            values: The values of its trial.
        """
        insort(self._ranked, (rank, prompt_set), key=lambda r: r[0])
        if self._aims > 1:
            every = [*self._front, (prompt_set, values)]
            self._front = [every[i] for i in front([v for _, v in every])]
        for template in prompt_set.templates:
            if template not in self._best or rank < self._best[template][0]:
                self._best[template] = (rank, values)

    def study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """Return a study in memory with one trial for each template of the scored sets."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made = optuna.create_study(directions=["maximize"] * self._aims, sampler=sampler)
        for template, (_, values) in self._best.items():
            params: dict[str, Any] = self.encoding.params(PromptSet.of(template)) or {}
            distributions = self.encoding.distributions(params)
            made.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))
        return made

    def parent(self, good: int, rng: np.random.Generator) -> PromptSet | None:
        """Draw one of the `good` best sets, or of the Pareto front; None if no set was scored yet."""
        best = [s for s, _ in self._front] if self._aims > 1 else [s for _, s in self._ranked[:good]]
        return best[int(rng.integers(len(best)))] if best else None

    def changed(self, parent: PromptSet, rng: np.random.Generator, sample: Callable[[], Template]) -> PromptSet:
        """Change a set by adding a sampled template, replacing one by a sampled template, or dropping one.

        Args:
            parent: The set to change.
            rng: Chooses the kind of change and the template to replace or drop.
            sample: Samples a template.
        """
        ways = ["replace", *(["add"] if parent.size < self._space.ensemble else [])]
        ways += ["drop"] if parent.size > 1 else []
        way = ways[int(rng.integers(len(ways)))]
        if way == "add":
            return parent.add(sample())
        old = parent.templates[int(rng.integers(parent.size))]
        return parent.remove(old) if way == "drop" else parent.replace(old, sample())
