"""Options that commands share, each written once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from promptsearch.commands import complete
from promptsearch.commands.logs import verbose_option
from promptsearch.config import MachineConfig, ProblemConfig, SearchConfig

if TYPE_CHECKING:
    from promptsearch.evaluators import Problem

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Memory(click.ParamType):
    """An amount of memory: 800MB, 4GB, 4g or plain bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is no amount of memory; write it as 4GB or 800MB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


MEMORY = _Memory()

F = TypeVar("F", bound=Callable[..., Any])


def _apply(decorators: list[Callable[[Any], Any]], f: F) -> F:
    for decorator in reversed(decorators):
        f = decorator(f)
    return f


def _cluster(ctx: click.Context, param: click.Parameter, address: str | None) -> str | None:
    if address is None or ctx.resilient_parsing:
        return None
    from promptsearch.evaluators.encoding.ray_cluster import check_address, stop_clusters

    ctx.call_on_close(stop_clusters)
    return check_address(address)


ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    callback=_cluster,
    help="Encode on the workers of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT); alone: one on this machine.",
)


device_option = click.option(
    "--device",
    default=MachineConfig.device,
    shell_complete=complete.words("auto", "cpu", "cuda"),
    show_default=True,
    help="auto, cpu or cuda.",
)
memory_option = click.option(
    "--memory", type=MEMORY, help="What scoring may take, e.g. 4GB; by default a quarter of the RAM."
)
batch_option = click.option(
    "--encode-batch",
    type=click.IntRange(1),
    help="Pictures computed at a time; by default 8 on a CPU, 256 on a GPU.",
)
out_option = click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, instead of stdout."
)


def problem_options(f: F) -> F:
    """Which model and which pictures."""
    return _apply([model_options, picture_options], f)


def model_options(f: F) -> F:
    """Which model, and how it is run."""
    return _apply(
        [
            click.option(
                "--model",
                default=ProblemConfig.model,
                shell_complete=complete.models,
                show_default=True,
                help=(
                    "RN50 (OpenAI's weights), NAME:PRETRAINED, hf-hub:OWNER/NAME, local-dir:PATH, tiny (embedded), or"
                    " auto: RN50 where it can be had, else tiny."
                ),
            ),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help=("Weights for --model NAME: safetensors or a plain state dict."),
            ),
            device_option,
            memory_option,
            batch_option,
            click.option(
                "--precision",
                default=ProblemConfig.precision,
                shell_complete=complete.words("fp32", "bf16", "fp16"),
                show_default=True,
                help="fp32, bf16 or fp16, for pictures.",
            ),
            ray_option,
        ],
        f,
    )


def picture_options(f: F) -> F:
    """Which pictures."""
    return _apply(
        [
            click.option(
                "--dataset",
                default=ProblemConfig.dataset,
                shell_complete=complete.datasets,
                show_default=True,
                help=(
                    "cifar10, cifar100, cifar10-dark (and other conditions), a hub id, a folder of parquet files"
                    " or of pictures in class folders."
                ),
            ),
            click.option("--picture-column", help="Column of the pictures, where it is not plain."),
            click.option("--label-column", help="Column of the labels, where it is not plain."),
        ],
        f,
    )


def pictures_option(f: F) -> F:
    """Where the pictures behind a feature pack lie."""
    text = "Where a feature pack's pictures lie, for what needs them: the folder or name of the data set it is made of."
    return _apply([click.option("--pictures", shell_complete=complete.datasets, help=text)], f)


def refuse_idle_pictures(pictures: str | None, *problems: Problem) -> None:
    """--pictures is an error where no data set is a feature pack.

    Raises:
        InputError: it would do nothing.
    """
    from promptsearch.errors import InputError
    from promptsearch.evaluators.data.picture_features import PackFeatures

    if pictures is not None and not any(isinstance(p.source, PackFeatures) for p in problems):
        name = problems[0].source.name
        raise InputError(f"--pictures {pictures} would do nothing: {name}'s own pictures are read; leave it out")


def run_options(f: F) -> F:
    """The few-shot draw, where the run is kept, and what it begins from."""
    fork = click.option("--fork", help="Begin a run of this name from the best of the one that --study names.")
    return _apply([draw_options, fork], f)


def draw_options(f: F) -> F:
    """The few-shot draw and where the run is kept."""
    return _apply(
        [
            click.option(
                "--shots", type=int, default=SearchConfig.shots, show_default=True, help="Labelled pictures per class."
            ),
            click.option(
                "--seed", type=int, default=SearchConfig.seed, show_default=True, help="Of the draw and of the search."
            ),
            click.option("--storage", help="Where runs are kept: a database URL or a SQLite file."),
            click.option(
                "--study", shell_complete=complete.studies, help="Name of the run; by default made from its options."
            ),
        ],
        f,
    )


def output_options(f: F) -> F:
    """How to print."""
    return _apply(
        [
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else."),
            click.option("--quiet", is_flag=True, help="No progress and no notes."),
            verbose_option,
        ],
        f,
    )


def run_elsewhere_options(f: F) -> F:
    """A run's model and pictures, where they have other names or paths here than where it was made."""
    path = click.Path(path_type=Path)
    return _apply(
        [
            click.option(
                "--model",
                shell_complete=complete.models,
                help="The run's model, where it has another name or path here.",
            ),
            click.option("--weights", type=path, help="The run's weights, where they lie elsewhere here."),
            click.option(
                "--dataset", shell_complete=complete.datasets, help="The run's pictures, where they lie elsewhere here."
            ),
            device_option,
        ],
        f,
    )


def resume_options(f: F) -> F:
    """A run's model and pictures as they are here, and what this machine gives to it."""
    return _apply([run_elsewhere_options, memory_option, batch_option, ray_option], f)


def storage_option(f: F) -> F:
    """Where runs are kept, for commands that only read them."""
    return _apply([click.option("--storage", help="Where runs are kept: a database URL or a SQLite file.")], f)


def rating_option(f: F) -> F:
    """Which language model rates what was decoded."""
    text = "Rate the decoded texts' fluency with this language model: embedded, a folder or a hub id."
    return _apply([click.option("--fluency-lm", shell_complete=complete.words_or_folder("embedded"), help=text)], f)


def refuse_unused(names: Iterable[str], why: str) -> None:
    """Options of the command line that would do nothing are an error.

    Raises:
        InputError: one of these parameters was given on the command line; `why` says what it would need.
    """
    from promptsearch.errors import InputError

    context = click.get_current_context(silent=True)
    for name in names:
        if context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"--{name.replace('_', '-')} would do nothing: {why}")
