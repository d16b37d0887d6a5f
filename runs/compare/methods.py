"""The methods of `promptsearch compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet, load_bank, load_phrases
from promptsearch.config import (
    OBJECTIVE,
    SEARCHER_OPTIONS,
    ClimbOptions,
    SearchConfig,
    TrialOptions,
    WriterConfig,
)
from promptsearch.errors import InputError
from promptsearch.evaluators.cache import digest_of
from promptsearch.runs.baselines.learners import (
    learn_class_names,
    learn_context,
    learn_context_restarted,
    project_words,
    prompt_pictures,
    sample_bank,
)
from promptsearch.runs.baselines.tip_adapter import cache_of
from promptsearch.runs.baselines.training_context import Row, Setting, Trained, set_row
from promptsearch.runs.open_run import resolved, with_phrases
from promptsearch.runs.pipeline import Job, LanguageTools, choose_winner, search_job
from promptsearch.runs.search_loop import Budget
from promptsearch.search import SEARCHERS, get_objective
from promptsearch.search.proposal_search import WritingSearcher
from promptsearch.search.proposers.language import AskedModel
from promptsearch.search.registry import own_options

#: WaffleCLIP's number of pairs of random-word and random-character descriptors (Roth et al. 2023).
WAFFLE_PAIRS = 15

#: Evaluations of `random-10k`, about as many as beam search needs on a bank of 270 templates.
MANY = 10_000

#: Factors of the learning rates of coop-text-tuned and names-tuned (benchmarks/learnt_rates.py).
TUNED = 4.0

#: Number of templates that `coop-sample` keeps.
SAMPLED = 4

#: Searchers that can use a language model; with one they are the methods climb-lm and evolve-lm.
WRITTEN_FOR = ("climb", "evolve")

#: Further options, besides the searcher's own, that identify the cells of a comparison.
COMPARED = {"climb": ClimbOptions}


@dataclass
class Found:
    """The result of a method on one draw.

    Attributes:
        rows: Class weights and texts; the rows after the first were decoded from it.
        evaluations: Number of prompt sets scored on the support set.
        steps: Number of steps of gradient descent.
        usage: The language model's calls, tokens read and tokens written.
        support: Features of the support set under a visual prompt, else None.
        tensors: Tensors that are needed besides the class weights to classify pictures.
        estimate: A search's own estimate of its accuracy on new pictures, by folds of the few shots.
    """

    rows: list[Row]
    evaluations: int = 0
    steps: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    support: np.ndarray | None = None
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    estimate: float | None = None


@dataclass(frozen=True)
class Method:
    """One method of a comparison.

        method = all_methods(load_bank("templates"), {})["coop"]
        found = method.find(setting)

    Attributes:
        name: Name of the method.
        about: What the method does, in a few words.
        find: Runs the method on a draw.
        readable: Whether its result consists of prompts that can be read.
        options: Everything besides draw, model and bank that the result depends on.
        seeds: Largest number of draws to run the method on; None for all draws.
        prompts_pictures: Whether the method changes pictures, and therefore needs them.
    """

    name: str
    about: str
    find: Callable[[Setting], Found]
    readable: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    prompts_pictures: bool = False


@dataclass(frozen=True)
class Writer:
    """The language model of methods that use one.

    Attributes:
        config: Everything that the model's answers depend on.
        open: Returns the model; called when the first such method runs.
    """

    config: WriterConfig
    open: Callable[[], AskedModel]


def all_methods(
    bank: Bank, searchers: Mapping[str, Mapping[str, Any]], trials: int = 200, writer: Writer | None = None
) -> dict[str, Method]:
    """Return all methods by name.

    Args:
        bank: The bank that methods average, search and sample.
        searchers: Options of each searcher, without the seed.
        trials: Number of trials of searchers that work in trials.
        writer: The language model of climb-lm and evolve-lm, which are left out without one.
    """
    from promptsearch.search.gradient import CoOpOptions, NamesOptions, PezOptions, SparseOptions, VptOptions

    made = [
        _fixed("hand-written", "a photo of a {}.", PromptSet.of(BASELINE)),
        _bank("clip-cifar", "CLIP's own 18 prompts for CIFAR, averaged", "openai-cifar"),
        _bank("clip-imagenet", "CLIP's own 80 prompts for ImageNet, averaged", "openai-imagenet"),
        _fixed("whole-bank", "all templates of the bank, averaged", PromptSet.of(*bank.templates)),
        Method("random-words", "random words and characters after the hand-written prompt, averaged", _waffle, False),
        _single(bank),
        Method("tip-adapter", "Tip-Adapter, training-free: the few shots as a cache beside the text", _cached, False),
    ]
    made += [_searched(name, name, bank, options, trials) for name, options in searchers.items()]
    if "beam" in searchers and "phrases" in searchers["beam"]:
        plain = {k: v for k, v in searchers["beam"].items() if not k.startswith("phrases")}
        made.append(_searched("beam-no-phrases", "beam", bank, plain, trials))
    if "random" in searchers:
        made.append(_searched("random-10k", "random", bank, searchers["random"], MANY))
    if writer is not None:
        made += [_searched(f"{n}-lm", n, bank, searchers[n], trials, writer) for n in WRITTEN_FOR if n in searchers]
    contexts = {
        "coop": ("CoOp, 16 vectors", CoOpOptions()),
        "coop-8": ("CoOp, 8 vectors", CoOpOptions(vectors=8)),
        "coop-4": ("CoOp, 4 vectors", CoOpOptions(vectors=4)),
        "coop-csc": ("CoOp, 16 vectors for every class", CoOpOptions(specific=True)),
        "coop-text": ("CoOp, from the words 'a photo of a'", CoOpOptions(init="a photo of a")),
        "kgcoop": ("KgCoOp, weight 8", CoOpOptions(kg=8.0)),
    }
    made += [
        _learned(name, about, options, lambda s, o=options: learn_context(s, o))  # type: ignore[misc]
        for name, (about, options) in contexts.items()
    ]
    made.append(
        _learned(
            "coop-restart",
            "CoOp, 16 vectors, from another start if the few-shot accuracy collapsed",
            CoOpOptions(),
            lambda s: learn_context_restarted(s, CoOpOptions()),
        )
    )
    made += _tuned()
    hull, sparse = CoOpOptions(hull=8.0), SparseOptions(min(SAMPLED, len(bank.templates)))
    made += [
        _learned("coop-hull", "CoOp pulled to the bank's hull, weight 8", hull, lambda s: learn_context(s, hull, bank)),
        _learned(
            "coop-sample",
            f"{sparse.size} templates of the bank, weighted, learnt by gradient",
            sparse,
            lambda s: sample_bank(s, sparse, bank),
            readable=True,
        ),
        _learned(
            "names", "class names learnt (LTNC-style)", NamesOptions(), lambda s: learn_class_names(s, NamesOptions())
        ),
        _learned("pez", "PEZ, 16 words, 3000 steps", PezOptions(), lambda s: project_words(s, PezOptions())),
    ]
    for kind, about in {
        "border": "learnt border",
        "shallow": "tokens at the input",
        "deep": "tokens at every layer",
    }.items():
        options = VptOptions(kind)
        name = "vpt" if kind == "border" else f"vpt-{kind}"
        made.append(
            _learned(
                name,
                f"visual prompt: {about}",
                options,
                lambda s, o=options: prompt_pictures(s, o),  # type: ignore[misc]
                prompts_pictures=True,
            )
        )
    return {m.name: m for m in made}


def choose_methods(known: Mapping[str, Method], spec: str) -> dict[str, Method]:
    """Choose methods by a list such as "all", "beam,coop" or "all,pez:1,vpt:0".

    A number after a colon is the largest number of draws; 0 leaves the method out.

    Args:
        known: All methods by name.
        spec: The list.

    Raises:
        InputError: A method is unknown, a number is invalid, or no method is left.
    """
    chosen: dict[str, Method] = {}
    for part in spec.replace(",", " ").split():
        name, colon, count = part.partition(":")
        if colon and not count.isdecimal():
            raise InputError(f"--methods {part}: give a number of draws after the colon, e.g. {name}:1")
        if name == "all":
            names = list(known)
        elif name in known:
            names = [name]
        else:
            raise InputError(f"--methods {name}: unknown method; choose from all, {', '.join(known)}")
        for n in names:
            chosen[n] = replace(known[n], seeds=int(count) if colon else None)
    chosen = {name: m for name, m in chosen.items() if m.seeds != 0}
    if not chosen:
        raise InputError(f"--methods {spec!r}: names no method; choose from all, {', '.join(known)}")
    return {name: chosen[name] for name in known if name in chosen}


def _fixed(name: str, about: str, prompt_set: PromptSet) -> Method:
    options = {"templates": prompt_set.size, "digest": str(hash_of(prompt_set))}
    return Method(name, about, lambda s: Found([set_row(s, "", prompt_set)]), options=options)


def _bank(name: str, about: str, spec: str) -> Method:
    """Return the method that averages a built-in bank, which is loaded when it is first used."""
    return Method(
        name, about, lambda s: Found([set_row(s, "", PromptSet.of(*load_bank(spec).templates))]), options={"bank": spec}
    )


def _single(bank: Bank) -> Method:
    def find(setting: Setting) -> Found:
        objective = get_objective("xent")
        singles = [PromptSet.of(t) for t in bank.templates]
        scores = setting.evaluator.score(singles)
        best = max(range(len(singles)), key=lambda i: (objective(scores[i]), -i))
        return Found([set_row(setting, "", singles[best])], len(singles))

    return Method("single", "the bank's best single template on the few shots", find, options={"objective": "xent"})


def _searched(
    name: str, command: str, bank: Bank, options: Mapping[str, Any], trials: int, writer: Writer | None = None
) -> Method:
    """Return the method that runs the pipeline's search and choice on each draw."""
    own = dict(options)
    if writer is not None:
        own = {k: v for k, v in own.items() if k != "proposer"} | writer.config.to_dict()

    def find(setting: Setting) -> Found:
        task = setting.task
        config = SearchConfig(
            command,
            task.shots,
            task.seed,
            objective=options["objective"],
            select=options.get("select") or "auto",
            writer=None if writer is None else writer.config,
            options={k: v for k, v in options.items() if k not in ("objective", "select", "phrases", "phrases hash")},
        )
        language = LanguageTools(None if writer is None else writer.open)
        said = with_phrases(bank, options.get("phrases", "none"), setting.problem)
        job = Job(setting.problem, setting.evaluator, said, resolved(config), language=language, budget=Budget(trials))
        if job.by_trials:
            job = replace(job, start=(PromptSet.of(BASELINE),))
        searcher, outcome = search_job(job)
        chosen, expected = choose_winner(job, searcher, outcome)
        usage = searcher.reported()["usage"] if isinstance(searcher, WritingSearcher) else {}
        estimate = None if expected is None else expected.accuracy.value
        return Found([set_row(setting, "", chosen.prompt_set)], outcome.evaluations, usage=usage, estimate=estimate)

    budget = {"trials": trials} if command != "beam" else {}
    about = f"{command} search" if writer is None else f"{command} search, a language model writes"
    return Method(name, about, find, options={**own, **budget})


