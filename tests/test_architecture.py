"""Imports point one way, and the heavy ones wait until they are needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "plugins": {"errors"},
    "banks": {"errors", "plugins"},
    "evaluators": {"errors", "config", "plugins", "banks"},
    "search": {"errors", "config", "plugins", "banks"},
    "lm": {"errors", "config", "banks", "evaluators"},
    "runs": {"errors", "config", "plugins", "banks", "evaluators", "search"},
    "reports": {"errors", "config", "plugins", "banks", "evaluators", "search", "runs"},
    "commands": {"errors", "config", "plugins", "banks", "evaluators", "search", "lm", "runs", "reports"},
    "models": {"errors", "banks", "evaluators", "search"},
}

MODULES = ("errors", "config", "plugins")


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "promptsearch" else [node.module]
        found |= {n.split(".")[1] for n in names if n.startswith("promptsearch.")}
    return found - {"__version__"}


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_one_way(layer: str) -> None:
    files = [ROOT / f"{layer}.py"] if layer in MODULES else sorted((ROOT / layer).rglob("*.py"))
    assert files
    for file in files:
        assert imported(file) <= ALLOWED[layer] | {layer}, f"{file.relative_to(ROOT)} imports upwards"


def run_python(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, promptsearch.cli\n"
        "print([m for m in ('torch','open_clip','transformers','datasets','optuna','numpy','pandas','rich')"
        " if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_the_interfaces_import_no_torch() -> None:
    code = (
        "import sys, promptsearch.evaluators, promptsearch.search, promptsearch.runs, promptsearch.reports\n"
        "print([m for m in ('torch','open_clip','transformers','datasets') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
