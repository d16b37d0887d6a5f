"""Writes plots as PNG files with kaleido, which needs a Chromium browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.reports.plot import Plot

#: Space above a plot for its title, in pixels.
TOP = 90
#: Names of Chromium's executable.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def write_pngs(overall: list[Plot], by_run: Mapping[str, list[Plot]], folder: Path, scale: float = 3) -> list[Path]:
    """Write every plot to a folder, on a white background.

    Args:
        overall: The plots of all runs together, from `all_plots`.
        by_run: The plots of each run and comparison, from `all_plots`.
        folder: Where to write; created if needed.
        scale: Pixels per point; the plots are 900 points wide.

    Returns:
        The files written.

    Raises:
        InputError: The folder cannot be written.
        PromptSearchError: Chromium or kaleido is not installed.
    """
    browser = find_browser()
    if browser is None:
        raise PromptSearchError(
            f"--png {folder}: Chromium, which draws the plots, was not found; install it (apt-get install chromium), "
            "or set BROWSER_PATH to its path"
        )
    os.environ["BROWSER_PATH"] = browser
    try:
        import kaleido  # noqa: F401 (used by plotly)
        import plotly.io
    except ImportError as e:
        raise PromptSearchError(f"--png {folder} needs kaleido; pip install 'promptsearch[report]'") from e
    many = len(by_run) > 1
    named = [(p.key, p) for p in overall]
    named += [(f"{_slug(run)}-{p.key}" if many else p.key, p) for run, plots in by_run.items() for p in plots]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png" for name, _ in named]
        figures = []
        for (_, plot), file in zip(named, files, strict=True):
            file.touch()
            figure = plot.figure
            room = TOP + 10 - (figure.layout.margin.t or 50)  # for the title, which is outside the plot on the page
            figure.update_layout(height=(figure.layout.height or 500) + room)
            figure.update_layout(template="plotly_white", title={"text": plot.title, "x": 0.02})
            figure.update_layout(margin={"l": 60, "r": 20, "t": TOP, "b": 60})
            figures.append(figure)
        heights = [figure.layout.height for figure in figures]
        plotly.io.write_images(figures, files, width=900, height=heights, scale=scale)
    except OSError as e:
        raise InputError(f"--png {folder}: cannot be written ({e.strerror or e}); name another folder") from e
    return files


def find_browser() -> str | None:
    """Return the path of Chromium: BROWSER_PATH if it is set, else the first one found on the PATH, else None."""
    return os.environ.get("BROWSER_PATH") or next((b for n in BROWSERS if (b := shutil.which(n))), None)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60] or "run"
