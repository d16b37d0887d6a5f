"""Connects to a Ray cluster and runs work on a crew of stateful workers, any of which may die."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.encoding.device import available_cores

K = TypeVar("K")

#: A job: its key, the worker's method, and the arguments.
Job = tuple[K, str, tuple[Any, ...]]

#: Number of times that Ray restarts a worker with its job, and number of times that a job goes to another worker.
RETRIES = 3

#: Number of jobs that a worker has: one running, one waiting.
DEPTH = 2

#: Seconds within which at least one worker must have started.
PATIENCE = 300.0

_ADDRESS = re.compile(r"(?:(?P<client>ray)://)?(?P<host>[\w.-]+)(?::(?P<port>\d{1,5}))?")
_REMEDY = "start one there with `ray start --head`, or give --ray no address for a cluster on this machine"

#: The beginning of HTTP/2, on which gRPC and Ray are based: the preface and an empty settings frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"

log = logging.getLogger(__name__)


def check_address(address: str) -> str:
    """Check the address of a Ray cluster, and return it.

    Raises:
        InputError: It is not `local`, `auto`, `HOST:PORT` or `ray://HOST[:PORT]`.
    """
    match = _ADDRESS.fullmatch(address)
    if address in ("local", "auto") or (match and (match["client"] or match["port"])):
        return address
    raise InputError(
        f"--ray {address}: not the address of a Ray cluster (auto, HOST:PORT or ray://HOST:PORT); "
        "to start one on this machine write --ray=local"
    )


class Cluster:
    """A Ray cluster, to which this process connects when it is first needed.

        cluster = Cluster("local")
        crew = cluster.crew(Worker, "cpu", threads=1)
        cluster.stop()

    Args:
        address: `local` starts a cluster on this machine that ends with this process, `auto` finds one that runs on it,
            `HOST:PORT` is one that this machine belongs to, and `ray://HOST:PORT` one elsewhere.

    Raises:
        InputError: The address is invalid.
        PromptSearchError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str) -> None:
        self.address = check_address(address)
        self._ray: Any = None
        self._begun_here = False
        self._crew: tuple[tuple[Any, ...], Crew] | None = None

    @property
    def ray(self) -> Any:
        """The module `ray`, connected to the cluster."""
        if self._ray is None:
            self._ray = self._connect()
        return self._ray

    def device(self, wanted: str) -> str:
        """Choose a device that the cluster's workers have; the device for a cluster on this machine is chosen later."""
        if wanted == "mps":
            raise InputError("--device mps: Ray's workers compute on CPUs or CUDA GPUs; use --device cpu")
        if self.address == "local":
            return "cpu" if wanted == "auto" and sys.platform == "darwin" else wanted
        if wanted not in ("auto", "cuda"):
            return wanted
        if self._most("GPU") >= 1:
            return "cuda"
        if wanted == "cuda":
            raise InputError(f"--device cuda: the Ray cluster {self.address} has no GPU; use --device cpu")
        return "cpu"

    def crew(self, worker: type, device: str, threads: int, *args: Any) -> Crew:
        """Start as many workers as the cluster has room for: one per GPU, or one per `threads` cores.

        The same arguments return the same crew; other arguments replace it.

        Args:
            worker: A class with a method `ready`; each worker is `worker(*args)`.
            device: "cpu" or "cuda".
            threads: Threads of each worker.
            *args: Arguments of the class.

        Raises:
            PromptSearchError: The cluster has no room for a worker.
        """
        key = (worker, device, threads, *args)
        if self._crew is not None:
            if self._crew[0] == key and self._crew[1].workers:
                return self._crew[1]
            self._crew[1].dismiss()
            self._crew = None
        kind, each = ("GPU", 1) if device == "cuda" else ("CPU", threads)
        count = sum(int(node.get(kind, 0) // each) for node in self._nodes())
        if not count:
            wants = "a GPU" if kind == "GPU" else f"{threads} cores (the threads of a process here)"
            raise PromptSearchError(
                f"--ray {self.address}: a worker needs {wants}, and no machine of the cluster has that "
                f"(the largest has {self._most(kind):g}); "
                + ("use --device cpu" if kind == "GPU" else "set OMP_NUM_THREADS to fewer")
            )
        options = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": threads}
        log.info("%d workers on the Ray cluster %s, %d threads each", count, self.address, threads)
        remote = self.ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES, **options)(worker)
        self._crew = key, Crew(self.ray, [remote.remote(*args) for _ in range(count)], self.address)
        return self._crew[1]

    def stop(self) -> None:
        """Stop the workers and disconnect; a cluster that was started here ends."""
        if self._crew is not None:
            self._crew[1].dismiss()
            self._crew = None
        if self._ray is not None and self._begun_here:
            self._ray.shutdown()
        self._ray, self._begun_here = None, False

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _most(self, kind: str) -> float:
        return max((node.get(kind, 0) for node in self._nodes()), default=0)

    def _connect(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray must not send usage statistics
        # Ray's default is 15, at which workers hardly run beside other work
        os.environ.setdefault("RAY_worker_niceness", "0")
        # on a busy machine, workers take long to start
        os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise Ray warns about a future change
        # otherwise Ray's notes go to stdout, into the JSON document
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        client = self.address.startswith("ray://")
        if client and _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # otherwise a client does not look for the token
        try:
            import ray
            import ray.exceptions
        except ImportError as e:
            raise PromptSearchError(
                f"--ray {self.address}: Ray is not installed; pip install 'promptsearch[ray]'"
            ) from e
        if ray.is_initialized():  # the caller, or another problem in this process, has connected already
            return ray
        self._must_answer()
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address == "local":
            options |= {"num_cpus": max(available_cores(), one_process_threads()), "include_dashboard": False}
        try:
            with _logs_kept():
                ray.init(address=self.address, **options)
        except Exception as e:  # ConnectionError, RuntimeError (other versions), ImportError (no grpc), ValueError …
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            remedy = "pip install 'ray[client]'" if isinstance(e, ImportError) else _REMEDY
            if client and not isinstance(e, ImportError):
                remedy = "if the cluster requires a token, copy the head's ~/.ray/auth_token to this machine"
            if self.address == "local":
                remedy = "try again when the machine is less busy, or leave --ray out"
            raise PromptSearchError(f"--ray {self.address}: cannot be reached ({reason}); {remedy}") from e
        self._begun_here = True
        return ray

    def _must_answer(self) -> None:
        """Check within seconds that Ray answers at the address, because Ray itself tries for minutes."""
        if self.address in ("local", "auto"):
            return
        match = _ADDRESS.fullmatch(self.address)
        assert match is not None  # `check_address` has checked it
        try:
            with socket.create_connection((match["host"], int(match["port"] or 10001)), timeout=5) as s:
                s.sendall(_HELLO)
                answer = s.recv(9)
        except (OSError, OverflowError) as e:
            raise PromptSearchError(
                f"--ray {self.address}: nothing answers there ({getattr(e, 'strerror', None) or e}); {_REMEDY}"
            ) from e
        if answer[3:4] != b"\x04":  # the type of a settings frame
            raise PromptSearchError(f"--ray {self.address}: what answers there is not Ray; {_REMEDY}")


def _has_token() -> bool:
    """Return whether there is a token for clusters that require one, where Ray looks for it."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return True
    return (Path.home() / ".ray" / "auth_token").is_file()


class Crew:
    """Workers that take jobs as they become free; Ray restarts a worker that dies and runs its job again.

    for key, result in crew.run((n, "square", (n,)) for n in range(100)):
        print(key, result)
    """

    def __init__(self, ray: Any, workers: list[Any], address: str) -> None:
        self.size = len(workers)
        self.workers = workers
        self._ray, self._address, self._why = ray, address, ""
        self._load: dict[Any, int] = {}
        self._starting = {worker.ready.remote(): worker for worker in workers}

    def run(self, jobs: Iterator[Job[K]]) -> Iterator[tuple[K, Any]]:
        """Run jobs, and yield their results as they finish; a job is only taken when a worker is free for it.

        Args:
            jobs: The jobs.

        Raises:
            PromptSearchError: A worker raised it, or no worker is left or starts.
        """
        waiting: deque[tuple[Job[K], int]] = deque()  # jobs with the number of workers that died on them
        pending: dict[Any, tuple[Any, Job[K], int]] = {}
        more, began = True, time.monotonic()
        failed: PromptSearchError | None = None
        try:
            while True:
                while (worker := self._free()) is not None and (more or waiting):
                    if not waiting:
                        new = next(jobs, None)
                        more = new is not None
                        waiting.extend([] if new is None else [(new, 0)])
                        continue
                    job, tries = waiting.popleft()
                    pending[getattr(worker, job[1]).remote(*job[2])] = (worker, job, tries)
                    self._load[worker] += 1
                if not pending and not more and not waiting:
                    if failed is not None:
                        raise failed
                    return
                self._check_alive(began)
                done, _ = self._ray.wait([*pending, *self._starting], num_returns=1, timeout=5)
                for ref in self._finished(done):
                    worker, job, tries = pending.pop(ref)
                    self._unload(worker)
                    try:
                        alive, result = self._result(ref)
                    except PromptSearchError as e:  # raised after the other workers' results were yielded
                        failed, more = failed or e, False
                        waiting.clear()
                        continue
                    if alive:
                        yield job[0], result
                        continue
                    self._lose(worker)
                    if tries >= RETRIES:
                        raise PromptSearchError(
                            f"--ray {self._address}: {tries + 1} workers died on the same job ({result}); check Ray's "
                            "logs for a lack of memory"
                        )
                    if failed is None:
                        waiting.append((job, tries + 1))
        finally:  # the caller may use the crew again after an error
            for worker, _, _ in pending.values():
                self._unload(worker)

    def _check_alive(self, began: float) -> None:
        """Raise an error if no worker is left, or none has started in time."""
        if not self._load and not self._starting:
            raise PromptSearchError(
                f"--ray {self._address}: every worker died ({self._why}); run the same command again to resume"
            )
        if not self._load and time.monotonic() - began > PATIENCE:
            raise PromptSearchError(
                f"--ray {self._address}: no worker started within {PATIENCE:.0f} s; "
                "check with `ray status` whether the cluster is busy"
            )

    def _finished(self, done: list[Any]) -> list[Any]:
        """Return which of the references are of jobs; those of workers that have started are dealt with here."""
        of_jobs = [ref for ref in done if ref not in self._starting]
        for ref in done:
            if (worker := self._starting.pop(ref, None)) is not None:
                if self._result(ref)[0]:
                    self._load[worker] = 0
                else:
                    self._lose(worker)
        return of_jobs

    def _unload(self, worker: Any) -> None:
        if worker in self._load:
            self._load[worker] -= 1

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of any worker and return its result."""
        return next(self.run(iter([(None, method, args)])))[1]

    def dismiss(self) -> None:
        """Stop all workers."""
        for worker in self.workers:
            self._ray.kill(worker)
        self.workers, self._load, self._starting = [], {}, {}

    def _lose(self, worker: Any) -> None:
        self._load.pop(worker, None)
        self.workers = [w for w in self.workers if w is not worker]

    def _free(self) -> Any:
        """Return the worker with the fewest jobs, or None if all are busy."""
        worker = min(self._load, key=self._load.__getitem__, default=None)
        return worker if worker is not None and self._load[worker] < DEPTH else None

    def _result(self, ref: Any) -> tuple[bool, Any]:
        """Return (True, the result), or (False, the reason) if the worker has died for good."""
        errors = self._ray.exceptions
        try:
            return True, self._ray.get(ref)
        except errors.RayTaskError as e:
            cause = e.cause
            if isinstance(cause, PromptSearchError):
                raise cause from None
            raise PromptSearchError(f"--ray {self._address}: a worker failed ({_last_line(cause or e)})") from e
        except errors.RayError as e:
            self._why = _last_line(e)
            log.info("a Ray worker is gone: %s", self._why)
            return False, self._why


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def one_process_threads() -> int:
    """Return the number of threads that torch uses in a process; the last bits of a batch depend on it."""
    import torch

    return torch.get_num_threads()


#: This process's clusters by address.
_clusters: dict[str, Cluster] = {}


def cluster_at(address: str) -> Cluster:
    """Return this process's cluster at an address; problems that use it share its workers."""
    return _clusters.setdefault(address, Cluster(address))


def stop_clusters() -> None:
    """Stop the clusters that were started here, and disconnect from the others."""
    while _clusters:
        _clusters.popitem()[1].stop()


@contextlib.contextmanager
def _logs_kept() -> Iterator[None]:
    """Context manager that restores the handlers and levels of Python's root logger, which Ray changes."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
