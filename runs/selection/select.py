"""Methods that choose the winner among the sets that a search found, by resampling and by repeated searches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet, Template
from promptsearch.banks.prompt_set import Phrases
from promptsearch.errors import InputError
from promptsearch.evaluators import Evaluator, Score
from promptsearch.runs.search_loop import Budget, prepare, search
from promptsearch.runs.selection.phrase_choice import PHRASES, choose_phrases, rename, rounded
from promptsearch.search import Names, Objective, Searcher, get_objective
from promptsearch.search.objective import Plugged

#: Strength of the prior towards equal weights, in nats per unit of Kullback-Leibler divergence.
PRIOR = 1.0
#: Step sizes in the logarithm of a weight, used from the largest to the smallest.
STEPS = (1.0, 0.3, 0.1, 0.03)


def learn_weights(
    prompt_set: PromptSet, evaluator: Evaluator, loss: Callable[[Score], float], prior: float = PRIOR
) -> PromptSet:
    """Return the set with the weights of the largest posterior probability.

        weighted = learn_weights(PromptSet.of("a photo of a {}.", "a dark photo of a {}."), evaluator, lambda s: s.xent)
        print(weighted.weights)

    The likelihood is exp(-n loss) on n pictures, and the prior is exp(-prior KL(equal weights, weights)), a Dirichlet
    distribution around equal weights. Coordinate ascent changes one weight at a time, always by the best step, with
    decreasing step sizes.

    Args:
        prompt_set: The set.
        evaluator: Scores sets on the support set.
        loss: Returns the cross-entropy per picture of a score.
        prior: Strength of the preference for equal weights; 0 for none.
    """
    k, n = prompt_set.size, len(evaluator.task.support)
    if k == 1:
        return prompt_set

    def weighted(weights: Sequence[float]) -> PromptSet:
        total = sum(weights)
        # rounded, so that the printed weights are those in use
        rounded = [max(0.001, round(w / total, 3)) for w in weights]
        return PromptSet(prompt_set.templates, rounded).saying_as(prompt_set)

    def costs(many: Sequence[Sequence[float]]) -> list[float]:
        scores = evaluator.score([weighted(w) for w in many])
        divergences = [-sum(math.log(k * x / sum(w)) for x in w) / k for w in many]
        return [n * loss(s) + prior * d for s, d in zip(scores, divergences, strict=True)]

    now = [1 / k] * k
    (best,) = costs([now])
    for step in STEPS:
        while True:
            tried = [[*now[:t], now[t] * math.exp(way * step), *now[t + 1 :]] for t in range(k) for way in (1, -1)]
            found = costs(tried)
            at = min(range(len(tried)), key=found.__getitem__)
            if found[at] >= best - 1e-6 * max(1.0, abs(best)):
                break
            now, best = [w / sum(tried[at]) for w in tried[at]], found[at]
    return weighted(now)


#: Larger banks are not scored completely for the choice of a winner, because all their texts would have to be encoded.
WHOLE = 1000

Found = list[tuple[PromptSet, Score]]


@dataclass(frozen=True)
class Repeat:
    """Repeats a run's search with a new searcher and the same budget.

        repeat = Repeat(lambda bank: BeamSearch(bank, objective), bank, evaluator)
        part, found = repeat.on(inside)

    Attributes:
        fresh: Builds the searcher for a bank, with its starting points. None if the search cannot be repeated, e.g.
            because it asks a language model; then the sets in `found` are scored instead.
        bank: The run's bank.
        evaluator: The evaluator on the whole support set.
        found: The sets that the run found.
        trials: Number of trials of the run, for searchers that work in trials.
        threads: Number of threads that score sets; by default one per core.
    """

    fresh: Callable[[Bank], Searcher] | None
    bank: Bank
    evaluator: Evaluator
    found: tuple[PromptSet, ...] = ()
    trials: int | None = None
    threads: int | None = None

    def on(self, inside: np.ndarray, among: int | None = None) -> tuple[Evaluator, Found]:
        """Repeat the search on some of the pictures.

        Args:
            inside: Positions of the pictures in the support set.
            among: Search only this many templates, those that are best alone on these pictures; None for all.

        Returns:
            An evaluator on these pictures, and the sets that the search recorded with their scores, best first.
        """
        part = self.evaluator.part(inside, self.threads)
        if self.fresh is None:
            return part, list(zip(self.found, part.score(self.found), strict=True))
        bank = self.bank
        if among is not None and among < len(bank) <= WHOLE:
            bank = self._best(part, among)
        return part, search(self.fresh(bank), part, budget=Budget(self.trials)).ranked

    def _best(self, part: Evaluator, among: int) -> Bank:
        assert self.fresh is not None  # only called if the search can be repeated
        searcher = self.fresh(self.bank)
        prepare(searcher, part)
        singles = [PromptSet.of(t) for t in self.bank]
        ranked = searcher.ranked(list(zip(singles, part.score(singles), strict=True)))
        best = [s.templates[0] for s, _ in ranked[:among]]
        return Bank(self.bank.name, tuple(best), class_names=self.bank.class_names)


#: (pictures inside, pictures outside), as positions in the support set; choices are made inside and judged outside.
Part = tuple[np.ndarray, np.ndarray]


def folds(labels: np.ndarray, k: int, seed: int, repeats: int = 1) -> list[Part]:
    """Draw stratified folds.

    A class starts in the fold after the one in which the previous class ended, so that folds are equally large even if
    classes have fewer pictures than there are folds.

    Args:
        labels: (N,) class indices.
        k: Number of folds.
        seed: Seed of the draw.
        repeats: Number of times the folds are drawn.

    Returns:
        repeats * k parts; the pictures outside are one fold.
    """
    parts = []
    k = min(k, len(labels))
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        fold, begin = np.empty(len(labels), int), 0
        for c in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == c))
            fold[members] = (begin + np.arange(len(members))) % k
            begin += len(members)
        parts += [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(k)]
    return parts


def bootstraps(labels: np.ndarray, n: int, seed: int) -> list[Part]:
    """Draw stratified bootstrap samples; if a class has a single picture, the samples are not stratified.

    Args:
        labels: (N,) class indices.
        n: Number of samples.
        seed: Seed of the draw.

    Returns:
        n parts; the pictures outside are those that were not drawn.
    """
    classes, counts = np.unique(labels, return_counts=True)
    groups = [np.flatnonzero(labels == c) for c in classes] if counts.min() > 1 else [np.arange(len(labels))]
    parts = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        parts.append((np.sort(drawn), np.setdiff1d(np.arange(len(labels)), drawn)))
    return parts


def refilled(part: Part, labels: np.ndarray, seed: int) -> Part:
    """Fill up the inside of a part with pictures drawn from it, so that it is as large as the support set.

    For each picture outside, a picture of the same class is drawn from inside, if there is one. Without this, classes
    outside would be underrepresented inside, and the choice would use fewer pictures than the one whose accuracy is
    estimated; both would make the estimate too low.

    Args:
        part: The part.
        labels: (N,) class indices.
        seed: Seed of the draw.
    """
    inside, outside = part
    rng = np.random.default_rng([seed, int(outside[0])])
    same = [inside[labels[inside] == labels[x]] for x in outside]
    again = [int(rng.choice(members)) for members in same if len(members)]
    return np.sort(np.concatenate([inside, again]).astype(np.intp)), outside


#: Prior probability of the hand-written prompt; all other templates share the rest equally.
BASELINE_SHARE = 0.2
#: Largest number of templates in a weighted ensemble, and smallest share of one of them.
MOST, LEAST = 3, 0.05
#: Largest number of templates of an ensemble weighted by ZPE, which weights all of them nearly alike.
MOST_ZPE = 12
#: Number of searches of `bagged` and `bootstrap`, and of folds and repeats of `cv`.
BAGS, FOLDS, REPEATS = 20, 5, 2
#: Number of best sets of one size among which the most fluent is chosen.
EQUALS = 32
#: Number of templates that the repeated searches use, the best single ones on the pictures of each.
AMONG = 32


@dataclass(frozen=True)
class Selected:
    """The chosen set and how it was chosen.

    Attributes:
        prompt_set: The set.
        score: Its score on the support set.
        method: The method, a key of `SELECTIONS`.
        shares: For each template its posterior probability (`posterior`), its weight (`weighted`, `zpe`), or the share
            of the resampled searches whose winner contains it (`bagged`).
        tried: Number of sets that were compared, or of searches that were repeated.
        scored: Number of these sets that were not scored by the search.
        refused: The set that was chosen first, if the hand-written prompt was kept instead.
        bags: For `bagged`, the pictures outside and the winner of each resampled search.
    """

    prompt_set: PromptSet
    score: Score
    method: str
    shares: dict[Template, float] = field(default_factory=dict)
    tried: int = 0
    scored: int = 0
    bags: tuple[tuple[np.ndarray, PromptSet], ...] = ()
    refused: PromptSet | None = None


@dataclass(frozen=True)
class Selection:
    """Chooses the winner among the sets that a search found.

        selection = Selection("posterior", bank, get_objective("xent"), seed=0)
        chosen = selection.choose(evaluator, outcome.ranked, repeat)
        print(chosen.prompt_set, chosen.shares)

    Attributes:
        method: A key of `SELECTIONS`.
        bank: The bank that was searched.
        objective: The objective of the search.
        seed: Seed of resampling.
        whole: Whether the search scored every template of the bank; then all are candidates, however many there are.
        phrases: Largest number of phrases of a class.

    Raises:
        InputError: The method is unknown.
    """

    method: str
    bank: Bank
    objective: Objective
    seed: int = 0
    whole: bool = False
    phrases: int = PHRASES

    def __post_init__(self) -> None:
        if self.method not in SELECTIONS:
            raise InputError(f"--select {self.method}: choose from {', '.join(SELECTIONS)}")

    def choose(self, evaluator: Evaluator, found: Found, repeat: Repeat | None = None) -> Selected:
        """Choose the winner; if the bank has other names or phrases for classes, they are chosen for the winner too.

        Args:
            evaluator: Scores sets on the pictures of the search.
            found: The sets that the search recorded, best first.
            repeat: Repeats the search, for methods that need it.
        """
        return self.named(self.templates(evaluator, found, repeat), evaluator)

    def templates(self, evaluator: Evaluator, found: Found, repeat: Repeat | None = None) -> Selected:
        """Choose the templates, with the class names that the search found if it renames classes.

        Args:
            evaluator: Scores sets on the pictures of the search.
            found: The sets that the search recorded, best first.
            repeat: Repeats the search, for methods that need it.
        """
        return SELECTIONS[self.method](self, evaluator, found, repeat)

    def named(self, chosen: Selected, evaluator: Evaluator) -> Selected:
        """Choose other names or phrases for the classes, if the bank has any.

        Args:
            chosen: The chosen templates.
            evaluator: Scores sets on the pictures of the search.

        Returns:
            `chosen` with the names or phrases that fit the pictures best; unchanged if the bank has none.
        """
        return self.named_each(chosen, evaluator, (self.phrases,))[0]

    def named_each(self, chosen: Selected, evaluator: Evaluator, most: Sequence[int]) -> list[Selected]:
        """Do the same as `named` for several numbers of phrases; what they have in common is computed once.

        Args:
            chosen: The chosen templates.
            evaluator: Scores sets on the pictures of the search.
            most: Largest numbers of phrases of a class.

        Returns:
            A choice for each number in `most`.
        """
        if evaluator.task.labelled and self.method == "none":
            return [chosen] * len(most)
        named = chosen.prompt_set
        if self.bank.class_names and evaluator.task.labelled:
            named = rename(named, evaluator, self.names(evaluator), self.loss)
        each = [named] * len(most)
        if self.bank.phrases is not None:
            each = choose_phrases(named, evaluator, self.bank.phrases, most, self.objective.figure)
        scores = evaluator.score(each)
        return [replace(chosen, prompt_set=s, score=score) for s, score in zip(each, scores, strict=True)]

    def names(self, evaluator: Evaluator) -> Names:
        """Return the task's class names with the bank's alternatives."""
        return Names(evaluator.task.class_names, self.bank.class_names)

    def baseline(self, evaluator: Evaluator) -> tuple[PromptSet, Score]:
        """Return the hand-written prompt and its score."""
        plain = PromptSet.of(BASELINE)
        return plain, evaluator.score([plain])[0]

    def singles(self, found: Found) -> list[PromptSet]:
        """Return the candidates among single templates: the bank's, if it has at most `WHOLE`, and all found ones."""
        templates = list(self.bank) if self.whole or len(self.bank) <= WHOLE else []
        return [PromptSet.of(t) for t in dict.fromkeys([*templates, *(t for s, _ in found for t in s.templates)])]

    def loss(self, score: Score) -> float:
        """Return the cross-entropy per picture minus the objective's reward for fluency."""
        weight = getattr(self.objective, "weight", 0.0)
        return score.xent - weight * (score.fluency or 0.0)

    def prior(self, prompt_set: PromptSet, weighed: int, names: Names) -> float:
        """Return the logarithm of a set's prior probability.

        Each template other than the hand-written prompt costs log(weighed), and each renamed class the logarithm of the
        number of its names.

        Args:
            prompt_set: The set.
            weighed: Number of candidate templates.
            names: The classes' alternative names.
        """
        others = sum(t != BASELINE for t in prompt_set.templates)
        cost = names.cost(prompt_set)
        if not others:
            return math.log(BASELINE_SHARE) - cost
        return math.log(1 - BASELINE_SHARE) - others * math.log(weighed) - cost


