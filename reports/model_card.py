"""Writes the README of an exported winner, which is its model card on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.reports.export import Winner
from promptsearch.runs.classifier import Classifier

#: Largest numbers of classes, and of prompts, that a card lists.
LISTED = 50


def model_card(
    winner: Winner, classifier: Classifier, result: Mapping[str, Any] | None, needs: str, repo: str | None = None
) -> str:
    """Return the card as Markdown, with the metadata that hubs read.

    Args:
        winner: The winning prompt set and its run.
        classifier: Its class weights and calibration.
        result: The run's result document; None for an unfinished run.
        needs: The package that `predict.py` needs.
        repo: The hub repository that the card is for.
    """
    import yaml

    head = {
        "library_name": "open_clip" if needs == "open_clip_torch" else "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["clip", "open_clip", "zero-shot-image-classification", "promptsearch"],
    }
    if winner.model.startswith("hf-hub:"):
        head["base_model"] = winner.model.removeprefix("hf-hub:")
    names = [_code(name) for name in classifier.class_names]
    prompts = sorted(winner.prompts[0], key=lambda p: -p[1])
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {_text(repo or winner.study)}",
        f"Labels pictures with {_count(len(names), 'class', 'classes')}: {_some(names)}.",
        f"The model is {_code(winner.shown_model)}, unchanged. The classes' weights are vectors of sentences that "
        f"[promptsearch](https://pypi.org/project/promptsearch/) found on a few labelled pictures of "
        f"{_code(winner.shown_dataset)}.",
        "## Use",
        _download(repo)
        + f"```sh\npip install {needs} Pillow\npython predict.py PICTURE|FOLDER... > labels.csv\n```\n\n"
        + (
            "With promptsearch, which resumes, counts and says `unknown`:\n\n```sh\npromptsearch predict . FOLDER "
            "--out labels.csv\n```"
            if needs == "open_clip_torch"
            else "`model.onnx` takes `pixels` (N, 3, H, W), prepared as `preprocess` of `classifier.json` says, and "
            "gives `probabilities` (N, C) and unit `features` (N, D)."
        ),
        "## Prompts",
        f"For {names[0]}:\n\n"
        + "\n".join(f"- {_code(text)} × {share:.3g}" for text, share in prompts[:LISTED])
        + "\n\nFor the other classes: `prompts` in `classifier.json`.",
        "## Figures",
        *_figures(result),
        f"Probabilities are the softmax of cosines times {classifier.calibration.logit_scale:.4g}, which was fitted to "
        "the few labelled pictures."
        + (
            ""
            if classifier.calibration.unknown_below is None
            else f" At most 5 % of new pictures of these classes are expected to have no class with a probability of "
            f"{classifier.calibration.unknown_below:.4g} or more."
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _figures(result: Mapping[str, Any] | None) -> list[str]:
    """Return the table of accuracies, as far as they were measured."""
    if result is None:
        return ["The run is not finished: nothing was measured on a test split."]
    told = f"Found with {result['shots']} labelled pictures per class (seed {result['seed']})."
    rows = [("these prompts", result["winner"]), *((b["name"], b) for b in result.get("baselines", []))]
    tested = [(name, row["test"]) for name, row in rows if row.get("test")]
    if not tested:
        return [told + " There was no test split."]
    table = [f"| | accuracy on {result['test_pictures']} test pictures | 95 % interval |", "|---|---|---|"]
    table += [f"| {_text(n)} | {t['accuracy']:.2%} | {t['low']:.1%} to {t['high']:.1%} |" for n, t in tested]
    return [told, "\n".join(table)]


def _download(repo: str | None) -> str:
    return "" if repo is None else f"```sh\nhf download {repo} --local-dir .\n```\n\n"


def _count(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _text(text: str) -> str:
    """Escape text for Markdown, so that it is shown unchanged, on one line."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in " ".join(text.split()))


def _code(text: str) -> str:
    """Return text as Markdown code, on one line."""
    shown = " ".join(text.split())
    ticks = "`" * (1 + max((len(run) for run in _runs_of_ticks(shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _runs_of_ticks(text: str) -> list[str]:
    import re

    return re.findall("`+", text)
