"""Imports point one way, and the heavy ones wait until they are needed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"errors", "config", "plugins", "score", "version"}
ALLOWED = {
    "errors": set(),
    "score": set(),
    "version": set(),
    "config": {"errors"},
    "plugins": {"errors"},
    "banks": LEAVES,
    "evaluators": LEAVES | {"banks"},
    "search": LEAVES | {"banks"},
    "lm": LEAVES | {"banks", "evaluators"},
    "runs": LEAVES | {"banks", "evaluators", "search"},
    "reports": LEAVES | {"banks", "evaluators", "search", "runs"},
    "estimator": LEAVES | {"banks", "evaluators", "search", "lm", "runs", "reports"},
    "commands": LEAVES | {"banks", "evaluators", "search", "lm", "runs", "reports"},
    "models": LEAVES | {"banks", "evaluators", "search"},
}


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "promptsearch" else [node.module]
        found |= {n.split(".")[1] for n in names if n.startswith("promptsearch.")}
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_one_way(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py")) if (ROOT / layer).is_dir() else [ROOT / f"{layer}.py"]
    assert files
    for file in files:
        assert imported(file) <= ALLOWED[layer] | {layer}, f"{file.relative_to(ROOT)} imports upwards"


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(["promptsearch", *(p for p in parts if p != "__init__")])


def references(file: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports anywhere, in a function too, or names in a string ("promptsearch.x.y:z")."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for a in node.names:
                inner = f"{node.module}.{a.name}"
                found.add(inner if inner in modules else node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {m[1] for m in [re.fullmatch(r"(promptsearch\.[\w.]+)(:\w+)?", node.value)] if m}
    return found & modules - {module_of(file)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach each other: what is left when modules that import none of the rest are taken away."""
    left = {m: set(needs) for m, needs in graph.items()}
    while ends := [m for m, needs in left.items() if not needs & left.keys()]:
        for m in ends:
            del left[m]
    while starts := [m for m in left if not any(m in needs for needs in left.values())]:
        for m in starts:
            del left[m]
    return [sorted(left)] if left else []


def test_no_module_is_in_a_circle_of_imports() -> None:
    """Not even by an import inside a function, or by a string that is imported later."""
    rooms = [ROOT / layer for layer in ALLOWED if (ROOT / layer).is_dir()]
    files = [*ROOT.glob("*.py"), *(f for room in rooms for f in room.rglob("*.py"))]
    modules = {module_of(f): f for f in files}
    assert circles({m: references(f, set(modules)) for m, f in modules.items()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]  # it finds one


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
