"""From what a run says of its language models to the models themselves."""

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

#: Part of the cache's key: a new number where texts are rated otherwise.
RATING = "2"


def open_writer(config: WriterConfig, server: Mapping[str, Any]) -> LocalModel | ServerModel:
    """The language model that writes a run's prompts.

    Args:
        config: which model.
        server: for a server, the options that name it (`lm_url`, `lm_model`, ...): it may move between two runs.

    Raises:
        InputError: the model found here is not the one that the run was made with.
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
    """The language model that rates a run's prompts; its weights are loaded when a prompt is new to the cache.

    Raises:
        InputError: the model found here is not the one that the run was made with.
    """
    place = locate(config.lm, "--fluency-lm")
    if place.fingerprint != config.fingerprint:
        raise InputError(f"--fluency-lm {place.name}: not the model that this run was made with; give that one")
    key = {"lm": place.fingerprint, "device": resolve_device("auto"), "rating": RATING}
    return Rater(LocalModel(place).log_likelihood, key)


def server_place(given: Mapping[str, Any]) -> ServerPlace:
    """The server that the options name.

    Raises:
        InputError: no valid address, a number that is out of range, an unknown API.
    """
    return ServerPlace(
        given["lm_url"],
        given["lm_model"],
        given["lm_api"],
        given["lm_key_env"],
        given["lm_timeout"],
        given["lm_tries"],
        given["lm_concurrency"],
        tokens=given.get("lm_tokens"),  # not in runs of an earlier version
        omit=tuple(given.get("lm_omit", ())),
    )
