"""A real PostgreSQL server for the tests: a cluster of its own in a temporary folder, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """Where `initdb` is: on the PATH, or where Debian keeps it."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


def serve() -> Iterator[str]:
    """Start a server, give the URL of its database, stop it."""
    pytest.importorskip(
        "psycopg", reason="PostgreSQL's driver is not installed: pip install 'promptsearch[postgresql]'"
    )
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("running as root without a user postgres, as whom the server could run")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        data = Path(name) / "data"
        if user is not None:
            shutil.chown(name, user)

        def call(*args: object) -> None:
            done = subprocess.run(
                list(map(str, args)), user=user, cwd=name, env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        call(folder / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-h 127.0.0.1 -p {port} -k {name} -c fsync=off"
        call(folder / "pg_ctl", "-D", data, "-o", options, "-l", f"{name}/log", "-w", "start")
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            call(folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
