"""What phrases of the classes gain, how their settings were chosen, and how fast they are scored.

    python benchmarks/phrases.py develop                                   # training pictures only
    python benchmarks/phrases.py develop --model local-dir:FOLDER --data CIFAR100
    python benchmarks/phrases.py table                                     # the default command on test pictures
    python benchmarks/phrases.py table --data pacs-photo --transfer pacs-sketch,pacs-art --fluency-lm smollm2
    python benchmarks/phrases.py speed

`develop` learns from and judges by training pictures of CIFAR-100 and PACS photo; settings are chosen by it.  `table`
opens test splits: nothing is chosen by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from unittest import mock

import click
import numpy as np

from promptsearch.banks import BASELINE, PhraseBank, PromptSet, load_bank, load_phrases
from promptsearch.config import FluencyConfig, SearchConfig
from promptsearch.evaluators import Evaluator, Problem, Split, Task, open_problem
from promptsearch.evaluators.fluency import Fluency
from promptsearch.evaluators.scoring.phrase_table import PhraseTable
from promptsearch.lm import locate
from promptsearch.lm.opening import open_rater
from promptsearch.reports.table import by_weight, phrase_lines
from promptsearch.runs import (
    Repeat,
    Row,
    RunResult,
    Selection,
    check_search,
    memory_run,
    open_targets,
    run_search,
    search,
    transfer,
)
from promptsearch.runs.open_run import with_phrases
from promptsearch.runs.selection import phrase_choice
from promptsearch.search import BeamSearch, get_objective

#: Broad classes and their kinds, which are classes of CIFAR-100: as CIFAR-10's are, named by what they have in common.
BROAD = {
    "fish": ("aquarium fish", "flatfish", "ray", "shark", "trout"),
    "flower": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "tree": ("maple tree", "oak tree", "palm tree", "pine tree", "willow tree"),
    "insect": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "reptile": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "vehicle": ("bicycle", "bus", "motorcycle", "pickup truck", "train"),
    "furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "fruit": ("apple", "orange", "pear"),
    "person": ("baby", "boy", "girl", "man", "woman"),
    "rodent": ("hamster", "mouse", "squirrel", "beaver", "porcupine"),
}
#: Pictures of a class that a draw may learn from; it is judged by the others.
MOST_SHOTS = 16
#: The settings that are tried, one of them at a time: constants of `phrase_choice`.
GRID: dict[str, tuple[float, ...]] = {
    "TEMPER": (0.1, 0.25, 0.5, 1.0),
    "OWN": (0.2, 0.5, 0.7),
    "TEMPLATES": (1, 2, 3),
    "PHRASES": (1, 2, 3, 6),
}


def split_of(features: np.ndarray, at: Sequence[np.ndarray]) -> Split:
    """The pictures at these places of each class."""
    every = np.concatenate(list(at))
    return Split(features[every], np.repeat(np.arange(len(at)), [len(a) for a in at]), every)


def classes_of(task: str, names: Sequence[str], rng: np.random.Generator) -> tuple[dict[str, list[int]], PhraseBank]:
    """The classes of a task, each with those of the data set that it is made of, and their phrases."""
    bank = load_phrases("pacs" if task == "pacs-photo" else "cifar100")
    if task == "broad":
        said = {
            b: tuple(dict.fromkeys(p for kind in kinds for p in (kind, *bank.phrases[kind]) if p not in BROAD))
            for b, kinds in BROAD.items()
        }
        return {b: [names.index(kind) for kind in kinds] for b, kinds in BROAD.items()}, PhraseBank("broad", said)
    drawn = rng.permutation(len(names))[:10].tolist() if task == "ten" else range(len(names))
    own = [names[c] for c in drawn]
    return dict(zip(own, ([c] for c in drawn), strict=True)), PhraseBank(task, {n: bank.phrases[n] for n in own})


def draws(problem: Problem, task: str, shots: int, count: int) -> Iterator[tuple[Evaluator, Split, PhraseBank]]:
    """Few shots of each class, and the training pictures that no draw with this seed learns from."""
    labels, _ = problem.source.labels("train")
    features = problem.source.features("train", np.arange(len(labels)))
    for seed in range(count):
        rng = np.random.default_rng([7, seed])
        classes, bank = classes_of(task, problem.source.class_names, rng)
        at = [rng.permutation(np.flatnonzero(np.isin(labels, of_class))) for of_class in classes.values()]
        inside, outside = split_of(features, [a[:shots] for a in at]), split_of(features, [a[MOST_SHOTS:] for a in at])
        drawn = Task(task, tuple(classes), shots, seed, inside, outside, partial(_the, outside))
        evaluator = Evaluator(drawn, problem.encoder.encode_texts, problem.encoder.logit_scale)
        evaluator.fit_scale()
        yield evaluator, outside, bank


def _the(split: Split) -> Split:
    return split


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--data", default="cifar100", show_default=True, help="CIFAR-100, or a folder of it.")
@click.option("--tasks", default="ten,broad,pacs-photo", show_default=True, help="Of these and cifar100.")
@click.option("--shots", default="1,4,16", show_default=True)
@click.option("--count", default=12, show_default=True, help="Draws.")
def develop(model: str, data: str, tasks: str, shots: str, count: int) -> None:
    """Print points above the hand-written prompt on training pictures, mean and worst draw, for other settings."""
    bank, goal = load_bank("templates"), get_objective("xent")
    default = {name: getattr(phrase_choice, name) for name in GRID}
    for task in tasks.split(","):
        problem = open_problem(model, "pacs-photo" if task == "pacs-photo" else data)
        for k in map(int, shots.split(",")):
            gains: dict[str, list[float]] = {}
            plain = []
            for evaluator, outside, phrases in draws(problem, task, k, count):
                searcher = BeamSearch(bank, goal)
                chosen = Selection("posterior", bank, goal, whole=True).choose(
                    evaluator, search(searcher, evaluator).ranked, Repeat(None, bank, evaluator)
                )
                hand = evaluator.hits(PromptSet.of(BASELINE), outside).mean()
                plain.append(100 * hand)
                gains.setdefault("templates alone", []).append(evaluator.hits(chosen.prompt_set, outside).mean() - hand)
                for name, value in [("", 0.0), *((n, v) for n, values in GRID.items() for v in values)]:
                    if name and value == default[name]:
                        continue
                    with mock.patch.multiple(phrase_choice, **{**default, **({name: value} if name else {})}):
                        (found,) = phrase_choice.choose_phrases(
                            chosen.prompt_set, evaluator, phrases, (phrase_choice.PHRASES,)
                        )
                    row = f"{name} {value:g}" if name else "defaults"
                    gains.setdefault(row, []).append(evaluator.hits(found, outside).mean() - hand)
            click.echo(f"{task}, {k} shots, {count} draws: hand-written {np.mean(plain):.1f}")
            for row, values in gains.items():
                click.echo(f"  {row:18s} {100 * np.mean(values):+6.2f} ({100 * min(values):+.1f})")


@main.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--data", default="cifar10,cifar100,pacs-photo", show_default=True)
@click.option("--shots", default="1,4,16", show_default=True)
@click.option("--count", default=5, show_default=True, help="Draws.")
@click.option("--first", default=0, show_default=True, help="Seed of the first draw.")
@click.option("--transfer", "others", default="", help="Other data sets with the same classes, with commas between.")
@click.option("--fluency-lm", help="Language model that rates the winners beside the hand-written prompt.")
@click.option("--words", is_flag=True, help="Print every winner's templates and phrases.")
@click.option("--no-estimate", is_flag=True, help="Without the estimate: no guard, and no more than three phrases.")
def table(
    model: str,
    data: str,
    shots: str,
    count: int,
    first: int,
    others: str,
    fluency_lm: str | None,
    words: bool,
    no_estimate: bool,
) -> None:
    """Print test accuracies of `promptsearch beam` with its defaults, over several draws."""
    click.echo(
        "| data | shots | hand-written | winner | worst draw | templates | phrases | seconds |\n" + "|---" * 8 + "|"
    )
    for name in data.split(","):
        bank = load_bank("templates")
        for k in map(int, shots.split(",")):
            results, seconds = [], time.perf_counter()
            for seed in range(first, first + count):
                problem = open_problem(model, name)
                said = with_phrases(bank, "auto", problem)
                search_config = check_search(SearchConfig(shots=k, seed=seed), said)
                record = memory_run(problem, said, search_config)
                result = run_search(problem, said, record, estimate=not no_estimate)
                if others:
                    result = transfer(problem, record, result, open_targets(problem, others.split(",")))
                results.append(result)
                if words:
                    told = phrase_lines(result.winner.to_dict(), result.classes)
                    click.echo(f"  seed {seed}: {by_weight(result.winner.to_dict())}\n    " + "\n    ".join(told))
            seconds = (time.perf_counter() - seconds) / count
            rows = [(name, [(r.winner, r.baselines[0]) for r in results])]
            rows += [
                (f"{name} → {t.dataset}", [(r.transfers[i].winner, r.transfers[i].baselines[0]) for r in results])
                for i, t in enumerate(results[0].transfers)
            ]
            for at, pairs in rows:
                ours, theirs = (np.array([percent(p[side]) for p in pairs]) for side in (0, 1))
                largest = max(max(map(len, r.winner.phrases), default=1) if r.winner.phrases else 1 for r in results)
                click.echo(
                    f"| {at} | {k} | {theirs.mean():.2f} | {ours.mean():.2f} ({(ours - theirs).mean():+.2f}) | "
                    f"{(ours - theirs).min():+.2f} | ≤ {max(len(r.winner.templates) for r in results)} | "
                    f"≤ {largest} | {seconds:.1f} |"
                )
            if fluency_lm:
                rated = fluencies(problem, results, fluency_lm)
                click.echo(f"  fluency of the winners and of the hand-written prompt: {rated}")


def percent(row: Row) -> float:
    """A row's test accuracy."""
    assert row.test is not None  # these data sets have a test split
    return 100 * row.test.value


