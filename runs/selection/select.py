"""From what a search found to the prompt set that is kept: luck taken out as far as the support set allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Score
from promptsearch.runs.selection.rename_classes import rename
from promptsearch.runs.selection.rerun import WHOLE, Found, Repeat
from promptsearch.runs.selection.resampling import Part, bootstraps, folds
from promptsearch.runs.selection.weights import learn_weights
from promptsearch.search import Names, Objective, get_objective
from promptsearch.search.objective import Plugged

#: The prior share of the hand-written prompt; the templates that are weighed have the rest in equal parts.
BASELINE_SHARE = 0.2
#: Most templates of a weighted ensemble, and the least share that one of them may have.
MOST, LEAST = 12, 0.01
#: Searches of `bagged` and `bootstrap`; folds and repeats of `cv`.
BAGS, FOLDS, REPEATS = 20, 5, 2
#: Sets of one size among which the most fluent may be taken.
EQUALS = 32
#: Templates that these searches go among: the best alone on the pictures of each.
AMONG = 32


@dataclass(frozen=True)
class Selected:
    """The chosen set, how it was chosen, and how sure each of its templates is.

    Attributes:
        shares: of every template of the chosen set: its posterior probability (`posterior`), its weight (`weighted`,
            `zpe`), or the share of the resampled searches whose winner has it (`bagged`).
        tried: sets that were weighed against each other, or searches that were repeated.
        scored: those of them that were scored for the choice, beside the search's own.
        bags: of `bagged`, for each resampling the pictures outside and its winner.
    """

    prompt_set: PromptSet
    score: Score
    method: str
    shares: dict[Template, float] = field(default_factory=dict)
    tried: int = 0
    scored: int = 0
    bags: tuple[tuple[np.ndarray, PromptSet], ...] = ()


@dataclass(frozen=True)
class Selection:
    """Chooses among what a search found, by one of `SELECTIONS`.

        selection = Selection("posterior", bank, get_objective("xent"), seed=0)
        chosen = selection.choose(evaluator, outcome.ranked, repeat)
        print(chosen.prompt_set, chosen.shares)

    Attributes:
        whole: whether the search scored every template of the bank: then they are all weighed, however many there are.

    Raises:
        InputError: an unknown method.
    """

    method: str
    bank: Bank
    objective: Objective
    seed: int = 0
    whole: bool = False

    def __post_init__(self) -> None:
        if self.method not in SELECTIONS:
            raise InputError(f"--select {self.method}: choose from {', '.join(SELECTIONS)}")

    def choose(self, evaluator: Evaluator, found: Found, repeat: Repeat | None = None) -> Selected:
        """The set to keep.

        Args:
            evaluator: of the pictures that the search went by.
            found: what the search recorded, best first.
            repeat: the search, for methods that repeat it.

        Where the bank has other names for classes, those of the chosen set are searched too.
        """
        chosen = SELECTIONS[self.method](self, evaluator, found, repeat)
        if not self.bank.class_names or not evaluator.task.labelled or self.method == "none":
            return chosen
        named = rename(chosen.prompt_set, evaluator, self.names(evaluator), self.loss)
        return replace(chosen, prompt_set=named, score=evaluator.score([named])[0])

    def names(self, evaluator: Evaluator) -> Names:
        """The names that the task's classes may go by."""
        return Names(evaluator.task.class_names, self.bank.class_names)

    def baseline(self, evaluator: Evaluator) -> tuple[PromptSet, Score]:
        """The hand-written prompt and its score."""
        plain = PromptSet.of(BASELINE)
        return plain, evaluator.score([plain])[0]

    def singles(self, found: Found) -> list[PromptSet]:
        """Templates to be weighed one by one: those of the bank up to `WHOLE`, and all that the search met."""
        templates = list(self.bank) if self.whole or len(self.bank) <= WHOLE else []
        return [PromptSet.of(t) for t in dict.fromkeys([*templates, *(t for s, _ in found for t in s.templates)])]

    def loss(self, score: Score) -> float:
        """Cross-entropy per picture, less what the objective gives for fluency."""
        weight = getattr(self.objective, "weight", 0.0)
        return score.xent - weight * (score.fluency or 0.0)

    def prior(self, prompt_set: PromptSet, weighed: int, names: Names) -> float:
        """Logarithm of the prior probability: each template other than the hand-written prompt costs its share.

        Args:
            weighed: templates among which there is a choice.
            names: whose choice costs too.
        """
        others = sum(t != BASELINE for t in prompt_set.templates)
        cost = names.cost(prompt_set)
        if not others:
            return math.log(BASELINE_SHARE) - cost
        return math.log(1 - BASELINE_SHARE) - others * math.log(weighed) - cost


