"""Does a language model help?  Evolution and climbing with the embedded one, with the bank's words, and random search.

    python benchmarks/evolve.py                   # 10 seeds, 300 evaluations, degraded conditions, the test half
    python benchmarks/evolve.py --tune            # options, on other seeds and on held-out training pictures
    python benchmarks/evolve.py --overlap         # is the model or the writing waited for?  RN50's text tower
    python benchmarks/evolve.py --model zeroshot --data cifar10 --lm smollm2      # a real language model

Every finished run is a line of --out, and a line that is there is not run again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from searchers import CONDITIONS, held_out, interval  # type: ignore[import-not-found]

from promptsearch.banks import Bank, PromptSet, Template, load_bank
from promptsearch.banks.template import BASELINE
from promptsearch.evaluators import Problem, open_problem
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.runs import search
from promptsearch.runs.search_loop import writing_tools
from promptsearch.search import (
    AskClimb,
    BeamSearch,
    EvolveSearch,
    RandomSearch,
    Space,
    Survival,
    Tools,
    TrialSearcher,
    get_objective,
)
from promptsearch.search.proposers import Proposer
from promptsearch.search.proposers.fill import FillProposer
from promptsearch.search.proposers.language import LanguageProposer

Make = Callable[[Space, int], TrialSearcher]


def evolve(**options: Any) -> Make:
    return lambda space, seed: EvolveSearch(space, get_objective("xent"), seed=seed, **options)


FIXED = ("hand-written", "beam")
COMPARED: dict[str, tuple[Make, bool]] = {  # and whether the language model writes
    "random": (lambda space, seed: RandomSearch(space, get_objective("xent"), seed=seed, batch=8), False),
    "evolve --proposer grammar": (evolve(), False),
    "evolve": (evolve(), True),
    "evolve --proposer fill": (evolve(), True),
    "climb --lm, by the bank's words": (lambda space, seed: AskClimb(space, get_objective("xent"), seed=seed), False),
    "climb --lm": (lambda space, seed: AskClimb(space, get_objective("xent"), seed=seed), True),
}
TUNED: dict[str, tuple[Make, bool]] = {
    "random": COMPARED["random"],
    **{f"crowding {c}": (evolve(survival=Survival(crowding=c)), False) for c in (0.99, 0.999, 0.9999, 1.0)},
    "crowding 1.0, population 8": (evolve(survival=Survival(crowding=1.0), population=8, batch=4), False),
    "crowding 0.999, population 8": (evolve(population=8, batch=4), False),
}


def play(searcher: TrialSearcher, evaluator: Any, evaluations: int) -> dict[str, float]:
    """Search; seconds spent asking (waiting for what is written), and scoring."""
    searcher.total = evaluations
    asking = scoring = 0.0
    while searcher.trials < evaluations:
        start = time.perf_counter()
        batch = searcher.ask()[: evaluations - searcher.trials]
        asking += time.perf_counter() - start
        if not batch:
            break
        start = time.perf_counter()
        scores = evaluator.score(batch)
        scoring += time.perf_counter() - start
        searcher.tell(list(zip(batch, scores, strict=True)))
    return {"asking": round(asking, 2), "scoring": round(scoring, 2)}


def run_one(
    name: str,
    make: tuple[Make, bool],
    space: Space,
    problem: Problem,
    seed: int,
    given: dict[str, Any],
    model: LocalModel,
) -> dict[str, Any]:
    evaluator, pictures = held_out(problem, seed, given["shots"], given["tune"])
    searcher = make[0](space, seed)
    proposer: Proposer | None = None
    if make[1]:
        names = evaluator.task.class_names
        proposer = FillProposer(model, names) if "fill" in name else LanguageProposer(model, names)
    if isinstance(searcher, (EvolveSearch, AskClimb)):
        searcher.equip(writing_tools(evaluator, problem.encoder, proposer=proposer))
    seconds = play(searcher, evaluator, given["evaluations"])
    assert searcher.best is not None
    winner, score = searcher.best
    reported = searcher.reported() if isinstance(searcher, (EvolveSearch, AskClimb)) else {}
    origins = [(s, searcher.notes(s).get("origin")) for s in searcher.known]
    return {
        "searcher": name,
        "condition": problem.source.name,
        "seed": seed,
        "xent": score.xent,
        "accuracy": 100 * float(evaluator.hits(winner, pictures).mean()),
        "classes": list(evaluator.task.class_names),
        "outside": sum(t not in set(space.bank.templates) for t in winner.templates),
        "templates": [str(t) for t in winner.templates],
        "proposals": reported,
        "written": [[o["kind"], o["parents"], str(s.templates[0])] for s, o in origins if o is not None],
        **seconds,
    }


def fixed(name: str, problem: Problem, seed: int, given: dict[str, Any], bank: Bank) -> dict[str, Any]:
    """A row of a method without trials: the hand-written prompt, or beam search over the whole bank."""
    evaluator, pictures = held_out(problem, seed, given["shots"], given["tune"])
    winner, start = PromptSet.of(BASELINE), time.perf_counter()
    if name == "beam":
        winner = search(BeamSearch(bank, get_objective("xent")), evaluator).winner[0]
    scoring = time.perf_counter() - start
    return {
        "searcher": name,
        "condition": problem.source.name,
        "seed": seed,
        "xent": evaluator.score([winner])[0].xent,
        "accuracy": 100 * float(evaluator.hits(winner, pictures).mean()),
        "classes": list(evaluator.task.class_names),
        "outside": 0,
        "templates": [str(t) for t in winner.templates],
        "asking": 0.0,
        "scoring": round(scoring, 2),
    }


def overlap(evaluations: int, bank: str) -> None:
    """How long asking waits for the language model while RN50's text tower (random weights) encodes."""
    from promptsearch.evaluators import default_cache, resolve_model
    from promptsearch.evaluators.encoding.encoder import Encoder

    class Encoding:
        """Scores by nothing, after encoding every text that is new."""

        def __init__(self) -> None:
            self.encoder = Encoder(resolve_model("RN50:random", default_cache()), default_cache())
            self.encoder.encode_texts(["warm up"])
            self.rng = np.random.default_rng(0)

        def score(self, sets: list[PromptSet]) -> list[Any]:
            from promptsearch.evaluators import Score

            self.encoder.text_encoder.encode([t.fill(n) for s in sets for t in s.templates for n in NAMES])
            return [Score(float(self.rng.random()), float(self.rng.random())) for _ in sets]

    NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    searcher = EvolveSearch(Space(load_bank(bank)), get_objective("xent"))
    model = LocalModel(locate(EMBEDDED)).load()
    writing = [0.0]

    class Timed:
        def propose(self, requests: Any, seed: int) -> list[str]:
            start = time.perf_counter()
            replies = LanguageProposer(model).propose(requests, seed)
            writing[0] += time.perf_counter() - start
            return replies

    searcher.equip(Tools(Timed(), NAMES))
    spent = play(searcher, Encoding(), evaluations)
    click.echo(f"{evaluations} evaluations: {spent['scoring']} s encoding, {writing[0]:.2f} s writing, of which "
               f"{spent['asking']} s were waited for")  # fmt: skip


