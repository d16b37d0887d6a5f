"""What mkdocs.yml needs beside the pages: README.md as the first page, the files that pages link to, drawn formulas.

On the site `../cli.py` of a page is `repository/cli.py`. A link to a file that does not exist stays as it is and fails
a strict build.
"""

from __future__ import annotations

import html
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]+)?\))")
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S
)  # as pymdownx.arithmatex marks it


def place(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def source(uri: str) -> str:
    """Which file of the repository a page of the site is."""
    if uri == "index.md":
        return "README.md"
    return uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"


def targets(path: str) -> set[str]:
    """The files of the repository that a page of it links to."""
    text = (ROOT / path).read_text("utf-8")
    named = (posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1])) for link in LINK.findall(text))
    return {name for name in named if (ROOT / name).is_file()}


def on_startup(**kwargs: Any) -> None:
    """Copy the package's modules to build/api, where mkdocstrings looks for them when it is configured.

    The package is the repository itself, and all that lies in it, such as .venv, would be read as well.
    """
    copy = ROOT / "build" / "api" / "promptsearch"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, copy)
        elif (path / "__init__.py").is_file():
            shutil.copytree(path, copy / path.name, ignore=lambda folder, names: [n for n in names if not _module(n)])


def _module(name: str) -> bool:
    """Whether a file is Python; what has no suffix is taken for a folder."""
    return name.endswith(".py") or ("." not in name and name != "__pycache__")


def on_files(files: Files, config: Any) -> Files:
    """Add the first page and every file outside of docs/ that a page links to, and those that these link to."""
    todo, seen = ["README.md", *(source(f.src_uri) for f in files.documentation_pages())], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if files.get_file_from_path(place(path)) is None:
            files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            todo += targets(path)
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Links as they are on the site."""
    uri = page.file.src_uri
    path = source(uri)

    def moved(match: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        if not (ROOT / name).is_file():
            return match[0]
        return f"{match[1]}{posixpath.relpath(place(name), posixpath.dirname(uri) or '.')}{match[3]}"

    return LINK.sub(moved, markdown)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""

    def drawn(match: re.Match[str]) -> str:
        return convert(html.unescape(match[3]), display="inline" if match[1] == "span" else "block")

    return FORMULA.sub(drawn, content)
