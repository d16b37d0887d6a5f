"""`promptsearch features`: share picture features, search without pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptsearch.commands.logs import verbose_option
from promptsearch.commands.options import problem_options
from promptsearch.commands.progress import progress_bar


@click.group()
def features() -> None:
    """Export and import feature packs: picture features without the pictures."""


@features.command("export")
@problem_options
@click.option("--train", "train_limit", type=int, help="Only this many training pictures per class (a seeded draw).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@verbose_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_features(folder: Path, train_limit: int | None, quiet: bool, **options: Any) -> None:
    """Encode a data set with a model and write its features to FOLDER."""
    from promptsearch.evaluators import open_problem
    from promptsearch.evaluators.data.picture_features import export_pack
    from promptsearch.evaluators.draw import draw

    with progress_bar(quiet) as progress:
        problem = open_problem(options.pop("model"), options.pop("dataset"), progress=progress, **options)
        positions = {}
        if train_limit is not None:
            labels, _ = problem.source.labels("train")
            names = problem.source.class_names
            drawn = draw(labels, train_limit, 0, class_names=names, validation=0)
            positions["train"] = drawn.support
        files = export_pack(problem.source, problem.encoder.spec, folder, positions)
    for file in files:
        click.echo(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")


@features.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
def import_features(folder: Path) -> None:
    """Check the pack in FOLDER and put it into the cache.  Searches then need no pictures."""
    from promptsearch.evaluators import default_cache
    from promptsearch.evaluators.data.picture_features import import_pack

    for key in import_pack(folder, default_cache()):
        click.echo(f"{key['dataset']} ({key['split']}) for the model {key['model']}")