def _best(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """The best score, as it is."""
    prompt_set, score = found[0]
    return Selected(prompt_set, score, "none", tried=len(found))


def _posterior(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """A weighted ensemble: every template by its probability, given the pictures.

    The model's own probabilities are the likelihood: that of a set is exp(-n xent) on n pictures, so the posterior is
    prior * exp(-n xent), normalised over single templates and the ensembles that the search kept; an ensemble shares
    its probability among its templates.  Few pictures leave the prior standing, many leave the best.  Templates that
    the search did not score alone are scored here: among few of them the prior would be too strong.
    """
    candidates = dict(found)
    plain, score = selection.baseline(evaluator)
    candidates.setdefault(plain, score)
    singles = selection.singles(found)
    fresh = [s for s in singles if s not in candidates]
    candidates.update(zip(fresh, evaluator.score(fresh), strict=True))
    n = len(evaluator.task.support)
    names, weighed = selection.names(evaluator), len(singles)
    logs = np.array([selection.prior(s, weighed, names) - n * selection.loss(v) for s, v in candidates.items()])
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    chosen = _weighted(zip(candidates, mass.tolist(), strict=True), evaluator, "posterior", len(candidates))
    return chosen if selection.whole else replace(chosen, scored=len(fresh))


def _learnt(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """The search's best set, its templates weighted by what the pictures say, with a prior towards equal weights."""
    prompt_set = learn_weights(found[0][0], evaluator, selection.loss)
    shares = dict(zip(prompt_set.templates, prompt_set.weights or (1.0,), strict=True))
    return Selected(prompt_set, evaluator.score([prompt_set])[0], "weighted", shares, tried=len(found))


def _bagged(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """A weighted ensemble of what the search chooses again and again on resampled support sets.

    In each of them the winner is the set with the best posterior probability, so that the hand-written prompt wins
    where the resampled pictures do not speak against it.  The searches go among the `AMONG` templates that are best
    alone on the resampled pictures.
    """
    assert repeat is not None  # whoever chooses this method gives it
    bags: list[tuple[np.ndarray, PromptSet]] = []
    for inside, outside in bootstraps(evaluator.task.support.labels, BAGS, selection.seed):
        part, sets = _repeated(repeat, evaluator, inside)
        n, weighed, names = len(inside), len(selection.singles(sets)), selection.names(part)
        sets = [*sets, selection.baseline(part)]
        cost = {s: n * selection.loss(v) - selection.prior(s, weighed, names) for s, v in sets}
        bags.append((outside, min(cost, key=lambda s: (cost[s], s.size, s.templates))))
    chosen = vote([winner for _, winner in bags], evaluator)
    return replace(chosen, bags=tuple(bags))


def vote(winners: Sequence[PromptSet], evaluator: Evaluator) -> Selected:
    """The ensemble of the templates of several sets, each weighted by how often it is in them."""
    return _weighted([(winner, 1.0) for winner in winners], evaluator, "bagged", len(winners))


def _zpe(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """A weighted ensemble without labels: every template by ZPE's score, softmaxed (Allingham et al. 2023)."""
    evaluator.require(("zpe",))
    singles = selection.singles(found)
    scores = np.array([s.zpe for s in evaluator.score(singles)], float)
    mass = np.exp(scores - scores.max())
    return _weighted(zip(singles, mass.tolist(), strict=True), evaluator, "zpe", len(singles), 0.0)


def _by_size(parts: Callable[[np.ndarray, int], list[Part]], name: str) -> _Method:
    """The best set of the size (none: the hand-written prompt) that does best outside, or a smaller one as good.

    As good is: within one standard error of the paired difference in cross-entropy (Breiman et al. 1984).  Where a
    language model rates the prompts, the most fluent of the sets of one size that are as good stands for that size.
    """

    def choose(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
        assert repeat is not None  # whoever chooses this method gives it
        support = evaluator.task.support
        losses: dict[int, np.ndarray] = {}
        counts: dict[int, np.ndarray] = {}
        drawn = parts(support.labels, selection.seed)
        for inside, outside in drawn:
            part, sets = _repeated(repeat, evaluator, inside)
            for size, prompt_set in _best_of_sizes(selection, part, sets).items():
                loss = evaluator.losses(prompt_set, support.part(outside))
                losses.setdefault(size, np.zeros(len(support)))[outside] += loss
                counts.setdefault(size, np.zeros(len(support)))[outside] += 1
        sizes = sorted(s for s in losses if np.array_equal(counts[s], counts[0]))  # reached in every repetition
        out = counts[0] > 0
        means = {s: losses[s][out] / counts[s][out] for s in sizes}
        best = min(sizes, key=lambda s: (means[s].mean(), s))
        n = max(2, int(out.sum()))
        for size in sizes:
            difference = means[size] - means[best]
            if size == best or difference.mean() <= difference.std(ddof=1) / math.sqrt(n):
                break
        chosen = _best_of_sizes(selection, evaluator, found).get(size) or PromptSet.of(BASELINE)
        return Selected(chosen, evaluator.score([chosen])[0], name, tried=len(drawn))

    return choose


def _best_of_sizes(selection: Selection, evaluator: Evaluator, found: Found) -> dict[int, PromptSet]:
    """The best set of every size (of size 0 the hand-written prompt), or a more fluent one of that size as good."""
    by_size: dict[int, list[tuple[PromptSet, Score]]] = {0: [selection.baseline(evaluator)]}
    for s, v in found:
        by_size.setdefault(s.size, []).append((s, v))
    best = {}
    for size, sets in by_size.items():
        ranked = sorted(sets, key=lambda r: selection.objective(r[1]), reverse=True)  # stable: `found` has an order
        best[size] = _most_fluent(evaluator, ranked[:EQUALS])
    return best


def _most_fluent(evaluator: Evaluator, ranked: Found) -> PromptSet:
    """Of the sets within one standard error of the first the most fluent; the first where no language model rates."""
    first, score = ranked[0]
    if score.fluency is None or len(ranked) == 1:
        return first
    support = evaluator.task.support
    losses = evaluator.losses(first, support)
    equals = [(score.fluency, first)]
    for other, v in ranked[1:]:
        difference = evaluator.losses(other, support) - losses
        if v.fluency is not None and difference.mean() <= difference.std(ddof=1) / math.sqrt(len(support)):
            equals.append((v.fluency, other))
    return max(equals, key=lambda r: r[0])[1]


def _repeated(repeat: Repeat, evaluator: Evaluator, inside: np.ndarray) -> tuple[Evaluator, Found]:
    return replace(repeat, evaluator=evaluator).on(inside, AMONG)


def _weighted(
    masses: Iterable[tuple[PromptSet, float]], evaluator: Evaluator, method: str, tried: int, least: float = LEAST
) -> Selected:
    """The ensemble of the templates with the largest shares, weighted by them.

    A set shares its mass among its templates.  The class names are those with the largest mass.
    """
    shares: dict[Template, float] = {}
    names: dict[tuple[str, ...] | None, float] = {}
    for prompt_set, mass in masses:
        names[prompt_set.class_names] = names.get(prompt_set.class_names, 0.0) + mass
        for t in prompt_set.templates:
            shares[t] = shares.get(t, 0.0) + mass / prompt_set.size
    total = sum(shares.values())
    ordered = sorted(((w / total, t) for t, w in shares.items()), key=lambda r: (-r[0], r[1]))
    kept = [(w, t) for w, t in ordered[:MOST] if w >= least] or ordered[:1]
    weights = _rounded([w for w, _ in kept])
    templates = [t for _, t in kept]
    named = max(names, key=names.__getitem__)
    prompt_set = PromptSet(templates, None if len(templates) == 1 else weights, named)
    shown = {t: round(w, 4) for w, t in kept}
    return Selected(prompt_set, evaluator.score([prompt_set])[0], method, shown, tried)


def _rounded(weights: Sequence[float]) -> list[float]:
    """Weights that sum to about one, to three decimals: what is printed is what is used."""
    total = sum(weights)
    return [max(0.001, round(w / total, 3)) for w in weights]


_Method = Callable[[Selection, Evaluator, Found, "Repeat | None"], Selected]

#: Ways to choose.
SELECTIONS: dict[str, _Method] = {
    "none": _best,
    "posterior": _posterior,
    "weighted": _learnt,
    "bagged": _bagged,
    "cv": _by_size(lambda labels, seed: folds(labels, FOLDS, seed, REPEATS), "cv"),
    "bootstrap": _by_size(lambda labels, seed: bootstraps(labels, BAGS, seed), "bootstrap"),
    "zpe": _zpe,
}


#: Those that read no labels.
LABEL_FREE = ("none", "zpe")


def choose_selection(name: str | None, shots: int, objective: str = "xent", fluent: bool = False) -> str:
    """The method to go by: `posterior` where none is named, and `none` where the search goes by more than labels.

    Args:
        fluent: whether fluency is an aim of the search too.

    Raises:
        InputError: an unknown one, or one that needs labels where there are none.
    """
    if name is None:
        goal = get_objective(objective)
        own = isinstance(goal, Plugged) or fluent  # aims that a likelihood knows nothing of
        return "posterior" if shots and goal.labels and not own else "none"
    if name not in SELECTIONS:
        raise InputError(f"--select {name}: choose from {', '.join(SELECTIONS)}")
    if name not in LABEL_FREE and not shots:
        raise InputError(f"--select {name} needs labelled pictures and --shots 0 has none; leave it out")
    return name
