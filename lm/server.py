"""Language models on OpenAI-compatible servers: Ollama, vLLM, llama.cpp, `transformers serve` and others."""

from __future__ import annotations

import os
import ssl
import threading
import time
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.errors import InputError, PromptSearchError, PromptSearchWarning
from promptsearch.evaluators.data.hub import first_line
from promptsearch.lm.bounds import Passing, bound_errors, read_body, retry_after, within
from promptsearch.lm.locate import check_drawing
from promptsearch.lm.server_reply import (
    NO_TEXT,
    PARAMETERS,
    REFUSED,
    SHOWN,
    TOOL_CALL,
    Complaint,
    NoAnswer,
    Written,
    read_answer,
    read_complaint,
)

APIS = ("chat", "completions")
#: Default environment variable of the API key.
KEY = "OPENAI_API_KEY"
#: Default limits on the tokens of an answer; larger for conversations, in which the model may reason first.
ANSWER, THOUGHTS = 48, 512
#: Number of truncated answers, or answers without text, after which the model is not asked any more if none was usable.
CUT_MOST = 3
#: Remedies if every answer lacks text, by the most frequent reason.
REMEDIES = {
    REFUSED: "choose another --lm-model, or relax the content filter on the server",
    TOOL_CALL: "turn tools off on the server, or choose another --lm-model",
    NO_TEXT: "check --lm-api and --lm-model, and turn reasoning off on the server",
}
#: Longest wait between two attempts in seconds, whatever the server asks for.
PATIENCE = 60.0
#: End of the messages about failures after which a run can be resumed.
RESUME = "run the same command again to resume from the recorded trials"


@dataclass(frozen=True)
class ServerPlace:
    """The address of a server and how to use it.

    Attributes:
        url: URL of the API, usually ending in /v1.
        model: Name of the model on the server.
        api: "chat" for conversations, "completions" for models that only complete text.
        key_env: Environment variable with the API key; by default OPENAI_API_KEY, if it is set.
        timeout: Time limit of a call in seconds, from the first byte sent to the last byte read.
        tries: Number of attempts for each call, if failures may be temporary.
        concurrency: Number of parallel calls.
        wait: Seconds before the second attempt; doubled before each further one.
        tokens: Largest number of tokens in an answer, including reasoning; by default 512, or 48 for completions.
        omit: Names out of `PARAMETERS` that are not sent.

    Raises:
        InputError: The URL is invalid or contains a key, `key_env` is not set, or another value is invalid.
    """

    url: str
    model: str
    api: str = "chat"
    key_env: str | None = None
    timeout: float = 60.0
    tries: int = 5
    concurrency: int = 4
    wait: float = 0.5
    tokens: int | None = None
    omit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
        except ValueError:
            parts = urllib.parse.urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"--lm-url {self.url}: not an http(s) address; write e.g. http://127.0.0.1:11434/v1")
        if parts.username or parts.password or parts.query:
            raise InputError("--lm-url: must not contain a key, password or query; set the key in OPENAI_API_KEY")
        if self.api not in APIS:
            raise InputError(f"--lm-api {self.api}: choose from {', '.join(APIS)}")
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise InputError(f"--lm-key-env {self.key_env}: this environment variable is not set; put the key in it")
        for option, value, least in (
            ("--lm-timeout", self.timeout, 0.001),
            ("--lm-tries", self.tries, 1),
            ("--lm-concurrency", self.concurrency, 1),
            ("--lm-tokens", self.limit, 1),
        ):
            if not least <= value < float("inf"):
                raise InputError(f"{option} {value}: must be above 0 and finite")

        for name in self.omit:
            if name not in PARAMETERS:
                raise InputError(f"--lm-omit {name}: choose from {', '.join(PARAMETERS)}")

    @property
    def limit(self) -> int:
        """The largest number of tokens in an answer."""
        return self.tokens if self.tokens is not None else THOUGHTS if self.api == "chat" else ANSWER

    @property
    def key(self) -> str | None:
        """The API key, if there is one."""
        return os.environ.get(self.key_env or KEY) or None


class ServerWarning(PromptSearchWarning):
    """A request is sent to the server without a parameter that it does not support."""


class _Filtered(Exception):
    """The server's content filter withholds the answer to one prompt."""


class _AskAgain(Exception):
    """The request was changed, so that sending it again does not count as another attempt."""


