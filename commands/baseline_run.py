"""The common part of the gradient baselines' commands: read the options, train, print the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.commands.options import refuse_idle_pictures
from promptsearch.commands.search_run import emit, machine_config, problem_config
from promptsearch.commands.terminal import progress_bar
from promptsearch.config import BankId, FluencyConfig, SearchConfig

if TYPE_CHECKING:
    from promptsearch.runs.baselines.training_context import Setting, Trained


def baseline_command(
    method: str,
    own: Mapping[str, Any],
    train: Callable[[Setting], Trained],
    options: dict[str, Any],
    bank: BankId | None = None,
) -> None:
    """Train a gradient baseline, save the run as a study, and print the result.

    Args:
        method: Name of the method.
        own: The method's own options, which are part of the run's identity.
        train: The method.
        options: All other options of the command line, by parameter name.
        bank: The bank, for methods that use one.
    """
    from promptsearch.evaluators import open_configured
    from promptsearch.runs import RunRecord
    from promptsearch.runs.baselines.learn import run_training
    from promptsearch.runs.open_run import describe, identify, study_name
    from promptsearch.runs.store.storage import learnt_folder
    from promptsearch.search.gradient import Learned

    rate = fluency = None
    if (named := options.get("fluency_lm")) is not None:
        from promptsearch.lm import LocalModel, locate

        place = locate(named, "--fluency-lm")
        rate, fluency = LocalModel(place).log_likelihood, FluencyConfig(place.fingerprint)
    shots, seed = options["shots"], options["seed"]
    if options["start"] is not None:
        own = {**own, "start": options["start"]}
    search = SearchConfig(method, shots, seed, objective="xent", select="", fluency=fluency, options=own)
    save: Path | None = options["save"]
    opened = problem_config(options)
    with progress_bar(options["quiet"] or options["as_json"]) as progress:
        problem = open_configured(opened, machine_config(options), progress=progress)
        config = identify(problem, search, bank)
        if opened.pictures is not None:
            refuse_idle_pictures(opened.pictures, problem)
            config = replace(config, pictures_fingerprint=problem.source.pictures_fingerprint)
        name = study_name(config)
        problem.task(shots, seed)  # raises errors about the draw before a run is recorded
        record = RunRecord.open(options["study"] or name, options["storage"], config, describe(problem))
        kept = learnt_folder() / f"{name}.safetensors"
        result = run_training(problem, train, record, kept, rate=rate, progress=progress, again=save is not None)
        problem.encoder.close()
    if save:
        Learned.load(kept).save(save)
    emit(result.to_dict(), options["as_json"], options["quiet"])