def searcher_options(given: Mapping[str, Any], phrases: str = "none") -> dict[str, dict[str, Any]]:
    """Return the options of every searcher in a comparison, with the default objective and no language model.

    Args:
        given: Options to use instead of the defaults, for searchers that have them.
        phrases: Phrases that are chosen for what a searcher finds, as for `with_phrases`.
    """
    found: dict[str, dict[str, Any]] = {}
    said = {} if phrases == "none" else {"phrases": phrases}
    if phrases not in ("none", "auto"):  # a file may change, so its contents are part of a cell's identity
        said["phrases hash"] = load_phrases(phrases).hash[:16]
    for name in SEARCHERS.loaded():
        if name not in SEARCHER_OPTIONS:
            own = {**asdict(TrialOptions()), "objective": OBJECTIVE, **own_options(name)}
            found[name] = {**own, **given, **said}
            continue
        defaults = asdict(COMPARED.get(name, SEARCHER_OPTIONS[name])())
        if name == "evolve":  # otherwise its prompts would depend on the language model available on this machine
            defaults |= {"proposer": "grammar", "generations": None}
        found[name] = {k: given.get(k, v) for k, v in defaults.items()}
        found[name] |= {"select": given.get("select"), "objective": given.get("objective", OBJECTIVE)}
        found[name] |= said
    return found


