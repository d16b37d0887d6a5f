"""A language model behind an OpenAI-compatible server: Ollama, vLLM, llama.cpp, `transformers serve` and the like."""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.hub import first_line
from promptsearch.lm.locate import check_drawing

APIS = ("chat", "completions")
#: Variable that the key is read from, unless another is named.
KEY = "OPENAI_API_KEY"
#: Tokens that an answer may have (a conversation's may think first), bytes that are read of one.
ANSWER, THOUGHTS, MOST = 48, 512, 1 << 20
#: Longest wait between two tries, in seconds, whatever a server asks for.
PATIENCE = 60.0


@dataclass(frozen=True)
class ServerPlace:
    """Where a server is and how it is asked.

    Attributes:
        url: up to and with /v1.
        model: what the server calls it.
        api: "chat" for conversations, "completions" for models that only go on with a text.
        key_env: environment variable that holds the key; where none is named, OPENAI_API_KEY if it is set.
        timeout: seconds for one call, from the first byte sent to the last one read.
        tries: of each call, while the server fails in ways that may pass.
        concurrency: calls at a time.
        wait: seconds before the second try; doubled before each further one.

    Raises:
        InputError: an address that is none, a key in it, a named variable that is not set.
    """

    url: str
    model: str
    api: str = "chat"
    key_env: str | None = None
    timeout: float = 60.0
    tries: int = 5
    concurrency: int = 4
    wait: float = 0.5

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
        except ValueError:
            parts = urllib.parse.urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"--lm-url {self.url}: not an http(s) address; write e.g. http://127.0.0.1:11434/v1")
        if parts.username or parts.password or parts.query:
            raise InputError("--lm-url: no key, password or query in the address; set the key in OPENAI_API_KEY")
        if self.api not in APIS:
            raise InputError(f"--lm-api {self.api}: choose from {', '.join(APIS)}")
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise InputError(f"--lm-key-env {self.key_env}: this environment variable is not set; put the key in it")
        for option, value, least in (
            ("--lm-timeout", self.timeout, 0.001),
            ("--lm-tries", self.tries, 1),
            ("--lm-concurrency", self.concurrency, 1),
        ):
            if not least <= value < float("inf"):
                raise InputError(f"{option} {value}: must be above 0, and finite")

    @property
    def key(self) -> str | None:
        return os.environ.get(self.key_env or KEY) or None