def table(rows: list[dict[str, Any]], names: list[str], model: LocalModel) -> None:
    """Means over all runs that every searcher has finished, and paired differences."""
    for r in rows:
        texts = [Template(t).fill(n) for t in r["templates"] for n in r["classes"]]
        likelihood, tokens = model.log_likelihood(texts).T
        r["fluency"] = float((likelihood / tokens).mean())
    done = {n: {(r["condition"], r["seed"]): r for r in rows if r["searcher"] == n} for n in names}
    common = sorted(set.intersection(*(set(d) for d in done.values())))
    conditions = sorted({c for c, _ in common})
    click.echo(f"{len(common)} runs each: seeds {sorted({s for _, s in common})}\n")
    click.echo("| condition | searcher | few-shot cross-entropy | accuracy | against random | fluency | new |")
    click.echo("|---|---|---|---|---|---|---|")
    for condition in [*conditions, "all"]:
        at = [k for k in common if condition in ("all", k[0])]
        if len(at) < 2:
            continue
        for n in names:
            some = [done[n][k] for k in at]
            against = np.array([done[n][k]["accuracy"] - done["random"][k]["accuracy"] for k in at])
            click.echo(
                f"| {condition} | {n} | {np.mean([r['xent'] for r in some]):.4f} "
                f"| {np.mean([r['accuracy'] for r in some]):.2f} | {'' if n == 'random' else interval(against)} "
                f"| {np.mean([r['fluency'] for r in some]):.2f} | {np.mean([r['outside'] > 0 for r in some]):.0%} |"
            )
    grammar, words = "evolve --proposer grammar", "climb --lm, by the bank's words"
    pairs = [("evolve", grammar), ("evolve", "random"), (grammar, "random"), ("climb --lm", words)]
    pairs += [("evolve", "beam"), ("evolve --proposer fill", grammar), ("evolve --proposer fill", "evolve")]
    for a, b in [*pairs, ("climb --lm", "random"), (words, "random"), ("climb --lm", "evolve")]:
        if a in done and b in done:
            for key in ("accuracy", "xent"):
                difference = np.array([done[a][k][key] - done[b][k][key] for k in common])
                click.echo(f"\n{a} against {b}, {key}: {interval(difference)}")
    for n in names:
        some = [done[n][k] for k in common]
        asked, scored = (np.mean([r[k] for r in some]) for k in ("asking", "scoring"))
        click.echo(f"\n{n}: {asked:.1f} s asking, {scored:.1f} s scoring a run")


