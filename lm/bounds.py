"""Limits on the time and size of a server's answers, so that every call ends."""

from __future__ import annotations

import concurrent.futures
import email.utils
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Largest number of bytes that are read of an answer, and of an error.
MOST, MOST_OF_ERROR = 1 << 20, 1 << 16


class Passing(Exception):
    """A temporary failure, after which the call is tried again.

    Attributes:
        after: Seconds that the server asks the client to wait, or None.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def within(seconds: float, call: Callable[[], bytes]) -> bytes:
    """Return the result of a call, waiting a limited time even if the server sends its headers byte by byte.

    Args:
        seconds: The time limit.
        call: The call.

    Raises:
        Passing: There is no result in time.
    """
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as e:  # raised again in the thread that waits for the answer
            future.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    try:
        # a little longer than the client's own timeout, whose error says more
        return future.result(seconds + min(5.0, seconds))
    except concurrent.futures.TimeoutError as e:
        raise Passing(f"no answer within {seconds:g} s") from e


def bound_errors(timeout: float) -> Callable[[Any], None]:
    """Return a hook that limits the body of an error, which the HTTP client would otherwise read completely.

    Args:
        timeout: Seconds for the body.
    """

    def bound(response: Any) -> None:
        if response.status_code < 300:
            return
        http = sys.modules[type(response).__module__.partition(".")[0]]  # httpx, or what openai uses in its place
        response.headers.pop("content-encoding", None)  # the client did not request compression

        class Bounded(http.SyncByteStream):  # type: ignore[name-defined]
            def __iter__(self) -> Iterator[bytes]:
                read, deadline = 0, time.monotonic() + timeout
                for chunk in stream:
                    yield chunk
                    read += len(chunk)
                    if read > MOST_OF_ERROR or time.monotonic() > deadline:
                        return

            def close(self) -> None:
                stream.close()

        stream, response.stream = response.stream, Bounded()

    return bound


def read_body(response: Any, deadline: float, timeout: float) -> bytes:
    """Read the whole body of a response, up to limits of size and time.

    Args:
        response: The response.
        deadline: When to stop, by `time.monotonic()`.
        timeout: The time limit in seconds, for the message.

    Raises:
        Passing: A limit is exceeded.
    """
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > MOST:
            raise Passing(f"an answer of more than {MOST >> 20} MB")
        if time.monotonic() > deadline:
            raise Passing(f"an answer that did not end within {timeout:g} s")
    return bytes(raw)


def retry_after(headers: Any) -> float | None:
    """Return the seconds to wait by the header Retry-After, which has seconds or a date, or None."""
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
