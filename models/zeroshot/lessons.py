"""Reads the file that `phrases.py` wrote for the training: concepts, tokenized captions, phrases and their vectors."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.models.zeroshot.captions import CONDITIONS, caption
from promptsearch.models.zeroshot.concepts import Concept


@dataclass(frozen=True)
class Lessons:
    """The texts that the model is trained on.

    Attributes:
        classes: (data set, class name) of each of the L labels.
        concepts: The K concepts that captions name.
        own: (L,) index of each label's concept.
        truth: (L, K) bool, whether a concept is true of a label's pictures.
        phrases: The P phrases whose vectors the text tower learns, beginning with the concepts' names.
        names: Number of phrases that are concepts' names.
        vectors: (P, D) unit vectors of the phrases, float32.
    """

    classes: list[tuple[str, str]]
    concepts: list[Concept]
    own: np.ndarray
    truth: np.ndarray
    phrases: list[str]
    names: int
    vectors: np.ndarray

    def kinds(self, label: int) -> np.ndarray:
        """Return the indices of the concepts that a label is a kind of."""
        found = np.flatnonzero(self.truth[label])
        return found[found != self.own[label]]


def read_lessons(file: Path) -> Lessons:
    """Read a file that `promptsearch.models.zeroshot.phrases` wrote.

    Raises:
        click.UsageError: The file has other content.
    """
    try:
        with np.load(file) as arrays:
            about: dict[str, Any] = json.loads(arrays["about"].tobytes())
            phrases = arrays["phrases"].tobytes().decode().split("\n")
            vectors = arrays["vectors"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        made_by = "python -m promptsearch.models.zeroshot.phrases"
        raise click.UsageError(f"{file}: not the file that {made_by} writes ({error})") from None
    concepts = [Concept(tuple(c["names"]), c["definition"], tuple(c["kinds"])) for c in about["concepts"]]
    own = np.array(about["own"])
    truth = np.zeros((len(own), len(concepts)), bool)
    truth[np.arange(len(own)), own] = True
    for label, kinds in enumerate(about["kinds"]):
        truth[label, kinds] = True
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    classes = [(dataset, name) for dataset, name in about["classes"]]
    return Lessons(classes, concepts, own, truth, phrases, about["names"], vectors)


@lru_cache(maxsize=1)
def _tokenizer(length: int) -> Any:
    from open_clip import SimpleTokenizer

    return SimpleTokenizer(context_length=length)


def _tokens(texts: list[str], length: int) -> np.ndarray:
    return _tokenizer(length)(texts).numpy().astype(np.int32)


def tokenize(texts: list[str], length: int, workers: int) -> np.ndarray:
    """Return the tokens (N, length) int32 of N texts by CLIP's tokenizer."""
    _tokenizer(length)  # load it before forking, so that the other processes have it
    chunks = [texts[at : at + 2000] for at in range(0, len(texts), 2000)]
    if workers == 1 or len(chunks) == 1:
        return np.concatenate([_tokens(chunk, length) for chunk in chunks])
    with ProcessPoolExecutor(min(workers, len(chunks))) as pool:
        return np.concatenate(list(pool.map(partial(_tokens, length=length), chunks)))


@dataclass(frozen=True)
class CaptionTable:
    """Captions drawn before the training; concept k under condition c has `count[c]` rows from `first[k, c]` on."""

    texts: list[str]
    first: np.ndarray  # (K, C)
    count: np.ndarray  # (C,)


def draw_captions(concepts: list[Concept], variants: int, seed: int) -> CaptionTable:
    """Draw `variants` captions of every concept under every condition, and six times as many for plain pictures."""
    rng = np.random.default_rng([seed, 1])
    count = np.array([variants * (6 if condition == "plain" else 1) for condition in CONDITIONS])
    start = np.concatenate([[0], np.cumsum(count)])
    texts = [
        caption(concept, condition, rng)
        for concept in concepts
        for condition, number in zip(CONDITIONS, count, strict=True)
        for _ in range(number)
    ]
    first = np.arange(len(concepts))[:, None] * start[-1] + start[:-1]
    return CaptionTable(texts, first, count)
