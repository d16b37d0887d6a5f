"""The command `promptsearch export`, which writes a run's winner for other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.logs import verbose_option
from promptsearch.commands.options import out_option, run_elsewhere_options, storage_option
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.banks import PromptSet
    from promptsearch.evaluators import Problem, Task
    from promptsearch.runs import RunRecord


@click.command(epilog=example("promptsearch export my-run --to python --out classify.py"))
@click.argument("study", shell_complete=complete.studies)
@click.option(
    "--to",
    "form",
    required=True,
    shell_complete=complete.words("clip-benchmark", "open-clip", "transformers", "bank", "python"),
    help="Format: clip-benchmark, open-clip, transformers, bank or python.",
)
@out_option
@click.option("--name", help="With --to clip-benchmark: its name of the data set.  [default: the run's data set]")
@storage_option
@run_elsewhere_options
@verbose_option
def export(
    study: str,
    form: str,
    out: Path | None,
    name: str | None,
    storage: str | None,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    device: str,
) -> None:
    """Write the winner of the run STUDY in the format of another tool.

    \b
    clip-benchmark  JSON for CLIP_benchmark's --custom_template_file
    open-clip       safetensors with open_clip's zero-shot classifier (D, C)
    transformers    a script with its pipeline, and the best single template
    bank            the templates, one per line: a bank for another run
    python          a script that classifies pictures with open_clip

    For an unfinished run, the best set so far is written.
    """
    from promptsearch.reports import export as to
    from promptsearch.runs import RunRecord

    if form not in to.FORMATS:
        raise InputError(f"--to {form}: choose from {', '.join(to.FORMATS)}")
    if form == "open-clip" and out is None:
        raise InputError("--to open-clip writes a binary file; name it with --out FILE.safetensors")
    if name is not None and form != "clip-benchmark":
        raise InputError(f"--name {name}: is only for --to clip-benchmark; leave it out")
    record = RunRecord.load(study, storage)
    prompt_set = winner_of(record)
    elsewhere = {"model": model, "weights": weights, "dataset": dataset, "device": device}
    needs_scores = form == "open-clip" or (form == "transformers" and prompt_set.size > 1)
    problem = _reopen(record, elsewhere) if needs_scores or not record.about.get("classes") else None
    classes = tuple(problem.source.class_names if problem else record.about["classes"])
    kept = record.about.get("opened", {}).get("weights")
    winner = to.Winner(
        prompt_set,
        classes,
        record.name,
        record.config.model,
        str(record.config.dataset),
        weights or (Path(kept) if kept else None),
        _figures(record),
    )
    if form == "open-clip":
        assert problem is not None and out is not None  # seen to above
        evaluator = problem.evaluator(_task(record, problem))
        to.to_open_clip(winner, evaluator.class_weights(prompt_set), problem.encoder.logit_scale, out)
    else:
        if form == "transformers" and prompt_set.size > 1:
            assert problem is not None
            single = _best_single(record, prompt_set, problem)
            winner = dataclasses.replace(winner, prompt_set=single)
        if form == "bank" and prompt_set.weights is not None:
            click.echo("the winner's weights are left out, because a bank has no weights", err=True)
        if form == "bank" and prompt_set.phrases is not None:
            click.echo("what it says of the classes is left out, because a bank has templates only", err=True)
        text = {
            "bank": to.to_bank,
            "python": to.to_python,
            "transformers": to.to_transformers,
            "clip-benchmark": lambda w: to.to_clip_benchmark(w, name),
        }[form](winner)
        if out is None:
            click.echo(text, nl=False)
        else:
            to.write(out, text)
    if problem is not None:
        problem.encoder.close()
    if out is not None:
        click.echo(f"wrote {out}", err=True)


def winner_of(record: RunRecord) -> PromptSet:
    """Return the winner of a run; for an unfinished run print a note and return the best set so far.

    Raises:
        InputError: Nothing was scored yet, or the run is a comparison or learnt vectors.
    """
    from promptsearch.banks import PromptSet, printable
    from promptsearch.commands.guards import refuse_comparison, refuse_vectors
    from promptsearch.runs import best_first

    result = record.result
    refuse_comparison(record)
    refuse_vectors(record)
    if result is not None:
        found = result["winner"]
        return PromptSet.of_row(found)
    ranked = best_first(record)
    if not ranked:
        raise InputError(f"run {record.name!r} has no scored trial yet; run the same search command again to resume")
    name = printable(record.name)
    click.echo(f"run {name} is not finished; this is the best of its {len(ranked)} trials so far", err=True)
    return ranked[0][0]


def _reopen(record: RunRecord, elsewhere: dict[str, Any]) -> Problem:
    from promptsearch.commands.progress import progress_bar
    from promptsearch.commands.search_run import machine_config
    from promptsearch.runs import reopen

    where = {k: elsewhere[k] for k in ("model", "weights", "dataset")}
    with progress_bar(False) as progress:
        return reopen(record, **where, machine=machine_config(elsewhere), progress=progress)


def _task(record: RunRecord, problem: Problem) -> Task:
    """Return the task of a run: its draw, or the unlabelled pictures that it searched on."""
    search = record.config.search
    return problem.task(search.shots, search.seed, search.unlabelled)


def _best_single(record: RunRecord, prompt_set: PromptSet, problem: Problem) -> PromptSet:
    """Return the template of an ensemble that is best alone on the support set, and print what that loses."""
    from promptsearch.banks import PromptSet
    from promptsearch.search import get_objective

    task = _task(record, problem)
    evaluator = problem.evaluator(task)
    objective = get_objective(record.config.search.objective)  # their fluency is not scored here
    evaluator.require(objective.needs, prompt_set.templates)
    singles = [PromptSet.of(t).saying_as(prompt_set) for t in prompt_set.templates]
    score, *scores = evaluator.score([prompt_set, *singles])
    best, alone = max(zip(singles, scores, strict=True), key=lambda r: (objective(r[1]), r[0].templates))
    said = f"transformers takes one template, so this is the best of {prompt_set.size} alone"
    if task.labelled:
        said += f": {alone.accuracy:.1%} few-shot accuracy (the ensemble: {score.accuracy:.1%})"
    click.echo(said, err=True)
    return best


def _figures(record: RunRecord) -> list[str]:
    result, search = record.result, record.config.search
    if result is None:
        return [f"not finished; {search.shots} shots per class, seed {search.seed}"]
    test = result["winner"]["test"]
    return [
        f"{search.shots} shots per class, seed {search.seed}; winner: {test['accuracy']:.2%} of "
        f"{result['test_pictures']} test pictures (95 % interval {test['low']:.1%} to {test['high']:.1%})"
    ]
