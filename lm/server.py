"""A language model behind an OpenAI-compatible server: Ollama, vLLM, llama.cpp, `transformers serve` and the like."""

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
from promptsearch.lm.server_reply import PARAMETERS, SHOWN, Complaint, NoAnswer, Written, read_answer, read_complaint

APIS = ("chat", "completions")
#: Variable that the key is read from, unless another is named.
KEY = "OPENAI_API_KEY"
#: Tokens that an answer may have unless told otherwise; a conversation's may think first.
ANSWER, THOUGHTS = 48, 512
#: Answers cut off before there was a whole one, after which a model is not asked any more.
CUT_MOST = 3
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
        tokens: that an answer may have, thoughts among them; by default 512, and 48 for completions.
        omit: parameters that are not sent: names out of `PARAMETERS`.

    Raises:
        InputError: an address that is none, a key in it, a named variable that is not set, an unknown parameter.
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
            raise InputError("--lm-url: no key, password or query in the address; set the key in OPENAI_API_KEY")
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
                raise InputError(f"{option} {value}: must be above 0, and finite")

        for name in self.omit:
            if name not in PARAMETERS:
                raise InputError(f"--lm-omit {name}: choose from {', '.join(PARAMETERS)}")

    @property
    def limit(self) -> int:
        """Tokens that an answer may have."""
        return self.tokens if self.tokens is not None else THOUGHTS if self.api == "chat" else ANSWER

    @property
    def key(self) -> str | None:
        return os.environ.get(self.key_env or KEY) or None


class ServerWarning(PromptSearchWarning):
    """A server is asked in another way than was wanted."""


