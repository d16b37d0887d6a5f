"""Chooses a few weighted phrases, or a name, of each class for the chosen templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from promptsearch.banks import BASELINE, PhraseBank, PromptSet
from promptsearch.evaluators import Evaluator, Score
from promptsearch.evaluators.scoring.phrase_table import Mixture, PhraseTable
from promptsearch.search import Names

#: Largest number of passes over the classes.
ROUNDS = 2


def rename(prompt_set: PromptSet, evaluator: Evaluator, names: Names, loss: Callable[[Score], float]) -> PromptSet:
    """Return the set with the class names that fit the pictures best, chosen one class at a time.

    A class gets another name only if that reduces the summed cross-entropy by more than the logarithm of the number of
    its names, the cost of the choice.

    Args:
        prompt_set: The set.
        evaluator: Scores sets on the support set.
        names: The alternatives.
        loss: Returns the cross-entropy per picture of a score.
    """
    n = len(evaluator.task.support)

    def cost(sets: list[PromptSet]) -> list[float]:
        return [n * loss(v) + names.cost(s) for s, v in zip(sets, evaluator.score(sets), strict=True)]

    (best,) = cost([prompt_set])
    for _ in range(ROUNDS):
        before = prompt_set
        for c in names.free:
            tried = [names.renamed(prompt_set, c, name) for name in names.choices(c)]
            for candidate, value in zip(tried, cost(tried), strict=True):
                if value < best - 1e-9:
                    best, prompt_set = value, candidate
        if prompt_set == before:
            break
    return prompt_set


#: Prior probability of the class's own name, and of the hand-written template; the others share the rest equally.
OWN, HAND_WRITTEN = 0.35, 0.5
#: Factor of the evidence, below 1 because even at a fitted scale the model's probabilities are too confident.
TEMPER = 0.25
#: The same factor for a search without labels, whose evidence is the objective summed over the pictures.
TEMPER_UNLABELLED = 0.1
#: Largest number of templates, largest number of phrases of a class, smallest weight, and unit of all weights.
TEMPLATES, PHRASES, LEAST, UNIT = 3, 3, 0.05, 0.05
#: Largest number of phrases of a class if the estimate says that more phrases are better.
MORE_PHRASES = 6
#: Smallest gain in cosine for which a class takes one more phrase, or another one.
WORTH = 1e-4
#: Phrases whose cosines differ by less than this are equally good; the first one in the bank is taken, which in
#: built-in banks is the most fluent one.
TIE = 1e-3


def choose_phrases(
    chosen: PromptSet,
    evaluator: Evaluator,
    bank: PhraseBank,
    most: Sequence[int] = (PHRASES,),
    figure: str = "mutual_information",
) -> list[PromptSet]:
    """Choose phrases for the chosen templates and the hand-written one, for each largest number in `most`.

    1. Templates and phrases are weighted by their posterior probability (`PhraseTable.mix`).
    2. The templates with the largest weights are kept, and for each class the few phrases whose weighted sum is
       nearest to the class's mixture. Distances are measured by their effect on the pictures' logits.
    3. The kept ones are weighted again, with their weights so far as the prior.

    Args:
        chosen: The templates, chosen with the classes' own names.
        evaluator: Provides the labelled pictures and encodes texts.
        bank: The phrases to choose from.
        most: Largest numbers of phrases of a class, one for each returned set; the first step is shared by all of them.
        figure: The field of the Score that the search maximises; it is the evidence if there are no labels.

    Returns:
        A set of templates and phrases for each number in `most`.

    Raises:
        InputError: A class of the phrases is not in the task, or a text is too long for the model.
    """
    phrases = by_fluency(bank.of_classes(evaluator.task.class_names), evaluator)
    table = evaluator.phrase_table([BASELINE, *(t for t in chosen.templates if t != BASELINE)], phrases)
    labelled, evidence = evaluator.task.labelled, evaluator.evidence(figure)

    def mixed(table: PhraseTable, prior: np.ndarray) -> Mixture:
        return table.mix(
            _log_prior(len(table.templates), HAND_WRITTEN),
            prior,
            evaluator.logit_scale,
            temper=TEMPER if labelled else TEMPER_UNLABELLED,
            refit=evaluator.model_scale if labelled else 0.0,
            evidence=evidence,
        )

    found = mixed(table, np.concatenate([_log_prior(len(of_class), OWN) for of_class in phrases]))
    own = evaluator.task.class_names
    return [_few_of(found, table, phrases, own, number, mixed) for number in most]


def _few_of(
    found: Mixture,
    table: PhraseTable,
    phrases: Sequence[Sequence[str]],
    own: Sequence[str],
    most: int,
    mixed: Callable[[PhraseTable, np.ndarray], Mixture],
) -> PromptSet:
    """Return a prompt set of the few templates and phrases nearest to a mixture, with new weights.

    Args:
        found: The mixture.
        table: The phrases' vectors and the pictures.
        phrases: The phrases of each class.
        own: The classes' own names.
        most: Largest number of phrases of a class.
        mixed: Computes the mixture of a table from the logarithms of its phrases' prior probabilities.
    """
    nearly = few_phrases(found, table, few(found.templates, TEMPLATES), most)
    at = np.array([p for of_class in nearly for p in of_class])
    found = mixed(table.part(at), np.log([w for of_class in nearly for w in of_class.values()]))
    flat = [phrase for of_class in phrases for phrase in of_class]
    said, begin = [], 0
    for of_class in nearly:
        places = at[begin : begin + len(of_class)]
        weights = few(found.phrases[begin : begin + len(of_class)], most)
        said.append({flat[p]: w for p, w in zip(places, weights, strict=True) if w})
        begin += len(of_class)
    kept = [(t, w) for t, w in zip(table.templates, few(found.templates, TEMPLATES), strict=True) if w]
    prompt_set = PromptSet([t for t, _ in kept], None if len(kept) == 1 else [w for _, w in kept])
    if all(list(n) == [name] for n, name in zip(said, own, strict=True)):
        return prompt_set
    return prompt_set.saying(said)


def by_fluency(phrases: Sequence[tuple[str, ...]], evaluator: Evaluator) -> list[tuple[str, ...]]:
    """Return the phrases of each class, its own name first and then the most fluent, if a language model rates them.

    Args:
        phrases: For each class its name and its phrases, in the order of the bank.
        evaluator: Rates phrases by its language model, if it has one.
    """
    if evaluator.fluency is None:
        return list(phrases)
    flat = [phrase for of_class in phrases for phrase in of_class[1:]]
    rated = iter(evaluator.fluency([PromptSet([BASELINE], phrases=[[phrase]]) for phrase in flat]))
    ranked = [sorted((-next(rated), i) for i in range(1, len(of_class))) for of_class in phrases]
    return [(of_class[0], *(of_class[i] for _, i in r)) for of_class, r in zip(phrases, ranked, strict=True)]


def _log_prior(n: int, first: float) -> np.ndarray:
    """Return the logarithms (n,) of prior probabilities: `first` for the first; the others share the rest equally."""
    if n == 1:
        return np.zeros(1)
    return np.log([first, *[(1 - first) / (n - 1)] * (n - 1)])


def few(weights: np.ndarray, most: int) -> list[float]:
    """Return the largest weights, none below `LEAST` of their sum, as `rounded` gives them; the others are 0.

    Args:
        weights: Positive numbers.
        most: Largest number of weights to keep.
    """
    order = np.argsort(-weights, kind="stable")[:most]
    kept = [int(i) for i in order if weights[i] >= LEAST * weights[order].sum()]
    shares = [0.0] * len(weights)
    for i, w in zip(kept, rounded([float(weights[i]) for i in kept]), strict=True):
        shares[i] = w
    return shares


def few_phrases(
    found: Mixture, table: PhraseTable, templates: Sequence[float], most: int = PHRASES
) -> list[dict[int, float]]:
    """Return for each class the few phrases nearest to its mixture, with their weights.

    Args:
        found: The mixture.
        table: The phrases' vectors and the pictures.
        templates: (T,) weights of the templates that are kept.
        most: Largest number of phrases of a class.
    """
    said = np.tensordot(np.asarray(templates, np.float32), table.vectors, axes=1).astype(np.float64)  # (P, D)
    d = said.shape[1]
    # Half of the metric is a difference's effect on the pictures' logits; the other half is Euclidean distance, because
    # a few pictures span only a small part of the space.
    metric = table.features.T.astype(np.float64) @ table.features / len(table.features) + np.eye(d) / d  # (D, D)
    chosen = []
    for c in range(table.classes):
        at = np.flatnonzero(table.owner == c)
        within = said[at] @ metric  # (p, D)
        places, weights = nearest(within @ said[at].T, within @ found.weights[c].astype(np.float64), most)
        chosen.append({int(at[p]): w for p, w in zip(places, rounded(weights), strict=True)})
    return chosen


def nearest(gram: np.ndarray, target: np.ndarray, most: int = PHRASES) -> tuple[list[int], list[float]]:
    """Return up to `most` vectors whose positive combination has the largest cosine with a target, greedily.

    Each step adds a vector or, once there are `most`, replaces one, as long as the cosine grows by a share of `WORTH`.
    Of vectors within `TIE` of the best, the first is taken.

    Args:
        gram: (p, p) products of the vectors.
        target: (p,) their products with the target.
        most: Largest number of vectors.

    Returns:
        The indices of the vectors and their weights, none of which is below `LEAST` of their sum.
    """
    first = _first_of_best(target / np.sqrt(np.diag(gram)))
    places, weights = [first], [1.0]
    best = float(target[first] / np.sqrt(gram[first, first]))
    while True:
        bases = [places] if len(places) < most else [[*places[:i], *places[i + 1 :]] for i in range(len(places))]
        found = max((_with_one_more(gram, target, base) for base in bases), key=lambda f: f[0])
        if found[0] <= best + WORTH * abs(best):
            return places, weights
        best, places, weights = found


def _with_one_more(gram: np.ndarray, target: np.ndarray, base: list[int]) -> tuple[float, list[int], list[float]]:
    """Return the best combination of the vectors in `base` and one more.

    Returns:
        The cosine times the target's length, the indices of the vectors, and their weights.
    """
    k, p = len(base) + 1, len(target)
    at = np.empty((p, k), np.intp)
    at[:, :-1], at[:, -1] = base, np.arange(p)
    blocks = gram[at[:, :, None], at[:, None, :]] + 1e-9 * np.eye(k)  # (p, k, k)
    weights = np.linalg.solve(blocks, target[at][..., None])[..., 0]  # (p, k)
    length = np.sqrt(np.maximum(np.einsum("pi,pij,pj->p", weights, blocks, weights), 1e-30))
    cosine = (weights * target[at]).sum(axis=1) / length
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    cosine[(share < LEAST).any(axis=1)] = -np.inf
    cosine[base] = -np.inf
    i = _first_of_best(cosine)
    return float(cosine[i]), at[i].tolist(), weights[i].tolist()


def _first_of_best(values: np.ndarray) -> int:
    """Return the first index whose value is within `TIE`, as a share, of the largest value."""
    best = values.max()
    return int(np.argmax(values >= best - TIE * abs(best))) if np.isfinite(best) else 0


def rounded(weights: Sequence[float]) -> list[float]:
    """Round weights to multiples of `UNIT`, at least `LEAST` each and 1 in all, so that printed weights are exact."""
    total, parts = sum(weights), round(1 / UNIT)
    exact = [w / total * parts for w in weights]
    counts = [max(round(LEAST * parts), int(x)) for x in exact]
    while sum(counts) < parts:
        i = max(range(len(counts)), key=lambda j: exact[j] - counts[j])
        counts[i] += 1
    while sum(counts) > parts:
        i = max(range(len(counts)), key=lambda j: counts[j] - exact[j] if counts[j] > 1 else -np.inf)
        counts[i] -= 1
    return [round(n / parts, 2) for n in counts]