def fluencies(problem: Problem, results: Sequence[RunResult], lm: str) -> str:
    """Mean log-likelihood per token of what the winners and the hand-written prompt say in "a photo of a {}."."""
    place = locate(lm)
    rater = open_rater(FluencyConfig(place.name, place.fingerprint))
    rate = Fluency(rater.log_likelihood, problem.cache, dict(rater.key), problem.source.class_names)
    plain = PromptSet.of(BASELINE)
    ours = rate([plain.saying_as(r.winner.prompt_set) for r in results])
    (theirs,) = rate([plain])
    rate.close()
    return f"{np.mean(ours):.2f} (least {min(ours):.2f}), {theirs:.2f}"


@main.command()
@click.option("--phrases", default=10_000, show_default=True)
@click.option("--classes", default=100, show_default=True)
@click.option("--pictures", default=1_600, show_default=True)
@click.option("--dimensions", default=512, show_default=True)
def speed(phrases: int, classes: int, pictures: int, dimensions: int) -> None:
    """Print how long it takes to score every phrase of every class, text cached, and to mix them."""
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    owner = np.sort(np.concatenate([np.arange(classes), rng.integers(0, classes, phrases - classes)]))
    made = PhraseTable(
        unit(1, phrases, dimensions), owner, unit(pictures, dimensions), rng.integers(0, classes, pictures)
    )
    prior = -np.log(np.bincount(owner))[owner]  # (P,) all phrases of a class alike
    weights, times = np.exp(prior), []
    for _ in range(5):
        begin = time.perf_counter()
        made.worth(np.ones(1), weights, 30.0)
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    made.mix(np.zeros(1), prior, 30.0, temper=phrase_choice.TEMPER, refit=30.0)
    click.echo(
        f"{phrases:,} phrases of {classes} classes on {pictures:,} pictures, {dimensions} dimensions: scored in "
        f"{min(times):.3f} s ({phrases / min(times):,.0f} a second), mixed in {time.perf_counter() - begin:.2f} s"
    )


if __name__ == "__main__":
    main()
