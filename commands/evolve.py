"""`promptsearch evolve`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from promptsearch.commands import complete
from promptsearch.commands.lm_options import lm_config, lm_options, split_lm
from promptsearch.commands.options import output_options, problem_options, refuse_unused, run_options
from promptsearch.commands.trial_options import space_options
from promptsearch.config import EvolveOptions


@click.command()
@space_options
@click.option(
    "--population",
    type=int,
    default=EvolveOptions.population,
    show_default=True,
    help="Sets that survive each generation.",
)
@click.option(
    "--offspring",
    type=int,
    default=EvolveOptions.offspring,
    show_default=True,
    help="Sets proposed and scored in a generation.",
)
@click.option(
    "--generations",
    type=click.IntRange(1),
    help="Generations in all, of --offspring trials each after the first --population; with --trials, what ends first.",
)
@click.option(
    "--elite",
    type=int,
    default=EvolveOptions.elite,
    show_default=True,
    help="Best sets that survive however alike they are.",
)
@click.option(
    "--crowding",
    type=float,
    default=EvolveOptions.crowding,
    show_default=True,
    help="Cosine of text vectors above which of two sets the worse gives way.",
)
@click.option(
    "--immigrants",
    type=float,
    default=EvolveOptions.immigrants,
    show_default=True,
    help="Share of the offspring drawn from the bank.",
)
@click.option(
    "--proposer",
    default=EvolveOptions.proposer,
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
    ensemble: int,
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
    from promptsearch.commands.search_run import search_command
    from promptsearch.errors import InputError
    from promptsearch.search.proposers import PROPOSERS

    own = {
        "ensemble": ensemble,
        "population": population,
        "offspring": offspring,
        "elite": elite,
        "crowding": crowding,
        "immigrants": immigrants,
        "proposer": proposer,
    }
    if proposer not in PROPOSERS:
        raise InputError(f"--proposer {proposer}: choose from {', '.join(PROPOSERS)}")
    given, writer = split_lm(options), None
    if proposer == "lm":
        writer = lm_config(given)
        options["named_lm"] = given
    else:
        refuse_unused(given, f"--proposer {proposer} asks no language model; leave it out")
    if generations is not None:
        trials = population + generations * offspring
        default = click.get_current_context().get_parameter_source("trials") is ParameterSource.DEFAULT
        options["trials"] = trials if default else min(trials, options["trials"])
    search_command("evolve", own, options, writer)
