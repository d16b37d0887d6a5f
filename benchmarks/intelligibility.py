"""What does intelligibility cost?  Accuracy and fluency of every searcher's winners as the weight of fluency grows.

    python benchmarks/intelligibility.py                 # the test half
    python benchmarks/intelligibility.py --held-out      # held-out training pictures, other seeds
    python benchmarks/intelligibility.py --model zeroshot --data cifar10 --lm smollm2    # a real language model

Every finished run is a line of --out, and a line that is there is not run again.  Fluency is that of --lm, in nats per
token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from evolve import play  # type: ignore[import-not-found]
from searchers import CONDITIONS, held_out, interval  # type: ignore[import-not-found]

from promptsearch.banks import BASELINE, PromptSet, load_bank
from promptsearch.evaluators import Evaluator, Problem, open_problem
from promptsearch.evaluators.fluency import Fluency
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.runs import search
from promptsearch.runs.search_loop import writing_tools
from promptsearch.search import (
    BeamSearch,
    EvolveSearch,
    HillClimb,
    RandomSearch,
    Space,
    TpeSearch,
    WritingSearcher,
    of_options,
)
from promptsearch.search.proposers.language import LanguageProposer

SEARCHERS = ("beam", "random", "climb", "tpe", "evolve --proposer grammar", "evolve")


def rated(problem: Problem, evaluator: Evaluator, model: LocalModel) -> Evaluator:
    """The evaluator, with fluency in its scores."""
    names = evaluator.task.class_names
    key = {"lm": model.fingerprint, "device": "cpu"}
    evaluator.fluency = Fluency(model.log_likelihood, problem.cache, key, names)
    return evaluator


def winner(name: str, weight: float, problem: Problem, evaluator: Evaluator, given: dict[str, Any]) -> PromptSet:
    """What one searcher finds with one weight of fluency."""
    space, seed, evaluations = given["space"], given["seed"], given["evaluations"]
    objective = of_options({"objective": "xent", "fluency_weight": weight})
    if name == "beam":
        return search(BeamSearch(space.bank, objective, width=8, depth=space.ensemble, patience=2), evaluator).winner[0]
    made: Any
    if name.startswith("evolve"):
        made = EvolveSearch(space, objective, seed=seed)
    else:
        kinds: dict[str, Any] = {"random": RandomSearch, "climb": HillClimb, "tpe": TpeSearch}
        made = kinds[name](space, objective, seed=seed, batch=4)
    if isinstance(made, WritingSearcher):
        proposer = None if name.endswith("grammar") else LanguageProposer(given["model"], evaluator.task.class_names)
        made.equip(writing_tools(evaluator, problem.encoder, proposer=proposer))
    play(made, evaluator, evaluations)
    return made.best[0]


def table(rows: list[dict[str, Any]], weights: list[float]) -> None:
    """Means, and for each searcher the accuracy lost against its own run without a weight, on the same draws."""
    click.echo("| searcher | weight | accuracy | against weight 0 | fluency | words | winners |")
    click.echo("|---|---|---|---|---|---|---|")
    for name in ("hand-written", *SEARCHERS):
        mine = {(r["weight"], r["condition"], r["seed"]): r for r in rows if r["searcher"] == name}
        common = sorted({k[1:] for k in mine})
        for weight in weights if name != "hand-written" else [0.0]:
            at = [k for k in common if (weight, *k) in mine and (0.0, *k) in mine]
            if len(at) < 2:
                continue
            some = [mine[(weight, k[0], k[1])] for k in at]
            lost = np.array([mine[(weight, k[0], k[1])]["accuracy"] - mine[(0.0, k[0], k[1])]["accuracy"] for k in at])
            example = max((r["templates"][0] for r in some), key=[r["templates"][0] for r in some].count)
            click.echo(
                f"| {name} | {weight:g} | {np.mean([r['accuracy'] for r in some]):.2f} "
                f"| {interval(lost) if weight else ''} | {np.mean([r['fluency'] for r in some]):.2f} "
                f"| {np.mean([r['words'] for r in some]):.1f} | {example} |"
            )
    click.echo(f"\n{len({(r['condition'], r['seed']) for r in rows})} draws")


@click.command()
@click.option("--held-out", "tune", is_flag=True)
@click.option("--seeds", default=5)
@click.option("--shots", default=16)
@click.option("--evaluations", default=200)
@click.option("--ensemble", default=1)
@click.option("--bank", default="templates")
@click.option("--weights", default="0,0.03,0.1,0.3")
@click.option("--only", multiple=True, help="Only these searchers.")
@click.option("--model", default="zeroshot", help="The model that is prompted.")
@click.option("--data", multiple=True, default=CONDITIONS, show_default=True, help="Data sets or conditions.")
@click.option("--lm", default=EMBEDDED, show_default=True, help="The language model that rates fluency, and writes.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="intelligibility.jsonl")
def main(
    tune: bool,
    seeds: int,
    shots: int,
    evaluations: int,
    ensemble: int,
    bank: str,
    weights: str,
    only: tuple[str, ...],
    model: str,
    data: tuple[str, ...],
    lm: str,
    out: Path,
) -> None:
    rater = LocalModel(locate(lm))
    given: dict[str, Any] = {"space": Space(load_bank(bank), ensemble), "evaluations": evaluations, "model": rater}
    numbers = [float(w) for w in weights.split(",")]
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    known = {(r["searcher"], r["weight"], r["condition"], r["seed"]) for r in rows}
    first = 100 if tune else 0
    problems = [open_problem(model, d) for d in data]
    with out.open("a") as file:
        for seed in range(first, first + seeds):
            for problem in problems:
                evaluator, pictures = held_out(problem, seed, shots, tune)
                rated(problem, evaluator, rater)
                for name in ("hand-written", *(only or SEARCHERS)):
                    for weight in numbers if name != "hand-written" else [0.0]:
                        if (name, weight, problem.source.name, seed) in known:
                            continue
                        found = PromptSet.of(BASELINE)
                        if name != "hand-written":
                            found = winner(name, weight, problem, evaluator, {**given, "seed": seed})
                        score = evaluator.score([found])[0]
                        row = {
                            "searcher": name,
                            "weight": weight,
                            "condition": problem.source.name,
                            "seed": seed,
                            "xent": score.xent,
                            "fluency": score.fluency,
                            "accuracy": 100 * float(evaluator.hits(found, pictures).mean()),
                            "words": sum(len(t.split()) for t in found.templates),
                            "templates": [str(t) for t in found.templates],
                        }
                        rows.append(row)
                        file.write(json.dumps(row) + "\n")
                        file.flush()
    judged = "held-out training pictures" if tune else "test half"
    click.echo(f"bank {bank}, sets of up to {ensemble}, {shots} shots, {evaluations} evaluations, {judged}\n")
    table(rows, numbers)


if __name__ == "__main__":
    main()
