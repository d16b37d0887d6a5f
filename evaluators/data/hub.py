"""The Hugging Face hub: check whether it is reachable, and find cached files.

The check comes first because the hub's own clients take a minute to give up.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"
TRUE = {"1", "ON", "YES", "TRUE"}
# Answers of a proxy or a gateway in place of the hub; any other answer, even an error, comes from a living server.
_NOT_THE_HUB = {403, 407, 451, 502, 503, 504}
_answer: tuple[bool, str] | None = None


def hub_reachable(timeout: float = 3.0) -> tuple[bool, str]:
    """Check whether HF_ENDPOINT, or huggingface.co, is reachable.  The first result is kept for the process.

    Args:
        timeout: Longest time to wait, in seconds.

    Returns:
        Whether the hub is reachable, and if not, the reason in a few words.
    """
    global _answer
    if _answer is None:
        _answer = _ask(timeout)
    return _answer


def go_offline() -> None:
    """Make huggingface_hub, datasets and transformers use their caches only, even if they are already imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module, names in {
        "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
        "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
        "transformers.utils.hub": ("_is_offline_mode",),  # transformers 4 keeps a copy of its own
    }.items():
        for name in names:
            if hasattr(sys.modules.get(module), name):
                setattr(sys.modules[module], name, True)


def find_cached(repo_id: str, filename: str, repo_type: str = "model") -> Path | None:
    """Return the newest cached copy of a file of a hub repository, or None.  The hub is not contacted."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, filename, repo_type=repo_type)
    return Path(found) if isinstance(found, str) else None


def prepared(repo: str, config: str | None) -> bool:
    """Return whether a data set of the hub is in the cache of `datasets` and opens offline."""
    owner, _, name = repo.partition("/")
    if not any(_datasets_cache().glob(f"{owner}___*")):
        return False  # answered without importing `datasets`, which takes a second
    from datasets.naming import camelcase_to_snakecase

    found = _datasets_cache().glob(f"{owner}___{camelcase_to_snakecase(name)}/{config or '*'}/*/*/dataset_info.json")
    return any(not path.parent.name.endswith(".incomplete") for path in found)


def _datasets_cache() -> Path:
    """Return the cache folder of `datasets`, by that library's rule, whether or not it is imported."""
    if settings := sys.modules.get("datasets.config"):
        return Path(settings.HF_DATASETS_CACHE).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets").expanduser()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _ask(timeout: float) -> tuple[bool, str]:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in TRUE:
            return False, f"{variable} is set"
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        address = urllib.parse.urlsplit(endpoint)
    except ValueError:  # the address has unmatched brackets
        address = urllib.parse.urlsplit("")
    if address.scheme not in ("http", "https") or not address.netloc:
        return False, f"HF_ENDPOINT={endpoint} is not an http(s) address"
    host = address.netloc.rpartition("@")[2]  # without a password
    answers: list[tuple[bool, str]] = []
    # A thread, because no timeout of a socket covers a name server that does not answer.
    thread = threading.Thread(
        target=lambda: answers.append(_probe(endpoint, host, timeout)), name="hub-probe", daemon=True
    )
    thread.start()
    thread.join(timeout)
    return answers[0] if answers else (False, f"no answer from {host} within {timeout:g} s")


def _probe(endpoint: str, host: str, timeout: float) -> tuple[bool, str]:
    proxies = urllib.request.getproxies()
    if "all" in proxies:  # urllib knows ALL_PROXY but does not use it; the hub's client does
        if proxies["all"].startswith("socks"):
            return True, ""  # urllib does not speak SOCKS: let the hub's client try
        proxies = {"http": proxies["all"], "https": proxies["all"], **proxies}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        opener.open(urllib.request.Request(endpoint + "/", method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError as error:
        error.close()
        return (False, f"{host} answers {error.code}") if error.code in _NOT_THE_HUB else (True, "")
    except Exception as error:  # http.client, ssl and socket errors alike: this function only reports
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return True, ""  # a server answers; the hub's client uses its own certificates
        return False, _in_words(reason, host, timeout)
    return True, ""


def _in_words(reason: object, host: str, timeout: float) -> str:
    if isinstance(reason, socket.gaierror):
        return f"the name {host} cannot be resolved"
    if isinstance(reason, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(reason, TimeoutError):
        return f"no answer from {host} within {timeout:g} s"
    if isinstance(reason, OSError) and reason.strerror:
        return f"no route to {host} ({reason.strerror})"
    return f"no route to {host} ({reason})"
