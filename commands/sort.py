"""The command `promptsearch sort`, which puts pictures into a folder for each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.predict import classifier_options, open_labelling, tell_unreadable
from promptsearch.commands.terminal import progress_bar
from promptsearch.errors import InputError


@click.command(epilog=example("promptsearch sort my-run holiday/ --into sorted --unknown-below auto"))
@click.argument("run", shell_complete=complete.studies)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--into",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which to make a folder for each class.",
)
@click.option("--link", is_flag=True, help="Make symbolic links instead of copies.")
@classifier_options
def sort(run: str, folder: Path, into: Path, link: bool, quiet: bool, **options: Any) -> None:
    """Copy the pictures of FOLDER into a folder for each class, as the run (or exported folder) RUN predicts it.

    With --unknown-below, pictures of no known class go to the folder `unknown`. The originals stay where they are. A
    picture that cannot be read is listed with the reason and left out. Run the same command again to resume; a file
    with another content is never overwritten.
    """
    from promptsearch.reports.sorted_folders import plan, put

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of pictures")
    if into.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--into {into}: is in {folder}, whose pictures are sorted; name a folder outside")
    with progress_bar(quiet) as progress:
        labelling = open_labelling(run, [folder], 1, quiet, {**options, "progress": progress})
        labels = list(labelling.all(progress))
        labelling.classifier.encoder.close()
        planned = plan(labels, folder, into)
        put(planned, link, progress)
    tell_unreadable(labels)
    for name, count in sorted(Counter(target.parent.name for _, target in planned).items()):
        click.echo(f"{into / name}\t{count}")
