"""From vectors to words: how accurate and how fluent are learnt vectors, their nearest words, a bank, a language model?

    python benchmarks/readable.py --model zeroshot --data cifar10 --data cifar100 --data ./pacs-photo --seeds 3

For each data set and draw, through the commands as they are: CoOp's vectors, the words nearest to them, the best
template of the bank by random search, and the best that evolution with a language model wrote, all on the same few
shots and the same test pictures.  Fluency is the language model's, in nats per token, of the prompts filled with the
class names.  Every finished run is a line of --out, and a line that is there is not run again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner
from searchers import interval  # type: ignore[import-not-found]

from promptsearch.banks import Template
from promptsearch.cli import main as cli
from promptsearch.lm import LocalModel, locate

#: Rows of the table, in the order of the question.
ROWS = ("hand-written", "learnt vectors (CoOp)", "their nearest words", "chosen from the bank", "written by the model")


def command(*args: str) -> dict[str, Any]:
    """The JSON result of a command.

    Raises:
        ClickException: it failed.
    """
    done = CliRunner().invoke(cli, [*args, "--json", "--quiet"])
    if done.exit_code:
        raise click.ClickException(f"{' '.join(args)}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def rows_of(kind: str, problem: list[str], lm: str, trials: int) -> dict[str, dict[str, Any]]:
    """{row: {"accuracy" in per cent, "templates", "classes"}} of one command on one draw."""
    if kind == "coop":
        result = command("coop", *problem)
        found = {ROWS[1]: result["winner"], ROWS[2]: result["decoded"][0]}
    elif kind == "bank":
        result = command("random", *problem, "--trials", str(trials), "--select", "none")
        found = {ROWS[0]: result["baselines"][0], ROWS[3]: result["winner"]}
    else:
        result = command("evolve", *problem, "--trials", str(trials), "--select", "none", "--lm", lm)
        found = {ROWS[4]: result["winner"]}
    return {
        name: {
            "accuracy": 100 * row["test"]["accuracy"],
            "templates": list(row.get("templates") or []),
            "classes": list(row.get("class_names") or result.get("classes") or []),
        }
        for name, row in found.items()
    }


def table(kept: list[dict[str, Any]], model: LocalModel, classes: dict[str, list[str]]) -> None:
    """Accuracy and fluency of each row on each data set: means over the draws that have them all."""
    click.echo("| data set | prompts | accuracy | against hand-written | fluency | of draw 0 |")
    click.echo("|---|---|---|---|---|---|")
    for data in dict.fromkeys(r["data"] for r in kept):
        by = {(r["row"], r["seed"]): r for r in kept if r["data"] == data}
        seeds = [s for s in sorted({s for _, s in by}) if all((name, s) in by for name in ROWS)]
        for name in ROWS if seeds else ():
            some = [by[name, s] for s in seeds]
            lost = np.array([by[name, s]["accuracy"] - by[ROWS[0], s]["accuracy"] for s in seeds])
            rated = ""
            if name != ROWS[1]:
                texts = [Template(t).fill(n) for r in some for t in r["templates"] for n in classes[data]]
                likelihood, tokens = model.log_likelihood(texts).T
                rated = f"{(likelihood / tokens).mean():.2f}"
            shown = "(no words)" if name == ROWS[1] else some[0]["templates"][0]
            accuracy = np.mean([r["accuracy"] for r in some])
            against = "" if name == ROWS[0] else interval(lost)
            click.echo(f"| {data} | {name} | {accuracy:.2f} | {against} | {rated} | {shown} |")
        click.echo(f"{data}: {len(seeds)} draws", err=True)


@click.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--data", multiple=True, default=("cifar10",), show_default=True)
@click.option("--lm", default="smollm2", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--shots", default=16, show_default=True)
@click.option("--trials", default=300, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="readable.jsonl")
def main(model: str, data: tuple[str, ...], lm: str, seeds: int, shots: int, trials: int, out: Path) -> None:
    from promptsearch.evaluators import open_problem

    kept = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    known = {(r["kind"], r["data"], r["seed"]) for r in kept}
    classes = {d: list(open_problem(model, d).source.class_names) for d in data}
    with out.open("a") as file:
        for seed in range(seeds):
            for d in data:
                problem = ["--model", model, "--dataset", d, "--shots", str(shots), "--seed", str(seed)]
                for kind in ("bank", "coop", "lm"):
                    if (kind, d, seed) in known:
                        continue
                    for row, found in rows_of(kind, problem, lm, trials).items():
                        kept.append({"kind": kind, "data": d, "seed": seed, "row": row, **found})
                        file.write(json.dumps(kept[-1]) + "\n")
                    file.flush()
    table([r for r in kept if r["data"] in data], LocalModel(locate(lm)), classes)


if __name__ == "__main__":
    main()