def _learned(
    name: str,
    about: str,
    options: Any,
    train: Callable[[Setting], Trained],
    readable: bool = False,
    prompts_pictures: bool = False,
) -> Method:
    def find(setting: Setting) -> Found:
        trained = train(setting)
        # Leave out texts decoded by the other metric and mixtures before sampling, which the methods' own commands
        # show.
        shown = [r for r in trained.others if r.readable or "cosine" in r.name]
        tensors = trained.learned.tensors if prompts_pictures else {}
        evaluations = 0 if readable or name != "pez" else trained.learned.steps
        return Found(
            [trained.winner, *shown],
            evaluations,
            trained.learned.steps,
            support=trained.support,
            tensors=dict(tensors),
        )

    # "start" tells these cells from those of earlier versions, whose starts depended on the draw's seed alone.
    known = {**asdict(options), "start": "own"}
    return Method(name, about, find, readable, known, prompts_pictures=prompts_pictures)


def _tuned() -> list[Method]:
    """Return CoOp from words and learnt names with the learning rate that was chosen on development pictures."""
    from promptsearch.search.gradient import CoOpOptions, NamesOptions, Schedule, published_epochs
    from promptsearch.search.gradient.names import RATE

    context, names = CoOpOptions(init="a photo of a"), NamesOptions()
    rates = {"coop-text-tuned": TUNED * Schedule.rate, "names-tuned": TUNED * RATE}

    def learn(setting: Setting) -> Trained:
        schedule = Schedule(published_epochs(setting.task.shots), rates["coop-text-tuned"])
        return learn_context(setting, replace(context, schedule=schedule))

    def learn_names(setting: Setting) -> Trained:
        epochs = published_epochs(setting.task.shots)
        schedule = Schedule(epochs, rates["names-tuned"], momentum=0.0, weight_decay=0.0)
        return learn_class_names(setting, replace(names, schedule=schedule))

    found = [
        _learned("coop-text-tuned", f"coop-text at {TUNED:g} times the learning rate", context, learn),
        _learned("names-tuned", f"names at {TUNED:g} times the learning rate", names, learn_names),
    ]
    return [replace(m, options={**m.options, "rate": rates[m.name]}) for m in found]


