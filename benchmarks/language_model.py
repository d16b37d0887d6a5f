"""How well the embedded language model does what it is asked, on captions that it was never trained on.

    python benchmarks/language_model.py
    python benchmarks/language_model.py --folder another

Perplexity is per word, so that models with other tokenizers compare.  An answer "keeps" a medium or a condition when it
has one of its words; "by chance" is how often the answers to other parents have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np

from promptsearch.banks import Template, load_bank
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.models.lm.sentences import CONDITIONS, MEDIA, Caption, draw, echo, few_shot, ranking, say, sentences
from promptsearch.search.proposers import KINDS, Request
from promptsearch.search.proposers.language import LanguageProposer
from promptsearch.search.reply_parser import ProposalFilter

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
#: What each kind of request leaves as it is.
KEPT = {"paraphrase": ("medium", "condition"), "specific": ("medium", "condition"), "medium": ("condition",)} | {
    "condition": ("medium",)
}


def words_of(part: str, name: str) -> list[str]:
    """The words that a medium or a condition is said in."""
    return MEDIA[name] if part == "medium" else [*CONDITIONS[name]["before"], *CONDITIONS[name]["after"]]


def has(text: str, words: list[str]) -> bool:
    return any(w in text for w in words)


def perplexity(model: LocalModel, n: int) -> None:
    """Per word of held-out texts, by their kind."""
    kinds: dict[str, Callable[[np.random.Generator], str]] = {
        "captions": lambda rng: say(draw(rng), rng),
        "captions, filled": sentences,
        "edits": few_shot,
        "rankings": lambda rng: ranking(rng, bool(rng.random() < 0.6)),
        "lines that come again": echo,
    }
    made = {name: np.random.default_rng([1 << 20, n]) for name in kinds}
    held_out = {name: [t for t in (make(made[name]) for _ in range(n)) if len(t) < 700] for name, make in kinds.items()}
    held_out["the bank `templates`, filled"] = [t.fill(c) for t in load_bank("templates").templates for c in CLASSES]
    click.echo("| held-out texts | perplexity per word |\n|---|---|")
    for name, texts in held_out.items():
        likelihood = model.log_likelihood(texts)[:, 0].sum()
        click.echo(f"| {name} | {math.exp(-likelihood / sum(len(t.split()) for t in texts)):.2f} |")


def validity(model: LocalModel, n: int) -> None:
    """Of answers about templates of a bank: valid and new ones."""
    templates = [str(t) for t in load_bank("templates").templates]
    read = ProposalFilter(CLASSES).read
    click.echo("\n| request | valid | and not a parent | distinct of these |\n|---|---|---|---|")
    for kind in KINDS:
        rng = np.random.default_rng([2 << 20, KINDS.index(kind)])
        requests = []
        for _ in range(n):
            shown = [templates[i] for i in rng.permutation(len(templates))[:8]]
            if kind == "history":
                scores = sorted(int(s) for s in rng.integers(20, 80, len(shown)))
                requests.append(Request(kind, scores=tuple(zip(scores, shown, strict=True))))
            elif kind == "better":
                requests.append(Request(kind, good=tuple(shown[:3]), bad=tuple(shown[3:6])))
            else:
                requests.append(Request(kind, tuple(shown[: 2 if kind == "crossover" else 1])))
        found = [read(reply).template for reply in LanguageProposer(model).propose(requests, 0)]
        valid = [(t, r) for t, r in zip(found, requests, strict=True) if t is not None]
        new = [t for t, r in valid if str(t) not in (*r.parents, *r.good, *r.bad, *(s for _, s in r.scores))]
        distinct = len(set(new)) / max(1, len(new))
        click.echo(f"| {kind} | {len(valid) / n:.0%} | {len(new) / n:.0%} | {distinct:.0%} |")


def keeping(model: LocalModel, n: int) -> None:
    """Whether what a request leaves alone is kept."""
    click.echo("\n| request | leaves alone | kept | by chance |\n|---|---|---|---|")
    for kind, parts in KEPT.items():
        for part in parts:
            rng = np.random.default_rng([3 << 20, KINDS.index(kind)])
            captions = [caption(rng) for _ in range(n)]
            requests = [Request(kind, (str(Template(say(c, rng))),)) for c in captions]
            answers = LanguageProposer(model).propose(requests, 0)
            own = [words_of(part, str(getattr(c, part))) for c in captions]
            kept = np.mean([has(a, w) for a, w in zip(answers, own, strict=True)])
            chance = np.mean([has(a, w) for a, w in zip(answers, own[1:] + own[:1], strict=True)])
            click.echo(f"| {kind} | {part} | {kept:.0%} | {chance:.0%} |")


def caption(rng: np.random.Generator) -> Caption:
    """One with a medium that is no photo, and a condition."""
    medium = list(MEDIA)[1 + int(rng.integers(len(MEDIA) - 1))]
    return replace(draw(rng), medium=medium, condition=list(CONDITIONS)[int(rng.integers(len(CONDITIONS)))])


def scores(model: LocalModel, n: int) -> None:
    """Whether answers to a history name the condition that its good half shares, and whether they do if it is bad."""
    click.echo("\n| condition of half of a history | named in the answer |\n|---|---|")
    for where in ("the good half", "the bad half", "neither (another condition)"):
        rng = np.random.default_rng(4 << 20)
        requests, targets = [], []
        for _ in range(n):
            target = caption(rng).condition
            near = [say(replace(draw(rng), condition=target), rng) for _ in range(4)]
            far = [say(draw(rng), rng) for _ in range(4)]
            shown = [*far, *near] if where == "the good half" else [*near, *far]
            numbers = sorted(int(s) for s in rng.integers(20, 80, len(shown)))
            requests.append(Request("history", scores=tuple(zip(numbers, shown, strict=True))))
            targets.append(words_of("condition", str(target)))
        if where.startswith("neither"):
            targets = targets[1:] + targets[:1]
        answers = LanguageProposer(model).propose(requests, 0)
        click.echo(f"| {where} | {np.mean([has(a, t) for a, t in zip(answers, targets, strict=True)]):.0%} |")


@click.command()
@click.option("--folder", default=EMBEDDED, help="A model's folder.")
@click.option("--answers", default=200, help="Of each kind; texts are twice as many.")
def main(folder: str, answers: int) -> None:
    """Print tables of what a model folder does."""
    model = LocalModel(locate(folder))
    perplexity(model, 2 * answers)
    validity(model, answers)
    keeping(model, answers)
    scores(model, answers)


if __name__ == "__main__":
    main()
