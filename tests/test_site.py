"""The site: mkdocs builds it strictly, every page is in its navigation, and nothing on it comes from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def pages_of(nav: Any) -> set[str]:
    """The pages that a navigation names, at any depth."""
    if isinstance(nav, str):
        return {nav}
    return {page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)}


def test_the_navigation_names_every_page() -> None:
    nav = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert {p.name for p in (ROOT / "docs").glob("*.md")} == {p for p in nav if "/" not in p} - {"index.md"}


def test_the_list_of_all_pages_names_every_page() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "contents.md").read_text("utf-8")))
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"contents.md"} == named


def test_the_site_is_built_strictly_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    """Strict: a link or an anchor that leads nowhere, a name without a docstring and a page in no menu are errors."""
    pytest.importorskip("mkdocs", reason="pip install 'promptsearch[docs]'")
    pytest.importorskip("mkdocstrings_handlers.python", reason="pip install 'promptsearch[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "gallery.html", "api.html"} <= {p.name for p in pages}
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:(?:script|img|iframe)[^>]* src|link[^>]* href)=\"?(https?:[^\" >]+)", text)
        assert not loaded, (page, loaded)
        assert 'class="arithmatex"' not in text, f"{page}: a formula was not drawn"
    assert "PromptSearch" in (tmp_path / "site" / "api.html").read_text("utf-8")
    assert (tmp_path / "site" / "repository" / "cli.py").read_text("utf-8") == (ROOT / "cli.py").read_text("utf-8")
