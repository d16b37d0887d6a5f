"""Shared by all tests: the package from this checkout, and a cache and a home of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from promptsearch.evaluators.encoding.ray_cluster import Cluster

# Three test processes on two cores, as a test often waits for a server or a browser: threads that wait for each other
# must not spin, which takes the others' time. Read when torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else each of the test processes has a thread for every core

# A starved machine draws examples slowly, and that is no fault of theirs.
settings.register_profile("promptsearch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("promptsearch")

# A shell starts programs in the background with Ctrl-C ignored, and they hand that on to those that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each of the processes that tests start would compile the package anew, which takes it 0.2 s.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).resolve().parent.parent
os.environ["PROMPTSEARCH_MODELS"] = str(ROOT / "tests" / "data")  # `--model tiny`
if importlib.util.find_spec("promptsearch") is None:  # not installed: register the checkout itself
    spec = importlib.util.spec_from_file_location(
        "promptsearch", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["promptsearch"] = module
    spec.loader.exec_module(module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the longest tests: at the end one process would wait for the other's."""
    items.sort(key=lambda item: item.path.name not in ("test_ray.py", "test_zeroshot_recipe.py"))


@pytest.fixture(scope="session", autouse=True)
def migrations() -> Iterator[None]:
    """Optuna's migration scripts are read once, and not again whenever a storage is opened: they never change."""
    from optuna.storages._rdb.storage import _VersionManager

    read, scripts = _VersionManager._create_alembic_script, []

    def read_once(manager: _VersionManager) -> Any:
        if not scripts:
            scripts.append(read(manager))
        return scripts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", read_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def options() -> Iterator[None]:
    """Messages are compared as the command line prints them; `test_estimator.py` has those of Python."""
    from promptsearch.errors import naming_options

    with naming_options():
        yield


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty cache and run storage of its own and never reaches a network."""
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PROMPTSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip put docs/example-plugin into."""
    root = tmp_path_factory.mktemp("plugins")
    shutil.copytree(ROOT / "docs" / "example-plugin", root / "source")
    target = root / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(root / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Ray cluster on this machine of two workers of one thread, as one process of one thread; for a whole module.

    Its workers stay when a command ends, for the next command that wants the same ones: they take seconds to start.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # both as the command does before it imports Ray
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'promptsearch[ray]'")
    import torch

    from promptsearch.evaluators.encoding import ray_cluster

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 80 << 20}
    ray.init(address="local", num_cpus=2, num_gpus=0, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "stop_clusters", lambda: None)
        patch.setattr(ray_cluster.Cluster, "stop", lambda self: None)
        yield ray_cluster.cluster_at("auto")
    ray_cluster.stop_clusters()
    ray.shutdown()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real server; the test is skipped, with the reason, where there is none."""
    from postgres import serve

    yield from serve()


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of that server."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres_server.rpartition("/")[0] + f"/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