def _best(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """Choose the set with the best score."""
    prompt_set, score = found[0]
    return Selected(prompt_set, score, "none", tried=len(found))


def _posterior(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """Choose a weighted ensemble in which the weight of each template is its posterior probability.

    The likelihood of a set on n pictures is exp(-n xent), the product of the model's own probabilities, so that its
    posterior is prior * exp(-n xent), normalised over single templates and the recorded ensembles. An ensemble divides
    its probability equally among its templates. With few pictures the prior dominates, with many the best set does.
    Templates that the search did not score alone are scored here, because with few candidates the prior of the
    hand-written prompt would be too strong.
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
    """Choose the search's best set, with weights learnt on the support set."""
    prompt_set = learn_weights(found[0][0], evaluator, selection.loss)
    shares = dict(zip(prompt_set.templates, prompt_set.weights or (1.0,), strict=True))
    return Selected(prompt_set, evaluator.score([prompt_set])[0], "weighted", shares, tried=len(found))


def _bagged(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """Choose a weighted ensemble of the templates that repeated searches on bootstrap samples choose most often.

    The winner of each sample is the set with the largest posterior probability; it is the hand-written prompt unless
    the pictures speak against it. Each search uses the `AMONG` best single templates on its sample.
    """
    assert repeat is not None  # required for this method
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
    """Return the ensemble of the templates of several sets, weighted by how often each occurs.

    Args:
        winners: The sets.
        evaluator: Scores the ensemble.
    """
    return _weighted([(winner, 1.0) for winner in winners], evaluator, "bagged", len(winners))


def _zpe(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
    """Choose a weighted ensemble without labels: weights are the softmax of ZPE scores (Allingham et al. 2023)."""
    evaluator.require(("zpe",))
    singles = selection.singles(found)
    scores = np.array([s.zpe for s in evaluator.score(singles)], float)
    mass = np.exp(scores - scores.max())
    return _weighted(zip(singles, mass.tolist(), strict=True), evaluator, "zpe", len(singles), MOST_ZPE, 0.0)


def _by_size(parts: Callable[[np.ndarray, int], list[Part]], name: str) -> _Method:
    """Return a method that chooses the ensemble size by its cross-entropy on pictures outside of repeated searches.

    It chooses the smallest size within one standard error of the best (Breiman et al. 1984), by the paired difference
    in cross-entropy; size 0 is the hand-written prompt. If prompts have a fluency, the most fluent of the sets of a
    size within one standard error represents the size.

    Args:
        parts: Draws the parts from labels and a seed.
        name: Name of the method.
    """

    def choose(selection: Selection, evaluator: Evaluator, found: Found, repeat: Repeat | None) -> Selected:
        assert repeat is not None  # required for this method
        support = evaluator.task.support
        losses: dict[int, np.ndarray] = {}
        counts: dict[int, np.ndarray] = {}
        # A fold of an estimate may leave a single picture, on which nothing can be both chosen and judged.
        drawn = [part for part in parts(support.labels, selection.seed) if len(part[0]) and len(part[1])]
        if not drawn:
            plain, score = selection.baseline(evaluator)
            return Selected(plain, score, name)
        for inside, outside in drawn:
            part, sets = _repeated(repeat, evaluator, inside)
            for size, prompt_set in _best_of_sizes(selection, part, sets).items():
                loss = evaluator.losses(prompt_set, support.part(outside))
                losses.setdefault(size, np.zeros(len(support)))[outside] += loss
                counts.setdefault(size, np.zeros(len(support)))[outside] += 1
        # sizes that were found in every repetition
        sizes = sorted(s for s in losses if np.array_equal(counts[s], counts[0]))
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
    """Return the best set of each size, or a more fluent one within one standard error; size 0 is the hand-written."""
    by_size: dict[int, list[tuple[PromptSet, Score]]] = {0: [selection.baseline(evaluator)]}
    for s, v in found:
        by_size.setdefault(s.size, []).append((s, v))
    best = {}
    for size, sets in by_size.items():
        # a stable sort keeps the order of ties
        ranked = sorted(sets, key=lambda r: selection.objective(r[1]), reverse=True)
        best[size] = _most_fluent(evaluator, ranked[:EQUALS])
    return best


def _most_fluent(evaluator: Evaluator, ranked: Found) -> PromptSet:
    """Return the most fluent set within one standard error of the first, or the first if sets have no fluency."""
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
    masses: Iterable[tuple[PromptSet, float]],
    evaluator: Evaluator,
    method: str,
    tried: int,
    most: int = MOST,
    least: float = LEAST,
) -> Selected:
    """Return the ensemble of the templates with the largest shares, weighted by them.

    Args:
        masses: Sets with their probability or weight, which is divided equally among a set's templates. Of different
            phrases for the classes, those with the largest total are chosen.
        evaluator: Scores the ensemble.
        method: Name of the method.
        tried: Number of sets or searches compared.
        most: Largest number of templates.
        least: Smallest share of a template.
    """
    shares: dict[Template, float] = {}
    said: dict[tuple[Phrases, ...] | None, float] = {}
    for prompt_set, mass in masses:
        said[prompt_set.phrases] = said.get(prompt_set.phrases, 0.0) + mass
        for t in prompt_set.templates:
            shares[t] = shares.get(t, 0.0) + mass / prompt_set.size
    total = sum(shares.values())
    ordered = sorted(((w / total, t) for t, w in shares.items()), key=lambda r: (-r[0], r[1]))
    kept = [(w, t) for w, t in ordered[:most] if w >= least] or ordered[:1]
    weights = rounded([w for w, _ in kept]) if least else _rounded([w for w, _ in kept])
    templates = [t for _, t in kept]
    phrases = max(said, key=said.__getitem__)
    prompt_set = PromptSet(
        templates,
        None if len(templates) == 1 else weights,
        phrases=None if phrases is None else [dict(of_class) for of_class in phrases],
    )
    shown = {t: round(w, 4) for w, t in kept}
    return Selected(prompt_set, evaluator.score([prompt_set])[0], method, shown, tried)


def _rounded(weights: Sequence[float]) -> list[float]:
    """Round weights to three decimals that sum to about 1, so that the printed weights are those in use."""
    total = sum(weights)
    return [max(0.001, round(w / total, 3)) for w in weights]


_Method = Callable[[Selection, Evaluator, Found, "Repeat | None"], Selected]

#: The methods, as in `--select`.
SELECTIONS: dict[str, _Method] = {
    "none": _best,
    "posterior": _posterior,
    "weighted": _learnt,
    "bagged": _bagged,
    "cv": _by_size(lambda labels, seed: folds(labels, FOLDS, seed, REPEATS), "cv"),
    "bootstrap": _by_size(lambda labels, seed: bootstraps(labels, BAGS, seed), "bootstrap"),
    "zpe": _zpe,
}


#: The methods that need no labels.
LABEL_FREE = ("none", "zpe")


def choose_selection(name: str | None, shots: int, objective: str = "xent", fluent: bool = False) -> str:
    """Return the selection method.

    The default is `posterior`, or `none` if the search uses no labels or has another aim besides classification.

    Args:
        name: The method, as in `--select`; None for the default.
        shots: Labelled pictures per class.
        objective: Name of the objective.
        fluent: Whether fluency is also an aim of the search.

    Raises:
        InputError: The method is unknown, or needs labels and there are none.
    """
    if name is None:
        goal = get_objective(objective)
        own = isinstance(goal, Plugged) or fluent  # such an aim is not part of the likelihood
        return "posterior" if shots and goal.labels and not own else "none"
    if name not in SELECTIONS:
        raise InputError(f"--select {name}: choose from {', '.join(SELECTIONS)}")
    if name not in LABEL_FREE and not shots:
        raise InputError(f"--select {name} needs labelled pictures, but --shots is 0; leave one of them out")
    return name
