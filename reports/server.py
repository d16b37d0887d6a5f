"""The web page of `promptsearch explore`: a Starlette application that serves on the loopback interface only."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from promptsearch.banks import Bank
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.reports.explorer import Explorer

if TYPE_CHECKING:
    from PIL.Image import Image
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
#: Largest number of the bank's templates that the page lists, and of bytes in a request.
LISTED, ASKED = 5000, 100_000

#: Returns the training picture with this index.
Picture = Callable[[int], "Image"]

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address contains the token
    "X-Content-Type-Options": "nosniff",
}
#: Seconds that open connections get to finish after Ctrl-C.
GRACE = 1

log = logging.getLogger(__name__)


def bind(port: int) -> socket.socket:
    """Open a listening socket on the loopback interface.

    Args:
        port: Port number; 0 picks any free one.

    Returns:
        The socket.

    Raises:
        InputError: The port is in use or not permitted.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen()
    except OSError as e:
        sock.close()
        why = "is in use" if e.errno == errno.EADDRINUSE else f"cannot be opened ({e.strerror})"
        raise InputError(f"--port {port}: {why}; choose another, or 0 for any free port") from e
    return sock


def build_app(
    explorer: Explorer, bank: Bank, heading: str, picture: Picture | None = None, token: str = ""
) -> Starlette:
    """Build the web application: the page, its scripts, the scoring endpoint and the pictures.

    Only the page itself may use it: requests from pages of other origins, and requests without the token, are refused.

    Args:
        explorer: Scores what is typed.
        bank: Bank whose templates the page lists.
        heading: Model, data set and draw in one line.
        picture: Returns a training picture by its index, or None if only features are available.
        token: A secret with which every path must begin; by default there is none.

    Returns:
        A Starlette application; `app.state.computing` counts the questions that are being computed.
    """
    import jinja2
    from plotly.offline import get_plotlyjs
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Mount, Route

    folder = resources.files("promptsearch.reports") / "page"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string((folder / "explore.html.j2").read_text("utf-8")).render(
        heading=heading,
        css=(folder / "report.css").read_text("utf-8") + (folder / "explore.css").read_text("utf-8"),
        support=len(explorer.task.support),
        held_out=len(explorer.held_out),
        pictures=picture is not None,
        notes=explorer.problem.notes,
        bank=bank.name,
    )
    scripts = {"explore.js": (folder / "explore.js").read_text("utf-8"), "plotly.js": get_plotlyjs()}

    async def page(request: Request) -> Response:
        return HTMLResponse(html)

    async def script(request: Request) -> Response:
        return Response(scripts[request.url.path.rpartition("/")[2]], media_type="text/javascript")

    async def templates(request: Request) -> Response:
        return JSONResponse({"templates": [str(t) for t in bank.templates[:LISTED]], "all": len(bank)})

    async def look(request: Request) -> Response:
        return await _look(request, explorer)

    async def one_picture(request: Request) -> Response:
        return await _one_picture(request, picture)

    async def failed(request: Request, error: Exception) -> Response:
        log.debug("%s", request.url.path, exc_info=error)
        return JSONResponse({"error": f"unexpected {type(error).__name__}: {str(error)[:300]}"}, status_code=500)

    routes = [
        Route("/", page),
        Route("/explore.js", script),
        Route("/plotly.js", script),
        Route("/bank", templates),
        Route("/look", look, methods=["POST"]),
        Route("/picture/{index:int}", one_picture),
    ]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)] if token else routes,
        # Refuse other Host headers: they come from pages that point their own name at this address (DNS rebinding).
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_SameOrigin)],
        exception_handlers={Exception: failed},
    )
    app.state.computing = 0
    return app


async def _look(request: Request, explorer: Explorer) -> Response:
    """Answer a question of the page: what is typed, scored."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response

    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return JSONResponse({"error": "send application/json"}, status_code=415)
    try:
        asked = await _question(request)
        request.app.state.computing += 1
        try:
            return JSONResponse(await _in_thread(lambda: explorer.look(**asked)))
        finally:
            request.app.state.computing -= 1
    except _NotJSON as e:
        return JSONResponse({"error": str(e)}, status_code=400)
    except PromptSearchError as e:
        return JSONResponse({"error": str(e)}, status_code=422)
    except ClientDisconnect:
        return Response(status_code=400)  # the client has disconnected and does not read it


async def _one_picture(request: Request, picture: Picture | None) -> Response:
    """Answer with a training picture as PNG."""
    from starlette.responses import JSONResponse, Response

    def png() -> bytes:
        if picture is None:
            raise InputError("this data set has features but no pictures")
        buffer = io.BytesIO()
        picture(request.path_params["index"]).save(buffer, "PNG")
        return buffer.getvalue()

    try:
        data = await _in_thread(png)
    except PromptSearchError as e:
        return JSONResponse({"error": str(e)}, status_code=404)
    except (LookupError, OverflowError, ValueError):
        return JSONResponse({"error": "there is no such picture"}, status_code=404)
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


class _NotJSON(Exception):
    """The body of a request is not JSON."""


class _SameOrigin:
    """Middleware that refuses requests from pages of other origins, and tells browsers not to give them answers."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":  # only HTTP is served, no web sockets
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # the user has followed a link to the page
        visited = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if origin not in (None, f"http://{headers.get('host')}") or (
            site not in ("same-origin", "none") and not visited
        ):
            await PlainTextResponse("pages of other origins may not use this", 403)(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, run in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():  # the client has left
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as e:  # raised again in the task that waits for the result
            failure = e
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return await future


async def _question(request: Request) -> dict[str, Any]:
    """Read a request of the form {"templates": [...], "against": [...], "phrases": {class: [...]}}.

    Raises:
        _NotJSON: The body is not JSON, or is nested too deeply.
        InputError: The request is too large or has another form.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > ASKED:
            raise InputError(f"the request is larger than {ASKED} bytes; enter fewer templates")
    try:
        data = json.loads(bytes(body))
    except ValueError as e:
        raise _NotJSON(f"the request is not JSON: {e}") from e
    except RecursionError as e:
        raise _NotJSON("the request is nested too deeply") from e
    if (
        not isinstance(data, dict)
        or "templates" not in data
        or not all(_texts(data[k]) for k in ("templates", "against") if k in data)
        or not all(_phrases(data[k]) for k in ("phrases", "against_phrases") if k in data)
    ):
        raise InputError(
            'send {"templates": [...]}, "against": [...] to compare with other prompts than the hand-written one, and '
            '"phrases": {"class": [...]} for classes with other phrases than their names'
        )
    return {k: v for k, v in data.items() if k in ("templates", "against", "phrases", "against_phrases")}


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(t, str) for t in value)


def _phrases(value: object) -> bool:
    return isinstance(value, dict) and all(_texts(v) for v in value.values())


def make_server(app: Starlette) -> Any:
    """Return a uvicorn server; its `run(sockets=[bind(port)])` serves until `should_exit` is set or Ctrl-C.

    The server does not log malformed or truncated requests. When it stops, it waits `GRACE` seconds for open ones.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE)
    )
