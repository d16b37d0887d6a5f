"""The command `promptsearch report`, which writes an HTML report of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import storage_option
from promptsearch.commands.terminal import verbose_option
from promptsearch.config import ProblemConfig
from promptsearch.errors import InputError, PromptSearchError

if TYPE_CHECKING:
    from promptsearch.reports.html import Pictures
    from promptsearch.reports.view import RunView


@click.command(epilog=example("promptsearch report my-run --out report.html"))
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", shell_complete=complete.studies)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="File to write.",
)
@click.option("--png", type=click.Path(file_okay=False, path_type=Path), help="Folder for each plot as a PNG file.")
@click.option(
    "--pictures",
    shell_complete=complete.datasets,
    help="Folder or name of the data set, for showing the pictures of a run that was made with a feature pack.",
)
@storage_option
@verbose_option
def report(studies: tuple[str, ...], out: Path, png: Path | None, pictures: str | None, storage: str | None) -> None:
    """Write an HTML report of the runs STUDY..., with plots, pictures and configurations.

    The page is self-contained. Searches, gradient baselines and comparisons can be combined. An unfinished run is shown
    with its trials so far; a run without trials is skipped.
    """
    from promptsearch.reports.export import write
    from promptsearch.reports.html import all_plots, build_page
    from promptsearch.reports.view import open_views

    opened = open_views(studies, storage)
    notes = [f"run {name} has no scored trial yet and is skipped" for name in opened.empty]
    for note in notes:
        click.echo(note, err=True)
    overall, by_run = all_plots(opened)
    sources = {v.name: _pictures(v, pictures) for v in opened.views}
    write(out, build_page(opened, overall, by_run, sources, notes))
    click.echo(f"wrote {out}")
    if png is not None:
        from promptsearch.reports.png import write_pngs

        for file in write_pngs(overall, by_run, png):
            click.echo(f"wrote {file}")


def _pictures(view: RunView, named: str | None) -> Pictures:
    """Return a function that loads test pictures of a run, from --pictures or else from the run's data set."""

    def load(indices: Sequence[int]) -> Any:
        from promptsearch.evaluators import default_cache
        from promptsearch.evaluators.data.corruptions import degrade, split_condition
        from promptsearch.evaluators.data.datasets import open_dataset
        from promptsearch.evaluators.data.picture_features import pictures_fingerprint, renamed_fingerprint
        from promptsearch.runs.open_run import opened_config

        opened = opened_config(view.record) or ProblemConfig()
        spec, condition = split_condition(str(view.config.dataset))
        if condition is None and opened.dataset != ProblemConfig.dataset:
            spec = opened.dataset
        from_pictures = str(view.about.get("pictures", "")).startswith("pictures")
        if named is None and not from_pictures:
            return (
                "The run was made with a feature pack, which contains no pictures. To show them, name the data set "
                f"that the pack was made from: promptsearch report {view.name} --pictures FOLDER"
            )
        place, reading = named or spec, opened.reading
        try:
            data = open_dataset(place, **reading, cache=default_cache())
            known = tuple(view.about.get("classes") or data.class_names)
            if not reading["renamed"] and data.class_names != known:
                raise InputError(
                    f"--pictures {place}: has the classes {', '.join(data.class_names[:3])} …, and run {view.name} has "
                    f"{', '.join(known[:3])} …; name the data set that it was made with"
                )
            fingerprint = pictures_fingerprint(data, condition)
            if opened.class_names is not None:
                fingerprint = renamed_fingerprint(fingerprint, opened.class_names)
            if from_pictures and fingerprint != view.config.data_fingerprint:
                raise InputError(
                    f"--pictures {place}: not the pictures that run {view.name} was made with, or they were changed "
                    "since; name the folder that has them"
                )
            found = [degrade(p, condition) for p in data.pictures("test", list(indices))]
        except PromptSearchError as e:
            if named is not None:
                raise
            return f"The pictures cannot be shown: {e}"
        return found

    return load
