"""The command `promptsearch features`, which exports and imports feature packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptsearch.commands.examples import example
from promptsearch.commands.options import problem_options
from promptsearch.commands.terminal import progress_bar, verbose_option


@click.group(epilog=example("promptsearch features export my-features --model RN50 --dataset cifar10"))
def features() -> None:
    """Export and import feature packs, which let others search without having the pictures."""


@features.command("export", epilog=example("promptsearch features export my-features --model RN50 --dataset cifar10"))
@problem_options
@click.option("--train", "train_limit", type=int, help="Export only this many training pictures per class.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@verbose_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_features(folder: Path, train_limit: int | None, quiet: bool, **options: Any) -> None:
    """Encode a data set's pictures and write them to a folder."""
    from promptsearch.evaluators import open_problem
    from promptsearch.evaluators.data.picture_features import export_pack
    from promptsearch.evaluators.task import draw

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


@features.command("import", epilog=example("promptsearch features import my-features"))
@click.argument("folder", type=click.Path(path_type=Path))
def import_features(folder: Path) -> None:
    """Check a feature pack and copy it to the cache."""
    from promptsearch.banks.template import printable
    from promptsearch.evaluators import default_cache
    from promptsearch.evaluators.data.picture_features import import_pack

    for key in import_pack(folder, default_cache()):
        click.echo(printable(f"{key['dataset']} ({key['split']}) for the model {key['model']}"))
