"""A figure of test accuracy against shots, one line per method, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import InputError

#: File formats that can be written.
SUFFIXES = (".png", ".svg", ".pdf")


def check_figure(path: Path) -> None:
    """Check, before anything is computed, that the figure can be written.

    Args:
        path: The figure's file.

    Raises:
        InputError: The suffix is not in `SUFFIXES`, the folder does not exist, or matplotlib is not installed.
    """
    import importlib.util

    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--figure {path}: the file name must end in {', '.join(SUFFIXES)}")
    if not path.resolve().parent.is_dir():
        raise InputError(f"--figure {path}: the folder does not exist; create it, or name another")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"--figure {path}: needs matplotlib; pip install 'promptsearch[plots]'")


def draw_figure(document: Mapping[str, Any], path: Path) -> None:
    """Draw test accuracy (mean ± one standard deviation) against shots and write it to a file.

    Methods whose prompts can be read have solid lines, learnt vectors dashed ones.

    Args:
        document: What `build_comparison` returned.
        path: The file to write; its suffix gives the format.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets, shots = document["datasets"], document["shots"]
    figure = Figure(figsize=(4.6 * len(datasets) + 2.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    names = [m["name"] for m in document["methods"]]
    for ax, dataset in zip(axes, datasets, strict=True):
        for i, name in enumerate(names):
            rows = {r["shots"]: r for r in document["table"] if r["dataset"] == dataset and r["method"] == name}
            if not rows:
                continue
            x = [s for s in shots if s in rows]
            y = [100 * rows[s]["mean"] for s in x]
            sd = [100 * (rows[s]["sd"] or 0) for s in x]
            style = "-" if rows[x[0]]["readable"] else "--"
            colour = f"C{i % 10}"
            ax.plot(x, y, style, color=colour, marker="osD^vP*X"[i // 10 % 8], markersize=4, linewidth=1.4, label=name)
            low, high = [a - b for a, b in zip(y, sd, strict=True)], [a + b for a, b in zip(y, sd, strict=True)]
            ax.fill_between(x, low, high, color=colour, alpha=0.08, linewidth=0)
        means = [100 * r["mean"] for r in document["table"] if r["dataset"] == dataset and r["method"] in names]
        # fit the axis to the means, because the large deviation of one method would flatten all lines
        ax.set_ylim(min(means) - 2, max(means) + 2)
        ax.set_xscale("log", base=2)
        ax.set_xticks(shots, [str(s) for s in shots])
        ax.minorticks_off()
        ax.set_xlabel("shots per class")
        ax.set_title(dataset, fontsize=10)
        ax.grid(alpha=0.25)
    axes[0].set_ylabel(f"test accuracy of {document['model']} (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as e:
        raise InputError(f"--figure {path}: cannot be written ({e.strerror or e}); name another file") from e
