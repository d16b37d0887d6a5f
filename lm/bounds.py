"""Bounds of time and size on what a server answers: whatever it sends, a call ends."""

from __future__ import annotations

import concurrent.futures
import email.utils
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Bytes that are read of an answer, and of an error.
MOST, MOST_OF_ERROR = 1 << 20, 1 << 16


class Passing(Exception):
    """A failure that may pass; `after` is the seconds that the server asks to wait."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def within(seconds: float, call: Callable[[], bytes]) -> bytes:
    """What a call gives, waited for so long at most: a server may send even its headers byte by byte."""
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as e:  # raised where the answer is waited for
            future.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    try:
        return future.result(seconds + min(5.0, seconds))  # the client's own bounds are the first to tell
    except concurrent.futures.TimeoutError as e:
        raise Passing(f"no answer within {seconds:g} s") from e


def bound_errors(timeout: float) -> Callable[[Any], None]:
    """A hook of the HTTP client, which reads the body of an error whole: let that body have an end.

    Args:
        timeout: seconds for the body.
    """

    def bound(response: Any) -> None:
        if response.status_code < 300:
            return
        http = sys.modules[type(response).__module__.partition(".")[0]]  # httpx, or what openai has in its place
        response.headers.pop("content-encoding", None)  # not asked for

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
    """The whole body, unless it does not end."""
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > MOST:
            raise Passing(f"an answer of more than {MOST >> 20} MB")
        if time.monotonic() > deadline:
            raise Passing(f"an answer that did not end within {timeout:g} s")
    return bytes(raw)


def retry_after(headers: Any) -> float | None:
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
