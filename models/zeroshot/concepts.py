"""Finds the WordNet concepts of class names, with their kinds (hypernyms), lemmas and definitions.

WordNet 3.0's noun files are read from a folder (Debian: package wordnet-base, /usr/share/wordnet). Only the scripts
that make the model need them; the installed package does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
WORDNET = Path("/usr/share/wordnet")

#: WordNet's lexicographer files of things that one can take a picture of: animal, artifact, body, food, object,
#: person, plant, in that numbering.
ANIMALS = "05"
PICTURED = {ANIMALS, "06", "08", "13", "17", "18", "20"}

#: WordNet's names for classes that it spells differently, or whose name means a part or an example of the thing.
SPELLINGS = {
    "body of a cougar": "cougar",
    "cellphone": "cellular telephone",
    "face of a cougar": "cougar",
    "garfield": "cat",
    "hawksbill": "hawksbill turtle",
    "head of a crocodile": "crocodile",
    "head of a flamingo": "flamingo",
    "inner city": "city",
    "joshua tree": "Joshua tree",
    "motorbike": "motorcycle",
    "open country": "countryside",
    "rhino": "rhinoceros",
    "side of a car": "car",
    "snoopy": "dog",
    "tall building": "skyscraper",
    "water lilly": "water lily",
    "wild cat": "wildcat",
    "industrial area": "industrial park",
}

#: Everyday names that WordNet's concept lacks.
ALSO = {
    "car": ["motorcar"],
    "cellular telephone": ["cellphone", "mobile phone"],
    "motorcycle": ["motorbike"],
    "rhinoceros": ["rhino"],
}

#: Number of the intended sense of a class name, counted from 1, if it is not the first one.
SENSES = {"barrel": 2, "dolphin": 2, "hedgehog": 2, "sea horse": 2, "schooner": 2}

#: Kinds that are too general to name what a picture shows.
TOO_GENERAL = set(
    """entity;physical entity;object;whole;matter;abstraction;thing;causal agent;living thing;organism;artifact;
    instrumentality;unit;physical object;being;natural object;substance;solid;group;psychological feature;attribute;
    relation;communication;measure;way;structure;implement;device;conveyance;covering;commodity;consumer goods;
    solid food;nutrient;foodstuff;chordate;placental;eutherian;article;equipment;container;mechanism;location;region;
    area;facility;unit of measurement;creation;part;body part;geological formation;motion;form;shape;product;durables;
    wheeled vehicle;self-propelled vehicle;craft;arthropod;invertebrate;instrument;protective covering;surface;
    obstruction;establishment;worker;carnivore;bovid;canine;feline;
    plant part;plant organ;reproductive structure;vascular plant;
    diapsid;amniote;furnishing;consumer durables;vertebrate;organization;state;event;act;activity;line;material;
    opening;passage;point;cause;force;restraint;support;source of illumination;adornment;strip;sheet;rod;bar;
    connection;fastener;barrier;way;mechanical device;system;public transport;flow;body;collection;sphere""".replace(
        "\n", ""
    ).split(";")
)
TOO_GENERAL = {kind.strip() for kind in TOO_GENERAL}


@dataclass(frozen=True)
class Synset:
    """A noun concept of WordNet: its lemmas, its definition, and the concepts that it is a kind of."""

    lemmas: tuple[str, ...]
    definition: str
    kinds: tuple[str, ...]  # offsets of the concepts that it is a kind of
    file: str  # number of the lexicographer file


class WordNet:
    """WordNet's nouns, by offset and by lemma.

    Args:
        folder: The folder of data.noun and index.noun.

    Raises:
        click.UsageError: The folder has no data.noun.
    """

    def __init__(self, folder: Path = WORDNET) -> None:
        self.synsets: dict[str, Synset] = {}
        self.senses: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}
        if not (folder / "data.noun").exists():
            raise click.UsageError(f"{folder}: no data.noun (WordNet 3.0; Debian's package is wordnet-base)")
        for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue  # the lines of the licence begin with spaces
            fields, _, definition = line.partition(" | ")
            parts = fields.split()
            lemmas = int(parts[3], 16)
            pointers = 4 + 2 * lemmas
            kinds = [
                parts[at + 1]
                for at in range(pointers + 1, pointers + 1 + 4 * int(parts[pointers]), 4)
                if parts[at] in ("@", "@i") and parts[at + 2] == "n"
            ]
            names = tuple(parts[4 + 2 * i].replace("_", " ") for i in range(lemmas))
            gloss = definition.split('; "')[0].split(";")[0].strip()
            self.synsets[parts[0]] = Synset(names, gloss, tuple(kinds), parts[1])
        for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):
                parts = line.split()
                self.senses[parts[0].replace("_", " ")] = [p for p in parts if re.fullmatch(r"\d{8}", p)]
        counted = folder / "cntlist.rev"  # the counts of each sense in tagged text
        for line in counted.read_text(encoding="utf-8").splitlines() if counted.exists() else []:
            key, _, count = line.split()
            lemma, _, rest = key.partition("%")
            if rest.startswith("1"):
                self.counts[lemma.replace("_", " ")] = self.counts.get(lemma.replace("_", " "), 0) + int(count)

    def pictured(self, name: str) -> str | None:
        """Return the offset of the sense of `name` that a picture would show, or None if WordNet has no such noun.

        That is the sense of an animal if one of the first three senses is one, else the first sense of a visible thing.
        """
        senses = self.senses.get(name.lower(), [])
        if name in SENSES:
            return senses[SENSES[name] - 1]
        seen = [offset for offset in senses[:3] if self.synsets[offset].file == ANIMALS]
        seen += [offset for offset in senses if self.synsets[offset].file in PICTURED]
        return next(iter(seen + senses), None)

    def ancestors(self, offset: str, depth: int = 9) -> list[str]:
        """Return the concepts that `offset` is a kind of, nearest first, without those too general to be named."""
        found: dict[str, None] = {}
        level, seen = list(self.synsets[offset].kinds), set()
        for _ in range(depth):
            above: list[str] = []
            for kind in level:
                if kind not in seen:
                    seen.add(kind)
                    if self.synsets[kind].lemmas[0] not in TOO_GENERAL:
                        found[kind] = None
                    above += self.synsets[kind].kinds
            level = above
        return list(found)


@dataclass(frozen=True)
class Concept:
    """A thing that captions name: its names (the class's own name first), its kinds and its definition."""

    names: tuple[str, ...]
    definition: str
    kinds: tuple[str, ...]  # names of its nearest kinds


@dataclass(frozen=True)
class Concepts:
    """The concepts of all classes of the training pictures.

    Attributes:
        concepts: All concepts; others refer to a concept by its index in this list.
        own: The index of each class's concept.
        kinds: For each class, the indices of the concepts that it is a kind of, nearest first.
    """

    concepts: list[Concept]
    own: list[int]
    kinds: list[list[int]]


def imagenet_offsets() -> dict[str, str]:
    """Return TinyImageNet's class names with their WordNet offsets, from tiny_names.txt."""
    rows = (line.split(None, 1) for line in (HERE / "tiny_names.txt").read_text().splitlines())
    return {name.strip(): offset[1:] for offset, name in rows}


def find_concepts(classes: list[tuple[str, str]], wordnet: WordNet) -> Concepts:
    """Find the WordNet concept of every class, and name it.

    Args:
        classes: (data set, class name) of every class.
        wordnet: WordNet's nouns.

    Returns:
        The concepts. A class that WordNet does not know is a separate concept without kinds.
    """
    offsets = imagenet_offsets()
    keys: dict[str, int] = {}
    own, kinds = [], []
    called: dict[int, list[str]] = {}
    for dataset, name in classes:
        base = SPELLINGS.get(name, name)
        offset = offsets.get(name) if dataset == "tiny_imagenet" else None
        offset = offset if offset in wordnet.synsets else wordnet.pictured(base)
        number = keys.setdefault(offset or f"name:{base}", len(keys))
        own.append(number)
        called.setdefault(number, []).extend([base, *ALSO.get(base, [])])
        above = wordnet.ancestors(offset) if offset else []
        kinds.append([keys.setdefault(kind, len(keys)) for kind in above])
    concepts = []
    for key, number in keys.items():
        synset = wordnet.synsets.get(key)
        lemmas = [lemma for lemma in synset.lemmas if len(lemma) < 25][:4] if synset else []
        # leave out long names, which are often Latin
        names = called.get(number, []) + lemmas or list(synset.lemmas[:1] if synset else [])
        unique = {n.lower(): n for n in reversed(names)}
        ordered = [unique[k] for k in dict.fromkeys(n.lower() for n in names)]
        above = [wordnet.synsets[kind].lemmas[0] for kind in wordnet.ancestors(key)[:4]] if synset else []
        concepts.append(Concept(tuple(ordered), synset.definition if synset else "", tuple(above)))
    return Concepts(concepts, own, kinds)
