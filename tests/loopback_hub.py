"""A server on the loopback that stands in for the Hugging Face hub, for the real client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Models from a folder, as `/{repo}/resolve/{revision}/FILE`, with as much of the API as listing them takes.

    Attributes:
        cut: names of files that end before their length.
        gated: repositories whose files are for those who were let in, and the status of the answer to others: 401
            without a token, 403 with one that has no access.
        served: names of files that were sent.
        writers: the owner in whose name each token may write.
        created: the repositories that were made, and whether they are private.
    """

    folder: Path
    cut: set[str]
    gated: dict[str, int]
    served: list[str]
    writers: dict[str, str]
    created: dict[str, bool]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        """Make a repository, or commit files to it: as much of the API as pushing takes."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner = self.writers.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if self.path == "/api/validate-yaml":
            return self.send(200, json.dumps({"errors": [], "warnings": []}).encode())
        if owner is None:
            return self.send(401, b'{"error": "Invalid username or password."}')
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or owner}/{asked['name']}"
            if not repo.startswith(f"{owner}/"):
                return self.send(403, b'{"error": "You don\'t have the rights to create a model there"}')
            url = f"http://{self.headers['Host']}/{repo}"
            if repo in self.created:
                about = {"error": "You already created this model repo", "url": url}
                return self.send(409, json.dumps(about).encode())
            self.created[repo] = asked.get("private") or asked.get("visibility") == "private"
            (self.folder / repo).mkdir(parents=True)
            return self.send(200, json.dumps({"url": url}).encode())
        repo, action = "/".join(self.path.split("/")[3:5]), self.path.split("/")[5]
        if repo not in self.created:
            return self.send(404, b"{}", X_Error_Code="RepoNotFound")
        if action == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.send(200, json.dumps({"files": files}).encode())
        for row in map(json.loads, body.splitlines()):
            if row["key"] == "file":
                place = self.folder / repo / row["value"]["path"]
                place.write_bytes(base64.b64decode(row["value"]["content"]))
        about = {"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{REVISION}", "commitOid": REVISION}
        return self.send(200, json.dumps(about).encode())

    def answer(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            repo = "/".join(path.split("/")[3:5])
            files = sorted((self.folder / repo).iterdir()) if (self.folder / repo).is_dir() else []
            if not files:
                return self.send(404, b"{}", X_Error_Code="RepoNotFound")
            if path == f"/api/models/{repo}/tree/{REVISION}":
                rows = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
                return self.send(200, json.dumps(rows).encode())
            about = {"id": repo, "sha": REVISION, "siblings": [{"rfilename": f.name} for f in files]}
            return self.send(200, json.dumps(about).encode())
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        file = self.folder / repo / rest.partition("/")[2]
        if repo in self.gated:
            return self.send(self.gated[repo], b"", X_Error_Code="GatedRepo")
        if not rest or not file.is_file():
            return self.send(404, b"", X_Error_Code="EntryNotFound")
        content = file.read_bytes()
        if self.command == "GET":
            self.served.append(file.name)
        return self.send(200, content, file.name in self.cut, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def send(self, status: int, content: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def loopback_hub(folder: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A running hub with an empty folder, and the environment of a process that takes it for the real one."""
    handler = type(
        "H", (Hub,), {"folder": folder / "hub", "cut": set(), "gated": {}, "served": [], "writers": {}, "created": {}}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    env |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    try:
        yield handler, env
    finally:
        server.shutdown()
        server.server_close()
