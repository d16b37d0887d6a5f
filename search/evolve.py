"""Evolutionary search whose offspring are written by a language model, or by random edits from a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.search.objective import Objective
from promptsearch.search.pareto import aims, fronts
from promptsearch.search.proposal_search import Scored, View, Wish, WritingSearcher
from promptsearch.search.proposers.request import MUTATIONS, Request
from promptsearch.search.space import RENAMED, Space

#: Number of best and of worst sets shown in a history-guided request.
BEST, WORST = 6, 2
#: Kinds of written offspring and their relative shares; immigrants are added to these.
WAYS = {"mutation": 5, "crossover": 2, "history": 2}
#: Number of sets drawn in a tournament.
TOURNAMENT = 3


@dataclass(frozen=True)
class Survival:
    """Which sets of a generation survive.

    Args:
        elite: Number of best sets that survive however similar they are.
        crowding: Cosine of two sets' text vectors above which the worse set does not survive.
    """

    elite: int = 2
    crowding: float = 0.999


class EvolveSearch(WritingSearcher):
    """Evolves a population of sets whose offspring a proposer writes; the best that are not too similar survive.

        searcher = EvolveSearch(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    The first `population` trials are the starting points and sets drawn from the bank. After that every batch consists
    of mutations (paraphrase, more specific, shorter, another medium, another condition) of parents chosen by
    tournament, crossovers of two parents, proposals guided by the best and worst sets with their scores (as in OPRO,
    Yang et al. 2023, and EvoPrompt, Guo et al. 2023), and immigrants from the bank. In ensembles, the written template
    replaces one or is added, or one is removed. If the bank has other names for classes, a class may be renamed.
    Parents and offspring compete for survival (mu + lambda).

    Args:
        space: The space of sets.
        objective: What is maximised.
        seed: Seed of all draws.
        batch: Number of offspring in a generation.
        population: Number of survivors.
        survival: Which sets survive; by default `Survival()`.
        immigrants: Share of the offspring that are drawn from the bank.
        pareto: Whether sets are ranked by Pareto front (objective, fluency, brevity) before the objective.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        *,
        seed: int = 0,
        batch: int = 8,
        population: int = 16,
        survival: Survival | None = None,
        immigrants: float = 0.1,
        pareto: bool = False,
    ) -> None:
        if batch < 1:
            raise InputError(f"--offspring {batch}: must be at least 1")
        super().__init__(space, objective, seed=seed, batch=batch)
        if population < 2:
            raise InputError(f"--population {population}: must be at least 2, for two parents")
        survival = survival or Survival()
        elite, crowding = survival.elite, survival.crowding
        if not 1 <= elite <= population:
            raise InputError(f"--elite {elite}: must be from 1 to the population, {population}")
        if not 0 < crowding <= 1:
            raise InputError(f"--crowding {crowding}: must be a cosine above 0 and at most 1 (allows near-duplicates)")
        if not 0 <= immigrants <= 1:
            raise InputError(f"--immigrants {immigrants}: must be a share of the offspring, from 0 to 1")
        self.pareto, self.immigrants = pareto, immigrants
        self.population, self.elite, self.crowding = population, elite, crowding
        self._vectors: dict[PromptSet, np.ndarray] = {}

    def _look(self, news: Sequence[Scored]) -> View:
        everyone = dict([*self._now.best, *self._now.worst, *news])
        ranked = self.ranked(list(everyone.items()))
        known = {s for s, _ in (*self._now.best, *news)}
        best = self._survivors(self._in_fronts([r for r in ranked if r[0] in known]))
        return View(self.trials, tuple(best), tuple(ranked[-WORST:]))

    def _in_fronts(self, ranked: list[Scored]) -> list[Scored]:
        """With `pareto`, sort by front first, and by the objective within each front."""
        if not self.pareto:
            return ranked
        number = fronts([aims(s, v, self.objective) for s, v in ranked])
        return [ranked[i] for i in sorted(range(len(ranked)), key=number.__getitem__)]

    def _survivors(self, ranked: Sequence[Scored]) -> list[Scored]:
        """Return the best sets that are not too similar, best first."""
        if self.tools.vectors is None or self.crowding >= 1:
            return list(ranked[: self.population])
        fresh = [s for s, _ in ranked if s not in self._vectors]
        if fresh:
            self._vectors.update(zip(fresh, self.tools.vectors(fresh), strict=True))
        chosen: list[Scored] = []
        for one in ranked:
            if len(chosen) == self.population:
                break
            v = self._vectors[one[0]]
            alike = any(float(v @ self._vectors[s]) > self.crowding for s, _ in chosen)
            if len(chosen) < self.elite or not alike:
                chosen.append(one)
        self._vectors = {s: self._vectors[s] for s, _ in chosen}
        return chosen

    def _wishes(self, view: View, rng: np.random.Generator, n: int) -> list[Wish]:
        first = self.population
        if self.space.count is not None:  # a small bank has fewer sets than a population, and the view is one batch old
            first = min(first, self.space.count - self.batch)
        if view.told < first or not view.best:
            return []
        ways = [*WAYS, "immigrant"]
        written = np.array(list(WAYS.values())) / sum(WAYS.values())
        shares = [*(1 - self.immigrants) * written, self.immigrants]
        return [self._wish(ways[int(rng.choice(len(ways), p=shares))], view, rng) for _ in range(n)]

    def _wish(self, way: str, view: View, rng: np.random.Generator) -> Wish:
        parent = self._parent(view, rng)
        if self.names is not None and rng.random() < RENAMED:
            return Wish(ready=_one_of(self.names.around(parent), rng))
        if way == "immigrant" or (way == "crossover" and len(view.best) < 2):
            return Wish(ready=self.space.draw(rng))
        if parent.size > 1 and way == "mutation" and rng.random() < 0.25:
            return Wish(ready=parent.remove(_one_of(parent.templates, rng)))
        if way == "crossover":
            other = self._parent(view, rng)
            while other == parent:
                other = view.best[int(rng.integers(len(view.best)))][0]
            if max(parent.size, other.size) > 1 and rng.random() < 0.5:
                return Wish(ready=self._joined(parent, other, rng))
            request = Request("crossover", (_one_of(parent.templates, rng), _one_of(other.templates, rng)))
        elif way == "history":
            request = self._history(view)
        else:
            request = Request(MUTATIONS[int(rng.integers(len(MUTATIONS)))], (_one_of(parent.templates, rng),))
        if self.space.ensemble == 1:
            return Wish(request)
        old = request.parents[0] if request.parents else _one_of(parent.templates, rng)
        if parent.size < self.space.ensemble and rng.random() < 0.5:
            return Wish(request, around=parent)
        return Wish(request, around=parent, old=Template(old))

    def _parent(self, view: View, rng: np.random.Generator) -> PromptSet:
        """Choose a parent by tournament; the population is sorted, so the smallest index wins."""
        drawn = rng.integers(len(view.best), size=TOURNAMENT)
        return view.best[int(drawn.min())][0]

    def _joined(self, one: PromptSet, other: PromptSet, rng: np.random.Generator) -> PromptSet:
        every = list(dict.fromkeys([*one.templates, *other.templates]))
        size = int(rng.integers(1, min(self.space.ensemble, len(every)) + 1))
        chosen = [every[i] for i in sorted(rng.permutation(len(every))[:size])]
        return PromptSet.of(*chosen).saying_as(one)

    def _history(self, view: View) -> Request:
        """Request a template better than those shown: one from each of the worst and the best sets, best last."""
        best = list(view.best[:BEST])
        worst = [r for r in view.worst if r not in best]
        every = [*reversed(worst), *reversed(best)]
        numbers = whole_numbers([self.objective(v)[0] for _, v in every])
        shown: dict[str, int] = {}
        for (s, _), n in zip(every, numbers, strict=True):
            template = str(s.templates[0])
            shown.pop(template, None)  # a template that stands for several sets is shown once, for the best of them
            shown[template] = n
        return Request("history", scores=tuple((n, t) for t, n in shown.items()))


def whole_numbers(values: Sequence[float]) -> list[int]:
    """Convert an objective's values to whole numbers from 0 to 100 that a language model can read.

    Shares become percentages and log-likelihoods probabilities; other values are scaled so that the worst is 0 and the
    best 99.

    Args:
        values: Values of the objective; larger is better.
    """
    if max(values) <= 0:
        return [round(100 * float(np.exp(v))) for v in values]
    if min(values) >= 0 and max(values) <= 1:
        return [round(100 * v) for v in values]
    low, high = min(values), max(values)
    return [round(99 * (v - low) / max(high - low, 1e-12)) for v in values]


def _one_of(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]