@click.command()
@click.option("--tune", is_flag=True)
@click.option("--overlap", "overlapping", is_flag=True)
@click.option("--seeds", default=10)
@click.option("--first", type=int, help="The first seed.")
@click.option("--shots", default=16)
@click.option("--evaluations", default=300)
@click.option("--ensemble", default=1)
@click.option("--bank", default="templates")
@click.option("--only", multiple=True, help="Only these searchers.")
@click.option("--model", default="zeroshot", help="The model that is prompted.")
@click.option("--data", multiple=True, default=CONDITIONS, show_default=True, help="Data sets or conditions.")
@click.option("--lm", default=EMBEDDED, show_default=True, help="The language model that writes, and rates fluency.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="evolve.jsonl")
def main(
    tune: bool,
    overlapping: bool,
    seeds: int,
    first: int | None,
    shots: int,
    evaluations: int,
    ensemble: int,
    bank: str,
    only: tuple[str, ...],
    model: str,
    data: tuple[str, ...],
    lm: str,
    out: Path,
) -> None:
    if overlapping:
        return overlap(min(evaluations, 64), bank)
    makers = {k: m for k, m in (TUNED if tune else COMPARED).items() if not only or k in only}
    names = [*(n for n in FIXED if not tune and (not only or n in only)), *makers]
    given = {"tune": tune, "shots": shots, "evaluations": evaluations}
    space, writer = Space(load_bank(bank), ensemble), LocalModel(locate(lm))
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    known = {(r["searcher"], r["condition"], r["seed"]) for r in rows}
    problems = [open_problem(model, d) for d in data]
    first = first if first is not None else 100 if tune else 0
    with out.open("a") as file:
        for seed in range(first, first + seeds):
            for problem in problems:
                for name in names:
                    if (name, problem.source.name, seed) in known:
                        continue
                    if name in makers:
                        rows.append(run_one(name, makers[name], space, problem, seed, given, writer))
                    else:
                        rows.append(fixed(name, problem, seed, given, space.bank))
                    file.write(json.dumps(rows[-1]) + "\n")
                    file.flush()
    judged = "held-out training pictures" if tune else "test half"
    click.echo(f"bank {bank}, sets of up to {ensemble}, {shots} shots, {evaluations} evaluations, {judged}")
    table(rows, names, writer)
    written = [w for r in rows if r["searcher"] == "evolve" for w in r.get("written", [])]
    click.echo("\nTwenty proposals of evolve, drawn at random:\n")
    for i in np.random.default_rng(0).permutation(len(written))[:20]:
        kind, parents, template = written[i]
        click.echo(f"    {kind}: {' / '.join(parents) or '(history)'} -> {template}")
    return None


if __name__ == "__main__":
    main()
