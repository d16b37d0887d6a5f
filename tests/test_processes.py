"""Folds of an estimate in other processes: the same results, whatever becomes of the processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptsearch.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems compute everything in one process")

#: Torch is not imported in these processes, as in a run whose texts are cached; in those of the tests it may be.
BEGIN = """
import json, os, sys, threading, time
from promptsearch.runs.selection.processes import PATIENCE, Shared, may_fork
parent = os.getpid()
def elsewhere():
    return os.getpid() != parent
"""


def start(code: str, **options: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", BEGIN + code], env=env, text=True, **pipes, **options)


def python(code: str) -> Any:
    process = start(code)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and not err, err
    return json.loads(out)


SHARE = """
def share(work, number=6, processes=3):
    begun = time.monotonic()
    with Shared(work, number, processes) as parts:
        parts.start()
        counts = []
        results = parts.results(counts.append)
    assert counts == sorted(counts) and counts[-1] == number
    return results, time.monotonic() - begun
"""

FAULTS = {
    "none": "pass",
    "an error": "raise ValueError(i)",
    "an end": "os._exit(0)",
    "a kill": "os.kill(os.getpid(), 9)",
    "a model that is needed": "import torch",
    "what cannot be sent": "return lambda: i",
    "no answer": "time.sleep(600)",
}


def test_results_do_not_depend_on_what_becomes_of_other_processes() -> None:
    code = SHARE + "found = {}\n"
    for name, fault in FAULTS.items():
        code += f"""
def work(i):
    time.sleep(0.02)
    if elsewhere() and i != 1:
        {fault}
    return i * i, os.getpid()
results, seconds = share(work)
found[{name!r}] = [[value for value, _ in results], len({{pid for _, pid in results}}), seconds]
"""
    code += "assert 'torch' not in sys.modules\nprint(json.dumps(found))"
    found = python(code)
    assert found.keys() == FAULTS.keys()
    for name, (values, processes, seconds) in found.items():
        assert values == [0, 1, 4, 9, 16, 25], name
        assert seconds < 60, name
        assert processes == 3 if name == "none" else processes <= 3, name


def test_parts_may_be_few_and_take_no_time() -> None:
    code = "print(json.dumps([share(lambda i: i, n, p)[0] for n, p in ((1, 1), (1, 4), (3, 1), (256, 2))]))"
    assert python(SHARE + code) == [[0], [0], [0, 1, 2], list(range(256))]


def test_an_error_of_a_part_is_raised() -> None:
    code = """
def work(i):
    if i == 3:
        raise ValueError("part 3")
    return i
try:
    share(work)
except ValueError as e:
    print(json.dumps(str(e)))
"""
    assert python(SHARE + code) == "part 3"


def test_no_process_is_forked_beside_other_threads_or_torch() -> None:
    code = """
alone = may_fork()
wait = threading.Event()
thread = threading.Thread(target=wait.wait)
thread.start()
beside = may_fork(), len({pid for _, pid in share(lambda i: (time.sleep(0.01), os.getpid()))[0]})
wait.set()
thread.join()
sys.modules["torch"] = sys
with_torch = may_fork(), len({pid for _, pid in share(lambda i: (time.sleep(0.01), os.getpid()))[0]})
del sys.modules["torch"]
from multiprocessing import get_context
def in_a_pool(_):
    return may_fork(), len({pid for _, pid in share(lambda i: (time.sleep(0.01), os.getpid()))[0]})
with get_context("fork").Pool(1) as pool:
    in_pool = pool.map(in_a_pool, [0])[0]
print(json.dumps([alone, beside, with_torch, in_pool]))
"""
    assert python(SHARE + code) == [True, [False, 1], [False, 1], [False, 1]]


def test_where_no_process_may_be_started_this_one_computes_everything() -> None:
    code = """
import resource
import multiprocessing.popen_fork
found = []
for limit in ("RLIMIT_NOFILE", "RLIMIT_NPROC"):
    which = getattr(resource, limit)
    soft, hard = resource.getrlimit(which)
    before = os.getuid()
    if limit == "RLIMIT_NOFILE":
        resource.setrlimit(which, (len(os.listdir("/proc/self/fd")) + 1, hard))  # a pipe for the parts, and no more
    else:
        resource.setrlimit(which, (0, hard))
        if before == 0:  # root has no limit
            os.setresuid(65534, 65534, 0)
    results, _ = share(lambda i: (i, os.getpid()))
    if before == 0:
        os.setresuid(0, 0, 0)
    resource.setrlimit(which, (soft, hard))
    found.append([[i for i, _ in results], {pid for _, pid in results} == {parent}])
print(json.dumps(found))
"""
    assert python(SHARE + code) == [[[0, 1, 2, 3, 4, 5], True]] * 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_other_processes_end_with_the_one_that_began(how: signal.Signals) -> None:
    code = """
def work(i):
    os.write(1, b'%d\\n' % os.getpid())
    time.sleep(600)
with Shared(work, 3, 3) as parts:
    parts.results()
"""
    process = start(code)
    assert process.stdout is not None
    others = [pid for _ in range(3) if (pid := int(process.stdout.readline())) != process.pid]
    assert len(others) == 2 and all(Path(f"/proc/{pid}").exists() for pid in others)
    process.send_signal(how)
    process.communicate(timeout=60)
    until = time.monotonic() + 60
    while any(_runs(pid) for pid in others):
        assert time.monotonic() < until
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is one process")
@pytest.mark.parametrize("phrases", ["auto", "none"])
def test_a_run_in_several_processes_has_the_result_of_one(phrases: str) -> None:
    args = ["beam", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "16", "--bank", "templates"]
    args += ["--width", "3", "--depth", "3", "--phrases", phrases, "--json"]
    one = CliRunner().invoke(main, [*args, "--study", "one"])  # and all texts are cached
    assert one.exit_code == 0, one.output
    code = f"""
import io, resource
from promptsearch.cli import main
shown, sys.stdout = sys.stdout, io.StringIO()
main([*{args!r}, "--study", "several"], standalone_mode=False)
others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
print(json.dumps([json.loads(sys.stdout.getvalue()), others]), file=shown)
"""
    process = start(code)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    several, seconds = json.loads(out)
    assert seconds > 0, "no other process took part"
    alone = json.loads(one.stdout)
    for document in (alone, several):
        del document["seconds"], document["run"]
    assert several == alone and alone["estimate"]["search_repeated"]
