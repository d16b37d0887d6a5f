"""Which objective should beam search use?  Draws x shots x conditions on the shipped feature pack.

    python benchmarks/beam_objective.py --draws 10 --json beam_objective.json

For every draw the same pictures go to each objective.  Prints, per condition and number of shots, the mean test
accuracy (and standard deviation over draws) of the winner under each objective, of the best single template on the
support set, of "a photo of a {}." and of the whole bank averaged, and in how many draws the winner beats the
hand-written prompt.  The pool of training pictures is what is drawn from; with --held-out the comparison is made on
the pool's other pictures instead of the test half: that is what defaults are chosen by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet, load_bank
from promptsearch.evaluators import Evaluator, Problem, Split, Task, open_problem
from promptsearch.runs import search
from promptsearch.search import BeamSearch, get_objective

#: The two that were compared when beam's default was chosen; docs/objectives.md has all.
COMPARED = ("accuracy", "xent")


def compare(evaluator: Evaluator, bank: Bank, judge: Split, options: dict[str, Any]) -> dict[str, float]:
    """Accuracy on `judge` of each objective's winner and of the baselines, for one draw."""
    singles = [PromptSet.of(t) for t in bank.templates]
    scores = evaluator.score(singles)
    found = {}
    for name in COMPARED:
        objective = get_objective(name)
        found[f"beam, {name}"] = search(BeamSearch(bank, objective, **options), evaluator).winner[0]
        best = max(range(len(singles)), key=lambda i: objective(scores[i]))
        found[f"best single, {name}"] = singles[best]
    found["hand-written"] = PromptSet.of(BASELINE)
    found["whole bank"] = PromptSet.of(*bank.templates)
    return {k: float(evaluator.hits(s, judge).mean()) for k, s in found.items()}


@click.command()
@click.option("--bank", "bank_spec", default="templates", show_default=True)
@click.option("--datasets", default="cifar100,pacs-photo", show_default=True)
@click.option("--shots", default="1,4,16", show_default=True)
@click.option("--draws", default=10, show_default=True)
@click.option("--width", default=8, show_default=True)
@click.option("--depth", default=6, show_default=True)
@click.option("--patience", default=2, show_default=True)
@click.option("--held-out", is_flag=True, help="Judge by the pool's other training pictures, not by the test half.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(
    bank_spec: str,
    datasets: str,
    shots: str,
    draws: int,
    width: int,
    depth: int,
    patience: int,
    held_out: bool,
    json_file: Path | None,
) -> None:
    bank = load_bank(bank_spec)
    options = {"width": width, "depth": depth, "patience": patience}
    rows = []
    for dataset in datasets.split(","):
        problem = open_problem("zeroshot", dataset)
        for k in map(int, shots.split(",")):
            results: list[dict[str, float]] = []
            for seed in range(draws):
                task = problem.task(k, seed)
                judge = _others(problem, task) if held_out else task.open_test()
                results.append(compare(problem.evaluator(task), bank, judge, options))
            row: dict[str, object] = {"dataset": dataset, "shots": k}
            for name in results[0]:
                values = 100 * np.array([r[name] for r in results])
                row[name] = {"mean": round(float(values.mean()), 2), "sd": round(float(values.std(ddof=1)), 2)}
            for name in COMPARED:
                row[f"wins, {name}"] = sum(r[f"beam, {name}"] > r["hand-written"] for r in results)
            rows.append(row)
            if len(rows) == 1:
                click.echo("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
            click.echo("| " + " | ".join(_cell(v) for v in row.values()) + " |")
    if json_file:
        json_file.write_text(json.dumps({"draws": draws, "held_out": held_out, **options, "rows": rows}, indent=1))


def _others(problem: Problem, task: Task) -> Split:
    """The pool's pictures that were not drawn."""
    labels, indices = problem.source.labels("train")
    drawn = np.concatenate([task.support.indices, task.validation.indices])
    rest = np.flatnonzero(~np.isin(indices, drawn))
    return Split(problem.source.features("train", rest), labels[rest], indices[rest])


def _cell(value: object) -> str:
    return f"{value['mean']:.2f} ± {value['sd']:.2f}" if isinstance(value, dict) else str(value)


if __name__ == "__main__":
    main()