class ServerModel:
    """A language model on a server, called for several prompts in parallel, with retries after temporary failures.

        model = ServerModel(ServerPlace("http://127.0.0.1:11434/v1", "llama3.2"))
        print(model.write([[{"role": "user", "content": "Shorten: a dark photo of a {}."}]], seed=0))

    Args:
        place: The server.
        temperature: Sampling temperature.
        top_p: Probability mass from which tokens are sampled.

    Raises:
        InputError: The openai package is not installed, or the temperature or top-p is invalid.
    """

    def __init__(self, place: ServerPlace, *, temperature: float = 1.0, top_p: float = 0.95) -> None:
        check_drawing(temperature, top_p)
        try:
            import openai
        except ImportError as e:
            raise InputError("--lm-url needs the openai package; pip install 'promptsearch[lm]'") from e
        self.place, self.temperature, self.top_p = place, temperature, top_p
        self._usage: Counter[str] = Counter()
        self._omitted = set(place.omit)
        self._limit = "max_tokens"
        self._whole = self._cut = 0
        self._lacking: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=place.url,
            api_key=place.key or "none",
            timeout=place.timeout,
            max_retries=0,
            # A few compressed bytes can expand to gigabytes, which the client would read completely.
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [bound_errors(place.timeout)]}),
        )

    @property
    def chats(self) -> bool:
        """Whether prompts are conversations."""
        return self.place.api == "chat"

    @property
    def usage(self) -> Counter[str]:
        """Number of calls, and of tokens read and written."""
        return self._usage

    def fits(self, prompt: Any) -> bool:
        """Return True, because only the server knows its context length."""
        return True

    def write(self, prompts: Sequence[Any], seed: int) -> list[str]:
        """Write one answer per prompt.

        Args:
            prompts: Conversations, or texts to complete.
            seed: Seed that is sent to the server.

        Returns:
            The answers. For an answer that was truncated during reasoning it is the reasoning, and for one without text
            a mark.

        Raises:
            PromptSearchError: The server does not answer or not in OpenAI's format, after all attempts, or every answer
                was truncated or without text.
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

        # Daemon threads, so that a server that hangs cannot keep the process from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.place.concurrency, len(prompts)))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if failed:
            raise failed[0]
        lacking = sum(self._lacking.values())
        if not self._whole and lacking and lacking + self._cut >= CUT_MOST:
            reasons = "; ".join(f"{n} {why} ({self._said[why]})" for why, n in self._lacking.most_common())
            raise PromptSearchError(
                f"--lm-url {self.place.url}: no answer of {lacking + self._cut} has text: {reasons}"
                f"{f'; {self._cut} cut off' if self._cut else ''}; {REMEDIES[self._lacking.most_common(1)[0][0]]}, and "
                f"{RESUME}"
            )
        if not self._whole and self._cut >= CUT_MOST:
            at = "the server's own limit" if "max_tokens" in self._omitted else f"{self.place.limit} tokens"
            raise PromptSearchError(
                f"--lm-url {self.place.url}: all {self._cut} answers were cut off at {at}, most likely during the "
                "model's reasoning (finish_reason length); increase --lm-tokens or turn reasoning off on the server, "
                f"and {RESUME}"
            )
        return answers

    def _answer(self, prompt: Any, seed: int, failed: Sequence[BaseException]) -> str:
        wait, attempt = self.place.wait, 1
        while True:
            try:
                return self._once(prompt, seed)
            except _AskAgain:
                continue  # happens at most once for each parameter
            except Passing as e:
                left = self.place.tries - attempt
                pause = wait if e.after is None else e.after
                if not left or failed or pause > PATIENCE * left:
                    asked = f"{attempt} attempts" if attempt > 1 else "1 attempt"
                    later = f", and the server asks to wait {pause:.0f} s" if left and pause > PATIENCE * left else ""
                    raise PromptSearchError(
                        f"--lm-url {self.place.url}: {e} ({asked}{later}); check the server and {RESUME}"
                    ) from e
                self._count({"tries that failed": 1})
                time.sleep(min(PATIENCE, pause))
                wait, attempt = 2 * wait, attempt + 1

    def _body(self, prompt: Any, seed: int) -> dict[str, Any]:
        """Return the body of a request, without the parameters that the server does not support."""
        place = self.place
        wanted: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "seed": seed}
        wanted |= {"max_tokens": place.limit} | ({} if self.chats else {"stop": ["\n"]})
        with self._lock:
            sent = {self._limit if k == "max_tokens" else k: v for k, v in wanted.items() if k not in self._omitted}
        return {"model": place.model, **sent, **({"messages": prompt} if self.chats else {"prompt": prompt})}

    def _once(self, prompt: Any, seed: int) -> str:
        body, place = self._body(prompt, seed), self.place
        try:
            answer = read_answer(within(place.timeout, lambda: self._call(body)), self.chats)
        except _Filtered as e:
            answer = Written.without_text(REFUSED, str(e))
        except NoAnswer as e:
            if e.complaint is None or not e.complaint.filters(e.complaint.code or 200):
                if e.complaint is not None:
                    self._refused(e.complaint, e.complaint.code or 200, None, body)
                raise Passing(str(e)) from e
            answer = Written.without_text(REFUSED, e.complaint.message)
        self._note(answer)
        return answer.text

    def _call(self, body: dict[str, Any]) -> bytes:
        """Send a request and return the body of the response."""
        openai, place = self._openai, self.place
        create = self._client.chat.completions if self.chats else self._client.completions
        deadline = time.monotonic() + place.timeout
        try:
            with create.with_streaming_response.create(**body) as response:
                return read_body(response, deadline, place.timeout)
        except openai.APITimeoutError as e:
            raise Passing(f"no answer within {place.timeout:g} s") from e
        except openai.APIStatusError as e:
            complaint = read_complaint(e.response.content, place.key)
            if complaint.filters(int(e.status_code)):
                raise _Filtered(complaint.message) from e
            self._refused(complaint, int(e.status_code), retry_after(e.response.headers), body)
            raise Passing(
                f"it answers {e.status_code} ({complaint.message[:SHOWN]})", retry_after(e.response.headers)
            ) from e
        except openai.APIConnectionError as e:
            cause = e.__cause__ or e
            if "CERTIFICATE_VERIFY_FAILED" in str(cause) or isinstance(cause, ssl.SSLCertVerificationError):
                raise PromptSearchError(
                    f"--lm-url {place.url}: this machine does not trust its certificate ({first_line(cause)}); check "
                    "the address, or set SSL_CERT_FILE to the certificate of its issuer"
                ) from e
            raise Passing(f"no connection ({first_line(cause)})") from e
        except (Passing, _Filtered):
            raise
        except Exception as e:  # errors of the transport while a body is read (httpx, h11, ssl)
            raise Passing(f"the connection was cut ({type(e).__name__})") from e

    def _refused(self, complaint: Complaint, status: int, after: float | None, body: dict[str, Any]) -> None:
        """Raise the error for a complaint, unless the failure may be temporary.

        Args:
            complaint: The server's complaint.
            status: Status of the response, or the error code in a body with status 200.
            after: Seconds that the server asks to wait.
            body: The request.
        """
        place, said = self.place, complaint.message[:SHOWN]
        if self._give_up(complaint, status, body):
            raise _AskAgain
        if status == 501 or (status in (200, 402, 429, 500) and after is None and complaint.lasts()):
            raise PromptSearchError(
                f"--lm-url {place.url}: it answers {status} ({said}), and another attempt would not help; solve "
                f"the problem and {RESUME}"
            )
        if status == 200 or status in (408, 409, 425, 429) or status >= 500:
            return
        if status in (401, 403):
            name = place.key_env or KEY
            missing = f"set the key in {name}, or name its variable with --lm-key-env"
            remedy = f"check the key in {name}" if place.key else missing
            raise InputError(f"--lm-url {place.url}: it requires an API key ({status}: {said}); {remedy}")
        if status in (404, 405):
            raise InputError(
                f"--lm-url {place.url}: {status} for the model {place.model!r} ({said}); "
                "check the address (it usually ends in /v1), --lm-model and --lm-api"
            )
        raise PromptSearchError(
            f"--lm-url {place.url}: it rejects the request with {status} ({said}); check --lm-model and --lm-api, "
            "or leave a parameter out with --lm-omit"
        )

    def _give_up(self, complaint: Complaint, status: int, body: dict[str, Any]) -> bool:
        """Drop or rename the parameter that the server rejects; return whether the request has changed."""
        sent = {"max_tokens" if k == "max_completion_tokens" else k for k in body} & PARAMETERS.keys()
        name = complaint.refuses(sent, status)
        if name is None:
            return False
        with self._lock:
            now = self._limit if name == "max_tokens" else name
            if name in self._omitted or now not in body:  # another call has dropped or renamed it meanwhile
                return True
            if now == "max_tokens" and self.chats:
                self._limit = "max_completion_tokens"
                return True
            self._omitted.add(name)
        message = (
            f"--lm-url {self.place.url}: it does not support {name} ({complaint.message[:SHOWN]}), which is no longer "
            "sent"
        )
        warnings.warn(message, ServerWarning, stacklevel=2)
        return True

    def _note(self, answer: Written) -> None:
        with self._lock:
            self._cut += answer.cut
            self._whole += not (answer.cut or answer.lacking)
            if answer.lacking:
                self._lacking[answer.lacking] += 1
                self._said.setdefault(answer.lacking, answer.text.partition(">")[2])
        counts = {"calls": 1, "tokens read": answer.read, "tokens written": answer.written}
        self._count({**counts, "answers cut off": 1} if answer.cut else counts)

    def _count(self, counts: dict[str, int]) -> None:
        with self._lock:
            self._usage.update(counts)
