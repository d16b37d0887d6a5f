"""The command `promptsearch predict`, which labels pictures with the winner of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import batch_option, refuse_unused, run_elsewhere_options, storage_option
from promptsearch.commands.terminal import progress_bar, verbose_option
from promptsearch.errors import InputError, PromptSearchError

if TYPE_CHECKING:
    from promptsearch.runs.classifier import Classifier
    from promptsearch.runs.labelling import Labelled, Labelling

#: Largest number of unreadable pictures that are printed with the reason; the CSV file lists all of them.
SHOWN = 10

F = TypeVar("F", bound=Callable[..., Any])


class _Threshold(click.ParamType):
    """A probability, or auto."""

    name = "probability"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:  # comparisons with nan are false
            self.fail(f"{value!r} is neither auto nor a probability from 0 to 1", param, ctx)
        return number


def classifier_options(f: F) -> F:
    """Add the options of commands that label pictures with a run's winner."""
    options: list[Callable[[Any], Any]] = [
        click.option(
            "--unknown-below",
            type=_Threshold(),
            metavar="P|auto",
            help=(
                "Label a picture `unknown` if no class reaches this probability; auto takes the probability that 95 %"
                " of the few-shot pictures reach."
            ),
        ),
        storage_option,
        run_elsewhere_options,
        batch_option,
        click.option("--quiet", is_flag=True, help="Show no progress and no notes."),
        verbose_option,
    ]
    for option in reversed(options):
        f = option(f)
    return f


@click.command(epilog=example("promptsearch predict my-run holiday/ --out labels.csv --unknown-below auto"))
@click.argument("run", shell_complete=complete.studies)
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE|FOLDER...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file to write; it appears when it is complete.  [default: CSV on stdout]",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of most probable classes to list for each picture.",
)
@click.option("--force", is_flag=True, help="Overwrite --out, even if it was begun with other pictures or options.")
@classifier_options
def predict(
    run: str, pictures: tuple[Path, ...], out: Path | None, top: int, force: bool, quiet: bool, **options: Any
) -> None:
    """Label pictures with the winner of the run RUN, or of a folder that `export --to folder` wrote.

    Pictures in folders are found at any depth. Probabilities are computed with the logit scale that fits the run's few
    labels. A picture that cannot be read is listed with the reason and does not stop the others. Run the same command
    again to resume an interrupted labelling.
    """
    from promptsearch.reports.labels import to_csv, write_labels

    if force and out is None:
        raise InputError("--force would do nothing: there is no --out FILE to overwrite; leave it out")
    with progress_bar(quiet) as progress:
        labelling = open_labelling(run, pictures, top, quiet, {**options, "progress": progress})
        if out is not None:
            labels = write_labels(labelling, out, force, progress)
        else:
            labels = []
            for chunk in labelling.chunks(progress):
                click.echo(to_csv(chunk, top, head=not labels), nl=False)
                labels += chunk
    labelling.classifier.encoder.close()
    tell_unreadable(labels)
    if out is not None and not quiet:
        click.echo(f"wrote {out}: {_count(len(labels), 'picture')}")


def open_labelling(run: str, pictures: Sequence[Path], top: int, quiet: bool, options: dict[str, Any]) -> Labelling:
    """Return the labelling of pictures by a run's winner.

    Args:
        run: Name of the run, or an exported folder.
        pictures: Files and folders.
        top: Number of classes to list for each picture.
        quiet: Whether to print no notes.
        options: The options of `classifier_options`, and `progress`.

    Raises:
        InputError: There is no picture, the run's winner does not consist of prompts, or its model is missing.
    """
    from promptsearch.evaluators.data.loose_pictures import find_pictures
    from promptsearch.runs.labelling import Labelling

    paths, notes = find_pictures(pictures)
    for note in [] if quiet else notes:
        click.echo(note, err=True)
    classifier = _classifier(run, options)
    return Labelling(classifier, paths, top, _threshold(classifier, options["unknown_below"]))


def _classifier(run: str, options: dict[str, Any]) -> Classifier:
    from promptsearch.commands.search_run import machine_config
    from promptsearch.reports.folder import is_folder, open_folder
    from promptsearch.runs import RunRecord
    from promptsearch.runs.classifier import open_classifier

    if is_folder(run):
        why = f"{run} is an exported folder, which names its own model; leave it out"
        refuse_unused(("storage", "model", "weights", "dataset"), why)
        return open_folder(Path(run), machine_config(options), options["progress"])
    where = {k: options[k] for k in ("model", "weights", "dataset", "progress")}
    return open_classifier(RunRecord.load(run, options["storage"]), **where, machine=machine_config(options))


def _threshold(classifier: Classifier, asked: float | str | None) -> float | None:

    if not isinstance(asked, str):
        return asked
    if (estimated := classifier.calibration.unknown_below) is None:
        raise InputError(
            f"--unknown-below auto: {classifier.name!r} was found on fewer than 19 pictures, too few to estimate it; "
            "give a probability"
        )
    return estimated


def tell_unreadable(labels: Sequence[Labelled]) -> None:
    """Print which pictures could not be read.

    Raises:
        PromptSearchError: None of the pictures could be read.
    """
    from promptsearch.banks import printable

    bad = [labelled for labelled in labels if labelled.error]
    if len(bad) == len(labels):
        raise PromptSearchError(f"none of {len(bad)} pictures could be read; the first: {bad[0].error}")
    if bad:
        click.echo(f"{len(bad)} of {_count(len(labels), 'picture')} could not be read:", err=True)
        for labelled in bad[:SHOWN]:
            click.echo(printable(f"  {labelled.error}"), err=True)
        if len(bad) > SHOWN:
            click.echo(f"  and {len(bad) - SHOWN} more", err=True)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