class _AskAgain(Exception):
    """The request was changed, so that it is no second try of the same."""


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
        self._omitted = set(place.omit)
        self._limit = "max_tokens"
        self._whole = self._cut = 0
        self._lock = threading.Lock()
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=place.url,
            api_key=place.key or "none",
            timeout=place.timeout,
            max_retries=0,
            # A compressed error of some bytes may unpack into gigabytes, which the client would read whole.
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [bound_errors(place.timeout)]}),
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
        """One answer per prompt; of an answer that was cut off while the model thought, the thought.

        Raises:
            PromptSearchError: the server does not answer, or not in OpenAI's form, however often it is asked; or every
                answer is cut off.
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
        if not self._whole and self._cut >= CUT_MOST:
            at = "the server's own limit" if "max_tokens" in self._omitted else f"{self.place.limit} tokens"
            raise PromptSearchError(
                f"--lm-url {self.place.url}: all {self._cut} answers were cut off at {at}, most likely while the "
                "model thought (finish_reason length); raise --lm-tokens, or turn its thinking off at the server: the "
                "trials so far are kept, and the same command again resumes"
            )
        return answers

    def _answer(self, prompt: Any, seed: int, failed: Sequence[BaseException]) -> str:
        wait, attempt = self.place.wait, 1
        while True:
            try:
                return self._once(prompt, seed)
            except _AskAgain:
                continue  # at most once for each parameter
            except Passing as e:
                left = self.place.tries - attempt
                pause = wait if e.after is None else e.after
                if not left or failed or pause > PATIENCE * left:
                    asked = f"{attempt} times" if attempt > 1 else "and was asked once"
                    later = f", and asks to wait {pause:.0f} s" if left and pause > PATIENCE * left else ""
                    raise PromptSearchError(
                        f"--lm-url {self.place.url}: {e}, {asked}{later}; the trials so far are kept: "
                        "see to the server, and the same command again resumes"
                    ) from e
                self._count({"tries that failed": 1})
                time.sleep(min(PATIENCE, pause))
                wait, attempt = 2 * wait, attempt + 1

    def _body(self, prompt: Any, seed: int) -> dict[str, Any]:
        """What is sent, without what the server does not take."""
        place = self.place
        wanted: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "seed": seed}
        wanted |= {"max_tokens": place.limit} | ({} if self.chats else {"stop": ["\n"]})
        with self._lock:
            sent = {self._limit if k == "max_tokens" else k: v for k, v in wanted.items() if k not in self._omitted}
        return {"model": place.model, **sent, **({"messages": prompt} if self.chats else {"prompt": prompt})}

    def _once(self, prompt: Any, seed: int) -> str:
        body, place = self._body(prompt, seed), self.place
        raw = within(place.timeout, lambda: self._call(body))
        try:
            answer = read_answer(raw, self.chats)
        except NoAnswer as e:
            if e.complaint is not None:
                self._refused(e.complaint, e.complaint.code or 200, None, body)
            raise Passing(str(e)) from e
        self._note(answer)
        return answer.text

    def _call(self, body: dict[str, Any]) -> bytes:
        """The body of the answer to one request."""
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
            self._refused(complaint, int(e.status_code), retry_after(e.response.headers), body)
            raise Passing(
                f"it answers {e.status_code} ({complaint.message[:SHOWN]})", retry_after(e.response.headers)
            ) from e
        except openai.APIConnectionError as e:
            cause = e.__cause__ or e
            if "CERTIFICATE_VERIFY_FAILED" in str(cause) or isinstance(cause, ssl.SSLCertVerificationError):
                raise PromptSearchError(
                    f"--lm-url {place.url}: its certificate is not one that this machine trusts ({first_line(cause)}); "
                    "check the address, or set SSL_CERT_FILE to the certificate of who signed it"
                ) from e
            raise Passing(f"no connection ({first_line(cause)})") from e
        except Passing:
            raise
        except Exception as e:  # the transport's own errors while a body is read: httpx, h11, ssl
            raise Passing(f"the connection was cut ({type(e).__name__})") from e

    def _refused(self, complaint: Complaint, status: int, after: float | None, body: dict[str, Any]) -> None:
        """Raise what a complaint calls for, unless it may pass.

        Args:
            status: of the answer, or the code in a body of status 200.
            after: seconds that the server asks to wait.
            body: what was sent.
        """
        place, said = self.place, complaint.message[:SHOWN]
        if self._give_up(complaint, status, body):
            raise _AskAgain
        if status == 501 or (status in (200, 402, 429, 500) and after is None and complaint.lasts()):
            raise PromptSearchError(
                f"--lm-url {place.url}: it answers {status} ({said}), which no further try would mend; the trials so "
                "far are kept: see to that, and the same command again resumes"
            )
        if status == 200 or status in (408, 409, 425, 429) or status >= 500:
            return
        if status in (401, 403):
            name = place.key_env or KEY
            missing = f"set the key in {name}, or name its variable with --lm-key-env"
            remedy = f"check the key in {name}" if place.key else missing
            raise InputError(f"--lm-url {place.url}: it wants an API key ({status}: {said}); {remedy}")
        if status in (404, 405):
            raise InputError(
                f"--lm-url {place.url}: {status} for the model {place.model!r} ({said}); "
                "check the address (it usually ends in /v1), --lm-model and --lm-api"
            )
        raise PromptSearchError(
            f"--lm-url {place.url}: it refuses the request with {status} ({said}); check --lm-model and --lm-api, "
            "or leave a parameter out with --lm-omit"
        )

    def _give_up(self, complaint: Complaint, status: int, body: dict[str, Any]) -> bool:
        """Whether the request is another from now on: without the parameter that was named, or with its new name."""
        sent = {"max_tokens" if k == "max_completion_tokens" else k for k in body} & PARAMETERS.keys()
        name = complaint.refuses(sent, status)
        if name is None:
            return False
        with self._lock:
            now = self._limit if name == "max_tokens" else name
            if name in self._omitted or now not in body:  # another call was told the same in the meantime
                return True
            if now == "max_tokens" and self.chats:
                self._limit = "max_completion_tokens"
                return True
            self._omitted.add(name)
        message = (
            f"--lm-url {self.place.url}: it does not take {name} ({complaint.message[:SHOWN]}); left out from now on"
        )
        warnings.warn(message, ServerWarning, stacklevel=2)
        return True

    def _note(self, answer: Written) -> None:
        with self._lock:
            self._cut += answer.cut
            self._whole += not answer.cut
        counts = {"calls": 1, "tokens read": answer.read, "tokens written": answer.written}
        self._count({**counts, "answers cut off": 1} if answer.cut else counts)

    def _count(self, counts: dict[str, int]) -> None:
        with self._lock:
            self._usage.update(counts)