class _Passing(Exception):
    """A failure that may pass; `after` is the seconds that the server asks to wait."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class ServerModel:
    """Asks a server for one answer per prompt, a few calls at a time, again where it fails in passing.

        model = ServerModel(ServerPlace("http://127.0.0.1:11434/v1", "llama3.2"))
        print(model.write([[{"role": "user", "content": "Shorten: a dark photo of a {}."}]], seed=0))

    Raises:
        InputError: the openai package is missing; a temperature or a top-p that is none.
    """

    def __init__(self, place: ServerPlace, *, temperature: float = 1.0, top_p: float = 0.95) -> None:
        check_drawing(temperature, top_p)
        try:
            import openai
        except ImportError as e:
            raise InputError("--lm-url needs the openai package; pip install 'promptsearch[lm]'") from e
        self.place, self.temperature, self.top_p = place, temperature, top_p
        self._usage: Counter[str] = Counter()
        self._limit = "max_tokens"
        self._lock = threading.Lock()
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=place.url, api_key=place.key or "none", timeout=place.timeout, max_retries=0
        )

    @property
    def chats(self) -> bool:
        return self.place.api == "chat"

    @property
    def usage(self) -> Counter[str]:
        return self._usage

    def fits(self, prompt: Any) -> bool:
        return True  # only the server knows

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """One answer per prompt.

        Raises:
            PromptSearchError: the server does not answer, or not in OpenAI's form, however often it is asked.
        """
        answers: list[str] = [""] * len(prompts)
        left = iter(range(len(prompts)))
        failed: list[BaseException] = []
        seeds = np.random.SeedSequence(seed).generate_state(max(1, len(prompts))) >> 1

        def work() -> None:
            while not failed:
                with self._lock:
                    i = next(left, None)
                if i is None:
                    return
                try:
                    answers[i] = self._answer(prompts[i], int(seeds[i]), failed)
                except BaseException as e:
                    failed.append(e)

        # Daemons: a server that hangs must not keep the process from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.place.concurrency, len(prompts)))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if failed:
            raise failed[0]
        return answers

    def _answer(self, prompt: Any, seed: int, failed: Sequence[BaseException]) -> str:
        wait, why = self.place.wait, ""
        for attempt in range(self.place.tries):
            try:
                return self._once(prompt, seed)
            except _Passing as e:
                why = str(e)
                if attempt + 1 == self.place.tries or failed:
                    break
                self._count({"tries that failed": 1})
                time.sleep(min(PATIENCE, wait if e.after is None else e.after))
                wait *= 2
        often = f"{self.place.tries} times" if self.place.tries > 1 else "and was asked once"
        raise PromptSearchError(
            f"--lm-url {self.place.url}: {why}, {often}; the trials so far are kept: "
            "see to the server, and the same command again resumes"
        )

    def _once(self, prompt: Any, seed: int) -> str:
        openai, place = self._openai, self.place
        body: dict[str, Any] = {"model": place.model, "temperature": self.temperature, "top_p": self.top_p}
        body |= {"seed": seed, self._limit: THOUGHTS if self.chats else ANSWER}
        if self.chats:
            call = self._client.chat.completions.with_streaming_response.create
            body["messages"] = prompt
        else:
            call = self._client.completions.with_streaming_response.create  # type: ignore[assignment]
            body |= {"prompt": prompt, "stop": ["\n"]}
        deadline = time.monotonic() + place.timeout
        try:
            with call(**body) as response:
                raw = _read(response, deadline, place.timeout)
        except openai.APITimeoutError as e:
            raise _Passing(f"no answer within {place.timeout:g} s") from e
        except openai.APIStatusError as e:
            self._refused(e, body)
        except openai.APIConnectionError as e:
            raise _Passing(f"no connection ({first_line(e.__cause__ or e)})") from e
        except _Passing:
            raise
        except Exception as e:  # the transport's own errors while a body is read: httpx, h11, ssl
            raise _Passing(f"the connection was cut ({type(e).__name__})") from e
        return self._text(raw)

    def _refused(self, e: Any, body: dict[str, Any]) -> None:
        """An answer with an error's status: one that may pass, or one that says what is wrong."""
        place, status = self.place, int(e.status_code)
        said = first_line(Exception(_message(e)))[:200]
        if status in (408, 409, 425, 429) or status >= 500:
            raise _Passing(f"it answers {status} ({said})", _after(e.response.headers)) from e
        if status == 400 and "max_completion_tokens" in said and "max_tokens" in body:
            self._limit = "max_completion_tokens"
            raise _Passing("it wants max_completion_tokens", 0.0) from e
        if status in (401, 403):
            name = place.key_env or KEY
            missing = f"set the key in {name}, or name its variable with --lm-key-env"
            remedy = f"check the key in {name}" if place.key else missing
            raise InputError(f"--lm-url {place.url}: it wants an API key ({status}); {remedy}") from e
        if status in (404, 405):
            raise InputError(
                f"--lm-url {place.url}: {status} for the model {place.model!r} ({said}); "
                "check the address (it usually ends in /v1), --lm-model and --lm-api"
            ) from e
        raise PromptSearchError(
            f"--lm-url {place.url}: it refuses the request with {status} ({said}); check --lm-model and --lm-api"
        ) from e

    def _text(self, raw: bytes) -> str:
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as e:
            what = "HTML" if raw.lstrip()[:1] == b"<" else "something that is no JSON"
            raise _Passing(f"it answers {what} (is this the address of its API? it usually ends in /v1)") from e
        try:
            choice = data["choices"][0]
            text = choice["message"]["content"] if self.chats else choice["text"]
        except (KeyError, IndexError, TypeError) as e:
            raise _Passing("it answers JSON that is not in OpenAI's form") from e
        if text is not None and not isinstance(text, str):
            raise _Passing("it answers JSON that is not in OpenAI's form")
        usage = data.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        read, written = (usage.get(k) for k in ("prompt_tokens", "completion_tokens"))
        self._count(
            {
                "calls": 1,
                "tokens read": read if isinstance(read, int) else 0,
                "tokens written": written if isinstance(written, int) else 0,
            }
        )
        return text or ""

    def _count(self, counts: dict[str, int]) -> None:
        with self._lock:
            self._usage.update(counts)


def _read(response: Any, deadline: float, timeout: float) -> bytes:
    """The whole body, unless it does not end."""
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > MOST:
            raise _Passing(f"an answer of more than {MOST >> 20} MB")
        if time.monotonic() > deadline:
            raise _Passing(f"an answer that did not end within {timeout:g} s")
    return bytes(raw)


def _message(e: Any) -> str:
    """What the server said about an error, where it said it in a known form."""
    try:
        raw = bytes(e.response.read())[:2000]
    except Exception:  # the body may be cut off too
        return "without a reason"
    try:
        data = json.loads(raw)
        error = data.get("error", data.get("detail", data))
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = "an HTML page" if raw.lstrip()[:1] == b"<" else raw.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in str(text)) or "without a reason"


def _after(headers: Any) -> float | None:
    """Seconds that Retry-After asks for, given in seconds or as a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            return None
