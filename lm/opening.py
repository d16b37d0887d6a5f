"""Opens the language models that a run's configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.config import FluencyConfig, WriterConfig
from promptsearch.errors import InputError
from promptsearch.evaluators.encoding.device import resolve_device
from promptsearch.evaluators.fluency import Rater
from promptsearch.lm.local import LocalModel
from promptsearch.lm.locate import locate
from promptsearch.lm.server import ServerModel, ServerPlace

#: Version of the rating, a part of the cache's key; increase it when texts are rated differently.
RATING = "2"


def open_writer(config: WriterConfig, server: Mapping[str, Any]) -> LocalModel | ServerModel:
    """Open the language model that writes a run's prompts.

    Args:
        config: The model and its sampling parameters.
        server: The options of a server (`lm_url`, `lm_model`, ...), which are not part of the configuration because a
            server's address may change between two runs. Ignored for a local model.

    Returns:
        The model; a local one is loaded.

    Raises:
        InputError: The model found here is not the one that the run was made with, or an option is invalid.
        PromptSearchError: The model cannot be downloaded or loaded.
    """
    drawing = {"temperature": config.temperature, "top_p": config.top_p}
    if config.lm.startswith("server:"):
        return ServerModel(server_place(server), **drawing)
    place = locate(config.lm)
    if place.fingerprint != config.fingerprint:
        raise InputError(
            f"--lm {place.name}: not the model that this run was made with; give that one, or another --study"
        )
    return LocalModel(place, **drawing).load()


def open_rater(config: FluencyConfig) -> Rater:
    """Open the language model that rates a run's prompts.

    Its weights are loaded when the first prompt is rated that is not in the cache.

    Args:
        config: The model.

    Raises:
        InputError: There is no such model, or it is not the one that the run was made with.
        PromptSearchError: The model cannot be downloaded.
    """
    place = locate(config.lm, "--fluency-lm")
    if place.fingerprint != config.fingerprint:
        raise InputError(f"--fluency-lm {place.name}: not the model that this run was made with; give that one")
    key = {"lm": place.fingerprint, "device": resolve_device("auto"), "rating": RATING}
    return Rater(LocalModel(place).log_likelihood, key)


def server_place(given: Mapping[str, Any]) -> ServerPlace:
    """Return the server that the command line's options describe.

    Args:
        given: The values of the options `--lm-url`, `--lm-model` and so on, by parameter name (`lm_url`, `lm_model`).

    Raises:
        InputError: The address, a number or the API is invalid, or the variable of the key is not set.
    """
    return ServerPlace(
        given["lm_url"],
        given["lm_model"],
        given["lm_api"],
        given["lm_key_env"],
        given["lm_timeout"],
        given["lm_tries"],
        given["lm_concurrency"],
        tokens=given.get("lm_tokens"),  # missing in runs of earlier versions
        omit=tuple(given.get("lm_omit", ())),
    )
