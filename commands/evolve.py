"""The command `promptsearch evolve`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from promptsearch.commands import complete
from promptsearch.commands.examples import example
from promptsearch.commands.options import (
    lm_config,
    lm_options,
    output_options,
    problem_options,
    refuse_unused,
    run_options,
    space_options,
    split_lm,
)
from promptsearch.config import EvolveOptions
from promptsearch.errors import InputError


@click.command(epilog=example("promptsearch evolve --lm embedded --generations 10"))
@space_options
@click.option(
    "--population",
    type=int,
    default=EvolveOptions.population,
    show_default=True,
    help="Number of sets that survive each generation.",
)
@click.option(
    "--offspring",
    type=int,
    default=EvolveOptions.offspring,
    show_default=True,
    help="Number of sets proposed and scored in each generation.",
)
@click.option(
    "--generations",
    type=click.IntRange(1),
    help="Total number of generations; the search ends after them or after --trials, whichever comes first.",
)
@click.option(
    "--elite",
    type=int,
    default=EvolveOptions.elite,
    show_default=True,
    help="Number of best sets that survive however similar they are.",
)
@click.option(
    "--crowding",
    type=float,
    default=EvolveOptions.crowding,
    show_default=True,
    help="Drop the worse of two sets if the cosine of their text vectors is above this.",
)
@click.option(
    "--immigrants",
    type=float,
    default=EvolveOptions.immigrants,
    show_default=True,
    help="Share of the offspring that are drawn from the bank.",
)
@click.option(
    "--proposer",
    default=EvolveOptions.proposer,
    shell_complete=complete.proposers,
    show_default=True,
    help="What writes the offspring: lm (a language model, by default the embedded one), fill (a language model fills"
    " gaps of good templates), grammar (random edits from the bank), or a plug-in.",
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
    """Evolve prompts with a language model that writes mutations, crossovers and proposals guided by scores.

    Run the same command again to resume an interrupted run; with larger --trials or --generations a finished run
    continues.
    """
    from promptsearch.commands.search_run import search_command
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
    if proposer == "fill" and given["lm_url"] is not None:
        raise InputError(
            "--proposer fill: a server does not return the likelihood of words; name a local model with --lm"
        )
    if proposer in ("lm", "fill"):
        writer = lm_config(given)
        options["named_lm"] = given
    else:
        refuse_unused(given, f"--proposer {proposer} uses no language model; leave it out")
    if generations is not None:
        trials = population + generations * offspring
        default = click.get_current_context().get_parameter_source("trials") is ParameterSource.DEFAULT
        options["trials"] = trials if default else min(trials, options["trials"])
    search_command("evolve", own, options, writer)
