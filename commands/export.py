"""The command `promptsearch export`, which writes a run's winner for other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import run_elsewhere_options, storage_option
from promptsearch.commands.terminal import progress_bar, verbose_option
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.banks import PromptSet
    from promptsearch.evaluators import Problem, Task
    from promptsearch.reports.export import Winner
    from promptsearch.runs import RunRecord


@click.command(epilog=example("promptsearch export my-run --to python --out classify.py"))
@click.argument("study", shell_complete=complete.studies)
@click.option(
    "--to",
    "form",
    required=True,
    shell_complete=complete.words(
        "clip-benchmark", "open-clip", "transformers", "bank", "python", "folder", "onnx", "hub"
    ),
    help="Format: folder, onnx, hub, open-clip, transformers, clip-benchmark, bank or python.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File or folder to write.  [default: stdout]")
@click.option(
    "--repo", metavar="OWNER/NAME", help="With --to hub: the repository OWNER/NAME, created if it does not exist."
)
@click.option("--private", is_flag=True, help="With --to hub: create the repository as private.")
@click.option(
    "--name", help="With --to clip-benchmark: CLIP_benchmark's name for the data set.  [default: the run's data set]"
)
@storage_option
@run_elsewhere_options
@verbose_option
def export(
    study: str,
    form: str,
    out: Path | None,
    repo: str | None,
    private: bool,
    name: str | None,
    storage: str | None,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    device: str,
) -> None:
    """Write the winner of the run STUDY in the format of another tool.

    \b
    folder          class weights, preprocessing and a script that labels pictures
                    with open_clip; `predict` and `PromptSearch.load` read it too
    onnx            picture tower and class weights as ONNX, with a script
    hub             the folder as a model repository with a card, by --repo
    clip-benchmark  JSON for CLIP_benchmark's --custom_template_file
    open-clip       safetensors with open_clip's zero-shot classifier (D, C)
    transformers    a script with its pipeline, and the best single template
    bank            the templates, one per line: a bank for another run
    python          a script that classifies pictures with open_clip

    For an unfinished run, the best set so far is written.
    """
    from promptsearch.reports import export as to
    from promptsearch.runs import RunRecord
    from promptsearch.runs.winner import winner_of

    _check(form, out, repo, private, name)
    record = RunRecord.load(study, storage)
    prompt_set = winner_of(record)
    elsewhere = {"model": model, "weights": weights, "dataset": dataset, "device": device}
    if form in ("folder", "onnx", "hub"):
        place = _write_classifier(record, form, out, repo, private, elsewhere)
        click.echo(f"{'pushed to' if form == 'hub' else 'wrote'} {place}")
        return
    needs_scores = form == "open-clip" or (form == "transformers" and prompt_set.size > 1)
    problem = _reopen(record, elsewhere) if needs_scores or not record.about.get("classes") else None
    classes = tuple(problem.source.class_names if problem else record.about["classes"])
    winner = _winner(record, prompt_set, classes, weights)
    if form == "open-clip":
        assert problem is not None and out is not None  # `_check` and the lines above ensure this
        evaluator = problem.evaluator(_task(record, problem))
        scale = winner.logit_scale or problem.encoder.logit_scale
        to.to_open_clip(winner, evaluator.class_weights(prompt_set), scale, out)
    else:
        if form == "transformers" and prompt_set.size > 1:
            assert problem is not None
            single = _best_single(record, prompt_set, problem)
            winner = dataclasses.replace(winner, prompt_set=single)
        if form == "bank" and prompt_set.weights is not None:
            click.echo("the winner's weights are left out, because a bank has no weights", err=True)
        if form == "bank" and prompt_set.phrases is not None:
            click.echo("the winner's phrases for the classes are left out, because a bank has only templates", err=True)
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


def _check(form: str, out: Path | None, repo: str | None, private: bool, name: str | None) -> None:
    """Refuse options that do not fit the format, before anything is opened."""
    from promptsearch.reports import export as to
    from promptsearch.reports.hub import check_repo

    if form not in to.FORMATS:
        raise InputError(f"--to {form}: choose from {', '.join(to.FORMATS)}")
    if form == "open-clip" and out is None:
        raise InputError("--to open-clip writes a binary file; name it with --out FILE.safetensors")
    if form in ("folder", "onnx") and out is None:
        raise InputError(f"--to {form} writes several files; name their folder with --out FOLDER")
    if name is not None and form != "clip-benchmark":
        raise InputError(f"--name {name}: is only for --to clip-benchmark; leave it out")
    if form != "hub" and (repo is not None or private):
        raise InputError(f"{f'--repo {repo}' if repo else '--private'}: is only for --to hub; leave it out")
    if form == "hub":
        if repo is None:
            raise InputError("--to hub: name the repository with --repo OWNER/NAME")
        if out is not None:
            raise InputError(
                f"--out {out}: --to hub writes to --repo; leave it out, or write a folder with --to folder"
            )
        check_repo(repo)


def _winner(record: RunRecord, prompt_set: PromptSet, classes: tuple[str, ...], weights: Path | None) -> Winner:
    """Return the winner of a run, with the facts about the run that exports contain."""
    from promptsearch.reports.export import Winner
    from promptsearch.runs.open_run import opened_config

    kept = opened_config(record)
    file = weights or (Path(kept.weights) if kept and kept.weights else None)
    names = record.name, record.config.model, str(record.config.dataset)
    scale = ((record.result or {}).get("calibration") or {}).get("logit_scale")
    return Winner(prompt_set, classes, *names, file, _figures(record), scale)


def _write_classifier(
    record: RunRecord, form: str, out: Path | None, repo: str | None, private: bool, elsewhere: dict[str, Any]
) -> str:
    """Write the winner as a folder, or push it to a hub, and return where it is."""
    from promptsearch.commands.search_run import machine_config
    from promptsearch.reports.folder import FOLDERS, Exported
    from promptsearch.reports.hub import push
    from promptsearch.runs.classifier import open_classifier
    from promptsearch.runs.winner import winner_of

    where = {k: elsewhere[k] for k in ("model", "weights", "dataset")}
    with progress_bar(False) as progress:
        classifier = open_classifier(record, **where, machine=machine_config(elsewhere), progress=progress)
        winner = _winner(record, winner_of(record), classifier.class_names, elsewhere["weights"])
        exported = Exported(winner, classifier, record.result)
        if form == "hub":
            assert repo is not None  # `_check` ensures this
            return push(exported, repo, private)
        assert out is not None
        FOLDERS[form](exported, out)
        return str(out)


def _reopen(record: RunRecord, elsewhere: dict[str, Any]) -> Problem:
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
    """Return the template of an ensemble that is best alone on the support set, and print the loss of accuracy."""
    from promptsearch.banks import PromptSet
    from promptsearch.search import get_objective

    task = _task(record, problem)
    evaluator = problem.evaluator(task)
    # without the fluency term, because fluency is not scored here
    objective = get_objective(record.config.search.objective)
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
    if (test := result["winner"].get("test")) is None:
        return [f"{search.shots} shots per class, seed {search.seed}; there was no test split"]
    return [
        f"{search.shots} shots per class, seed {search.seed}; winner: {test['accuracy']:.2%} of "
        f"{result['test_pictures']} test pictures (95 % interval {test['low']:.1%} to {test['high']:.1%})"
    ]
