"""The web page of `promptsearch explore`: a Starlette application that serves on the loopback interface only."""

from __future__ import annotations

import errno
import io
import socket
from collections.abc import Callable, Sequence
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


def build_app(explorer: Explorer, bank: Bank, heading: str, picture: Picture | None = None) -> Starlette:
    """Build the web application: the page, its scripts, the scoring endpoint and the pictures.

    Args:
        explorer: Scores what is typed.
        bank: Bank whose templates the page lists.
        heading: Model, data set and draw in one line.
        picture: Returns a training picture by its index, or None if only features are available.

    Returns:
        A Starlette application.
    """
    import jinja2
    from plotly.offline import get_plotlyjs
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

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

    def page(request: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    def script(request: Request) -> Response:
        return Response(scripts[request.url.path.strip("/")], media_type="text/javascript")

    def templates(request: Request) -> Response:
        return JSONResponse({"templates": [str(t) for t in bank.templates[:LISTED]], "all": len(bank)})

    async def look(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        try:
            asked = await _question(request)
            return JSONResponse(await run_in_threadpool(explorer.look, **asked))
        except PromptSearchError as e:
            return JSONResponse({"error": str(e)}, status_code=422)

    def one_picture(request: Request) -> Response:
        try:
            if picture is None:
                raise InputError("this data set has features but no pictures")
            buffer = io.BytesIO()
            picture(request.path_params["index"]).save(buffer, "PNG")
        except PromptSearchError as e:
            return JSONResponse({"error": str(e)}, status_code=404)
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/explore.js", script),
            Route("/plotly.js", script),
            Route("/bank", templates),
            Route("/look", look, methods=["POST"]),
            Route("/picture/{index:int}", one_picture),
        ],
        # Refuse other Host headers: they come from pages that point their own name at this address (DNS rebinding).
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


async def _question(request: Request) -> dict[str, Sequence[str]]:
    """Read a request of the form {"templates": [...], "against": [...]}.

    Raises:
        InputError: The request is too large or has another form.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > ASKED:
            raise InputError(f"the request is larger than {ASKED} bytes; enter fewer templates")
    import json

    try:
        data = json.loads(body)
    except ValueError as e:
        raise InputError(f"the request is not JSON: {e}") from e
    if not isinstance(data, dict) or not all(isinstance(v, list) for v in data.values()) or "templates" not in data:
        raise InputError(
            'send {"templates": [...]}, and "against": [...] to compare with other prompts than the hand-written one'
        )
    return {k: v for k, v in data.items() if k in ("templates", "against")}


def make_server(app: Starlette) -> Any:
    """Return a uvicorn server; its `run(sockets=[bind(port)])` serves until `should_exit` is set or Ctrl-C."""
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
