"""Generates the training texts of the embedded language model: captions, and few-shot prompts with answers.

    rng = np.random.default_rng(0)
    print(document(rng))

A caption combines a medium, a condition, a place and a determiner, drawn from the hand-written `words.yaml`. No caption
was scored with any model. Few-shot texts have the form of the prompts that the searchers send to language models
(`search/proposers/prompts.py`), with edited captions as answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from promptsearch.banks.template import article
from promptsearch.search.proposers.prompts import HEADS, LABELS, block

WORDS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text("utf-8"))
MEDIA: dict[str, list[str]] = WORDS["media"]
CONDITIONS: dict[str, dict[str, list[str]]] = WORDS["conditions"]
Rng = np.random.Generator


@dataclass(frozen=True)
class Caption:
    """The content of a caption before it is put into words; a part that is None is left out."""

    medium: str | None
    condition: str | None
    setting: str | None
    determiner: str
    other: str | None = None


def pick(rng: Rng, items: Any) -> Any:
    """Draw one item of a sequence."""
    return items[int(rng.integers(len(items)))]


def chosen(items: Any, number: float) -> Any:
    """Return the item of a sequence at a relative position from 0 to 1."""
    return items[int(number * len(items))]


def draw(rng: Rng, other: float = 0.0) -> Caption:
    """Draw a caption.

    Args:
        rng: Source of randomness.
        other: Share of captions with a word from the list `others`.

    Returns:
        A caption; most have a medium and a condition, few a place.
    """
    medium = pick(rng, list(MEDIA)) if rng.random() < 0.35 else "photo"
    return Caption(
        medium if rng.random() < 0.75 else None,
        pick(rng, list(CONDITIONS)) if rng.random() < 0.7 else None,
        pick(rng, WORDS["settings"]) if rng.random() < 0.25 else None,
        pick(rng, WORDS["determiners"]),
        pick(rng, WORDS["others"]) if rng.random() < other else None,
    )


def say(c: Caption, rng: Rng, name: str = "{}") -> str:
    """Put a caption into words.

    Args:
        c: The caption.
        rng: Chooses synonyms and word order. One number is drawn for each choice, so that two captions that differ in
            one part are worded alike elsewhere if the same seed is used.
        name: Text in the place of the class name.
    """
    in_front, which, order, medium, where, *odd = rng.random(9)
    behind = [c.setting] if c.setting else []
    adjective = ""
    if c.condition:
        words = CONDITIONS[c.condition]
        if c.medium and in_front < 0.65:
            adjective = chosen(words["before"], which)
        else:
            behind.insert(int(order * (len(behind) + 1)), chosen(words["after"], which))
    determiner = c.determiner
    if determiner == "a" and name != "{}":
        determiner = article(name)
    thing = f"{determiner} {name}"
    if c.other and (c.medium is None or where < 0.5):
        thing = f"{article(c.other) if c.determiner == 'a' else determiner} {c.other} {name}"
    elif c.other:
        adjective = f"{adjective} {c.other}".strip()
    if c.medium is None:
        core = f"{chosen(['there is ', 'this is ', 'here is '], odd[1])}{thing}" if odd[0] < 0.12 else thing
    else:
        head = " ".join(w for w in (adjective, chosen(MEDIA[c.medium], medium)) if w)
        joint = chosen([" showing ", " with ", " that shows "], odd[1]) if odd[0] < 0.08 else " of "
        front = "the " if odd[2] < 0.06 else f"{article(head)} "
        core = front + head + joint + thing
        if odd[2] > 0.93:
            core = chosen(["this is ", "here is ", "itap: "], odd[1]) + core
    text = " ".join([core, *behind])
    if behind and odd[3] < 0.08:
        text = f"{core}, {' '.join(behind)}"
    return text if odd[3] > 0.9 else text + "."


def edit(kind: str, rng: Rng, other: float = 0.0) -> tuple[tuple[str, ...], str] | None:
    """Draw a caption and an edit of it.

    Args:
        kind: Kind of edit, a key of `LABELS`.
        rng: Source of randomness.
        other: Share of captions with a word from the list `others`.

    Returns:
        (captions to edit, edited caption), or None if the drawn caption does not allow this kind of edit.
    """
    c = draw(rng, other)
    if kind == "crossover":
        return _crossover(c, rng)
    new = c
    if kind == "specific":
        if c.condition is None:
            new = replace(c, condition=pick(rng, list(CONDITIONS)))
        elif c.setting is None:
            new = replace(c, setting=pick(rng, WORDS["settings"]))
        else:
            return None
    elif kind == "shorter":
        new = _shorter(c, rng)
    elif kind == "medium":
        new = replace(c, medium=pick(rng, [m for m in MEDIA if m != c.medium]))
    elif kind == "condition":
        new = replace(c, condition=pick(rng, [k for k in CONDITIONS if k != c.condition]))
    for _ in range(5):
        old, made = alike(c, new, rng, kind)
        if old != made and (kind != "shorter" or len(made) < len(old)):
            return (old,), made
    return None


def _shorter(c: Caption, rng: Rng) -> Caption:
    """Leave one part of a caption out."""
    if c.setting:
        return replace(c, setting=None)
    if c.medium and c.condition and rng.random() < 0.5:
        return replace(c, medium=None)
    if c.condition and rng.random() < 0.3:
        return replace(c, condition=None)
    return replace(c, determiner="a")


def _crossover(c: Caption, rng: Rng) -> tuple[tuple[str, ...], str] | None:
    """Draw a second caption, and join the condition of the first with the medium and the setting of the second."""
    d = draw(rng)
    if c.condition is None or (d.medium is None and d.setting is None):
        return None
    joined = Caption(d.medium, c.condition, d.setting or c.setting, d.determiner, c.other)
    first, second = int(rng.integers(1 << 31)), int(rng.integers(1 << 31))
    say_first, say_second = np.random.default_rng(first), np.random.default_rng(second)
    return (say(c, say_first), say(d, say_second)), say(joined, np.random.default_rng(first))


def alike(old: Caption, new: Caption, rng: Rng, kind: str) -> tuple[str, str]:
    """Put two captions into words; except for paraphrases, mostly with the same words for the parts they share."""
    seed = int(rng.integers(1 << 31))
    same = kind != "paraphrase" and rng.random() < 0.85
    return say(old, np.random.default_rng(seed)), say(new, np.random.default_rng(seed if same else seed + 1))


def few_shot(rng: Rng) -> str:
    """Return four examples of one kind of edit, in the form of a request and its answer."""
    kind, other = pick(rng, list(LABELS)), 0.6 if rng.random() < 0.4 else 0.0
    blocks: list[str] = []
    while len(blocks) < 4:
        if made := edit(kind, rng, other):
            blocks.append(block(made[0], LABELS[kind], made[1]))
    return "\n".join(blocks)


def ranking(rng: Rng, scored: bool) -> str:
    """Return captions from worst to best; the better ones share more parts with a hidden target caption.

    Args:
        rng: Source of randomness.
        scored: Whether each caption is preceded by a score, or by "bad", "good" or "better".
    """
    other = 0.5 if rng.random() < 0.4 else 0.0
    target = draw(rng, other)
    while target.condition is None and target.medium in (None, "photo"):
        target = draw(rng, other)
    rows = []
    mostly = int(rng.integers(1 << 31))  # mostly, the better captions also share their wording with the target
    n = int(rng.integers(5, 12))
    low, span = int(rng.integers(1, 60)), int(rng.integers(3, 40))
    for i in range(n + 1):
        c = draw(rng, other if i < n else 0.0)
        near = rng.random() < (0.95 if i == n else 0.15 + 0.75 * i / n)
        if near:
            c = replace(c, condition=target.condition if rng.random() < 0.9 else c.condition)
            if target.medium not in (None, "photo") and rng.random() < 0.8:
                c = replace(c, medium=target.medium)
            if target.other and rng.random() < 0.8:
                c = replace(c, other=target.other)
        words = np.random.default_rng(mostly if near and rng.random() < 0.7 else int(rng.integers(1 << 31)))
        rows.append((low + int(span * (0.5 * rng.random() + 0.5 * near)), say(c, words)))
    last = rows.pop()
    rows.sort(key=lambda r: r[0])
    if scored:
        high = min(99, rows[-1][0] + 2)
        return "\n".join([HEADS["history"], *(f"{s}: {t}" for s, t in rows), f"{high}: {last[1]}"])
    half = len(rows) // 2
    bad, good = rows[:half][:3], rows[half:][-3:]
    lines = [*(f"bad: {t}" for _, t in bad), *(f"good: {t}" for _, t in good), f"better: {last[1]}"]
    return "\n".join([HEADS["better"], *lines])


def sentences(rng: Rng) -> str:
    """Return a few captions with names of objects in the place of `{}`, or a few templates."""
    filled = rng.random() < 0.7
    name = pick(rng, WORDS["objects"])
    lines = []
    for _ in range(int(rng.integers(1, 6))):
        caption = draw(rng)
        thing = pick(rng, WORDS["objects"]) if filled and rng.random() < 0.5 else name
        lines.append(say(caption, rng, thing if filled else "{}"))
    return "\n".join(lines)


def echo(rng: Rng) -> str:
    """Return lines of which some are repeated, which teaches a small model to copy from its context."""
    if rng.random() < 0.5:
        every = " ".join([*WORDS["objects"], *WORDS["settings"], *WORDS["others"]]).split()
        lines = []
        for _ in range(3):
            words = [pick(rng, every) for _ in range(int(rng.integers(4, 12)))]
            words[int(rng.integers(len(words)))] = "{}"  # every line has a place for the class name
            lines.append(" ".join(words))
    else:
        lines = [say(draw(rng, 0.3), rng) for _ in range(4)]
    again = [lines[i] for i in rng.integers(len(lines), size=3 * len(lines))]
    return "\n".join([*lines, *again])


def document(rng: Rng) -> str:
    """Draw one training text."""
    kind = rng.random()
    if kind < 0.45:
        return few_shot(rng)
    if kind < 0.7:
        return ranking(rng, scored=rng.random() < 0.6)
    if kind < 0.82:
        return echo(rng)
    return sentences(rng)