def _cached(setting: Setting) -> Found:
    """Return the hand-written prompt with a cache of the few shots (Tip-Adapter)."""
    support = setting.task.support
    return Found([set_row(setting, "", PromptSet.of(BASELINE))], tensors=cache_of(support.features, support.labels))


def _waffle(setting: Setting) -> Found:
    """Run WaffleCLIP's control: the same random descriptors for every class, drawn anew for every seed."""
    prompt_set = PromptSet.of(*random_templates(list(setting.tools.words.texts.values()), setting.task.seed))
    return Found([set_row(setting, "", prompt_set)])


def random_templates(vocabulary: list[str], seed: int, pairs: int = WAFFLE_PAIRS) -> list[str]:
    """Return templates "a photo of a {}, which has WORD WORD." with random words, and as many with random characters.

    Args:
        vocabulary: Words to choose from.
        seed: Seed of the draw.
        pairs: Number of templates of each kind.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7]))
    words = sorted({w for w in vocabulary if w.isalpha() and w.islower() and 3 <= len(w) <= 10})
    made: dict[str, None] = {}
    while len(made) < 2 * pairs:
        said = " ".join(words[int(i)] for i in rng.integers(len(words), size=2))
        lengths = [len(w) for w in said.split()]
        letters = " ".join("".join(chr(97 + int(c)) for c in rng.integers(26, size=n)) for n in lengths)
        made[f"a photo of a {{}}, which has {said}."] = None
        made[f"a photo of a {{}}, which has {letters}."] = None
    return list(made)[: 2 * pairs]


def hash_of(prompt_set: PromptSet) -> str:
    """Return a short hash of a set's templates that is the same on every machine."""
    return digest_of([str(t) for t in prompt_set.templates])[:12]
