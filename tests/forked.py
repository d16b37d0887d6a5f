"""Processes that begin with their imports done: one server imports them, and forks for each process that is wanted.

A process of a command takes a second or more to import what it needs, before anything of the test happens. What
`Forked` gives is a process like any other, a child of the tests' own: it has its own streams, environment and folder,
can be killed or interrupted, and ends as a program ends. Only its imports are those of the server, so tests of the
start itself, of the streams' encodings or of what is imported use real ones.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
from typing import Any

#: Imported before the fork. What reads the environment while it is imported (the hub's client, and what needs it) is in
#: MODELS only: those processes have the environment of the first of them in that respect.
BASE = """
import alembic.command, alembic.script, filelock, numpy, optuna, scipy.optimize, scipy.stats, torch, torchvision
import rich._emoji_codes, safetensors.numpy
import optuna.storages._rdb.storage, optuna.samplers._tpe.sampler, optuna._imports
import sqlalchemy.dialects.sqlite.pysqlite
import promptsearch.cli, promptsearch.commands.search_run, promptsearch.lm
import promptsearch.reports.table, promptsearch.runs.pipeline, promptsearch.runs.open_run
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
optuna.storages.RDBStorage("sqlite://"), optuna.create_study().ask()
try:
    import openai
    openai.OpenAI(api_key="of nobody").chat.completions
except ImportError:
    pass
"""
MODELS = BASE + "\nimport open_clip, datasets, transformers, safetensors.torch"

SERVER = """
import atexit, gc, json, os, runpy, signal, socket, sys, threading
connection = socket.socket(fileno=int(sys.argv[1]))
exec(sys.argv[2])
gc.collect()
gc.freeze()
while True:
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    if not message:
        os._exit(0)
    reading, writing = os.pipe()
    if (between := os.fork()) == 0:  # it ends at once, and leaves the process to the one that asked
        if (process := os.fork()) == 0:
            break
        os.write(writing, str(process).encode())
        os._exit(0)
    os.waitpid(between, 0)
    connection.send(os.read(reading, 20))
    for number in (reading, writing, *streams):
        os.close(number)
connection.close()
for number in (reading, writing):
    os.close(number)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
request = json.loads(message)
os.environ.clear()
os.environ.update(request["env"])
os.chdir(request["folder"])
own = request["env"].get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = [*own, *(p for p in sys.path if p not in own)]
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[:] = ["promptsearch" if request["code"] is None else "-c", *request["args"]]
status = 0
try:
    if request["code"] is None:
        runpy.run_module("promptsearch", run_name="__main__", alter_sys=True)
    else:
        exec(request["code"], {"__name__": "__main__"})
except SystemExit as end:
    status = end.code or 0
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
except BaseException as error:
    sys.excepthook(type(error), error, error.__traceback__)
    status = 1
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
threading._shutdown()  # what an interpreter does at its end, but taking apart every module, which takes 0.4 s
atexit._run_exitfuncs()
for stream in (sys.stdout, sys.stderr):
    try:
        if not stream.closed:
            stream.flush()
    except OSError:
        status = 120
os._exit(status & 0xFF)
"""

FORKS = sys.platform == "linux"  # elsewhere no process can be handed on to be a child of the tests' own
_SUBREAPER = 36  # prctl(PR_SET_CHILD_SUBREAPER)
_servers: dict[str, socket.socket] = {}


def _server(imports: str) -> socket.socket:
    if imports not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SERVER, str(theirs.fileno()), imports]
        server = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _servers[imports] = ours
        atexit.register(server.wait)  # after the line below: the last that is registered is the first that is called
        atexit.register(ours.close)
    return _servers[imports]


class Forked(subprocess.Popen[str]):
    """`promptsearch ARGS`, or `python -c CODE ARGS`, with the imports of a server; an ordinary process but on Linux."""

    def __init__(self, args: list[str], *, code: str | None = None, imports: str = BASE, **options: Any) -> None:
        self._request = {"args": args, "code": code}
        self._imports = imports
        if not FORKS:
            own = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **(options.pop("env", None) or os.environ)}
            args = [sys.executable, *(["-m", "promptsearch"] if code is None else ["-c", code]), *args]
            options["env"] = own
        super().__init__(args, text=True, **options)

    def _execute_child(self, *given: Any) -> None:
        if not FORKS:
            super()._execute_child(*given)
            return
        cwd, env, streams = given[5], given[6], given[10:16]
        stdin, _, _, stdout, _, stderr = streams
        request = {**self._request, "env": dict(os.environ if env is None else env), "folder": str(cwd or os.getcwd())}
        server = _server(self._imports)
        own = [number if number != -1 else same for same, number in enumerate((stdin, stdout, stderr))]
        prctl = ctypes.CDLL(None).prctl
        prctl(_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(server, [json.dumps(request).encode()], own)
            self.pid = int(server.recv(20))
        finally:
            prctl(_SUBREAPER, 0, 0, 0, 0)
        self._child_created = True
        self._close_pipe_fds(*streams)
