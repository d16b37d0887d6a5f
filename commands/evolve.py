"""`promptsearch evolve`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from promptsearch.commands import complete
from promptsearch.commands.lm_options import lm_config, lm_options, split_lm
from promptsearch.commands.options import output_options, problem_options, refuse_unused, run_options
from promptsearch.commands.trial_options import space_options


@click.command()
@space_options
@click.option("--population", type=int, default=16, show_default=True, help="Sets that survive each generation.")
@click.option("--offspring", type=int, default=8, show_default=True, help="Sets proposed and scored in a generation.")
@click.option(
    "--generations",
    type=click.IntRange(1),
    help="Generations in all, of --offspring trials each after the first --population; with --trials, what ends first.",
)
@click.option("--elite", type=int, default=2, show_default=True, help="Best sets that survive however alike they are.")
@click.option(
    "--crowding",
    type=float,
    default=0.999,
    show_default=True,
    help="Cosine of text vectors above which of two sets the worse gives way.",
)
@click.option(
    "--immigrants", type=float, default=0.1, show_default=True, help="Share of the offspring drawn from the bank."
)
@click.option(
    "--proposer",
    default="lm",
    shell_complete=complete.proposers,
    show_default=True,
    help="Who writes the offspring: lm (a language model; embedded, unless one is named), grammar (the bank's slots and"
    " words), or a plug-in's.",
)
@lm_options
@problem_options
@run_options
@output_options
def evolve(
    bank_spec: str,
    ensemble: int,
    objective: str,
    population: int,
    offspring: int,
    generations: int | None,
    elite: int,
    crowding: float,
    immigrants: float,
    proposer: str,
    **options: Any,
) -> None:
    """Breed prompts with a language model: mutations, crossovers, proposals guided by what scored well and badly.

    The same command again resumes a run that was cut off; with more --trials or --generations it goes on.
    """
    from promptsearch.commands.search_run import run_trials

    own = {
        "ensemble": ensemble,
        "objective": objective,
        "population": population,
        "offspring": offspring,
        "elite": elite,
        "crowding": crowding,
        "immigrants": immigrants,
        "proposer": proposer,
    }
    from promptsearch.errors import InputError
    from promptsearch.search.proposers import PROPOSERS

    if proposer not in PROPOSERS:
        raise InputError(f"--proposer {proposer}: choose from {', '.join(PROPOSERS)}")
    given = split_lm(options)
    if proposer == "lm":
        own |= lm_config(given)
        options["named_lm"] = given
    else:
        refuse_unused(given, f"--proposer {proposer} asks no language model; leave it out")
    if generations is not None:
        trials = population + generations * offspring
        default = click.get_current_context().get_parameter_source("trials") is ParameterSource.DEFAULT
        options["trials"] = trials if default else min(trials, options["trials"])
    run_trials("evolve", bank_spec, own, **options)
