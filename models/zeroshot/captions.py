"""Generates the captions for training the zero-shot model: names, kinds and definitions, worded for a condition.

A fifth of the captions begin with a clause of up to about twenty tokens, so that the class name also stands at the
position where a long learnt context would put it.
"""

from __future__ import annotations

import numpy as np

from promptsearch.models.zeroshot.concepts import Concept

#: Wordings by condition. `plain` has ordinary prompts; the others say what was done to the picture.
WORDINGS: dict[str, list[str]] = {
    "plain": [
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of one {}.",
        "a picture of a {}.",
        "an image of a {}.",
        "a {}.",
        "the {}.",
        "{}",
        "{}, a photo.",
        "a good photo of a {}.",
        "a clear photo of the {}.",
        "a sharp photograph of a {}.",
        "a snapshot of a {}.",
        "this is a {}.",
        "there is a {} in the picture.",
        "a clean picture of the {}.",
        "a nice {}.",
        "itap of a {}.",
        "my {}.",
        "a {} on a plain background.",
    ],
    "blurry": [
        "a blurry photo of a {}.",
        "a blurry photo of the {}.",
        "a blurred picture of a {}.",
        "an out of focus photo of a {}.",
        "a soft, unfocused image of the {}.",
        "a {} behind frosted glass.",
        "a {} in the mist.",
        "a fuzzy photo of a {}.",
        "a {} in fog.",
        "a shaky photo of the {}.",
    ],
    "pixelated": [
        "a pixelated photo of a {}.",
        "a pixelated photo of the {}.",
        "a low resolution photo of a {}.",
        "a low resolution photo of the {}.",
        "a tiny thumbnail of a {}.",
        "a {} in a few large pixels.",
        "a low quality picture of a {}.",
        "a mosaic of a {}.",
        "a coarse, blocky image of the {}.",
        "a jpeg corrupted photo of a {}.",
    ],
    "dark": [
        "a dark photo of a {}.",
        "a dark photo of the {}.",
        "an underexposed picture of a {}.",
        "a {} at night.",
        "a photo of a {} in the dark.",
        "a dim photo of the {}.",
        "a {} in the shadows.",
        "a gloomy picture of a {}.",
        "a {} after sunset.",
        "a night photo of a {}.",
        "a {} by candlelight.",
    ],
    "bright": [
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "an overexposed picture of a {}.",
        "a {} in bright sunlight.",
        "a washed out photo of the {}.",
        "a {} in glaring light.",
        "a hazy photo of a {}.",
        "a pale picture of a {}.",
    ],
    "gray": [
        "a black and white photo of a {}.",
        "a black and white photo of the {}.",
        "a monochrome picture of a {}.",
        "a grayscale image of the {}.",
        "an old photo of a {}.",
        "a {} without colour.",
        "a gray picture of a {}.",
    ],
    "sketch": [
        "a sketch of a {}.",
        "a sketch of the {}.",
        "a drawing of a {}.",
        "a drawing of the {}.",
        "a pencil drawing of the {}.",
        "a line drawing of a {}.",
        "an outline of a {}.",
        "a doodle of a {}.",
        "an etching of a {}.",
        "a sketchy drawing of a {}.",
        "a {} drawn in a few black lines.",
        "a silhouette of a {}.",
    ],
    "closeup": [
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a cropped photo of a {}.",
        "a cropped photo of the {}.",
        "a detail of a {}.",
        "a {} seen from very near.",
        "a macro shot of a {}.",
        "a zoomed in picture of the {}.",
        "a photo of a large {}.",
    ],
    "small": [
        "a photo of a small {}.",
        "a photo of the small {}.",
        "a {} in the distance.",
        "a {} seen from far away.",
        "a tiny {}.",
        "a distant {}.",
        "a photo of a little {} with a wide border.",
    ],
    "noisy": [
        "a noisy photo of a {}.",
        "a noisy photo of the {}.",
        "a grainy picture of a {}.",
        "a {} on a television with static.",
        "a photo of a {} in the snow.",
        "a {} in heavy rain.",
        "a corrupted photo of a {}.",
        "a bad photo of the {}.",
    ],
    "rotated": [
        "a rotated photo of a {}.",
        "a photo of a {} lying on its side.",
        "an upside down photo of a {}.",
        "a tilted picture of the {}.",
        "a {} turned over.",
        "a sideways image of a {}.",
    ],
    "painted": [
        "a painting of a {}.",
        "a painting of the {}.",
        "an oil painting of a {}.",
        "a watercolor of the {}.",
        "a cartoon {}.",
        "a cartoon of a {}.",
        "an illustration of a {}.",
        "a poster of a {}.",
        "art of the {}.",
        "an artistic picture of a {}.",
        "a rendition of a {}.",
        "a mural of a {}.",
    ],
    "negative": [
        "a negative of a {}.",
        "a photo negative of the {}.",
        "an inverted picture of a {}.",
        "a {} in inverted colours.",
        "an x-ray of a {}.",
        "a {} in false colours.",
    ],
}

CONDITIONS: list[str] = list(WORDINGS)

#: Clauses that say nothing about the picture; a caption may have one to four of them before it, or one after it.
CLAUSES = [
    "taken yesterday",
    "found online",
    "from the archive of a museum",
    "for my album",
    "sent by a friend",
    "which hangs in our kitchen",
    "seen on a website",
    "on page four of the book",
    "as I said before",
    "made for the holiday",
    "bought last year",
    "without any text",
]


def fill(template: str, name: str) -> str:
    """Put `name` in the template's `{}`, with "an" before a vowel."""
    before, after = template.split("{}")
    if name[0].lower() in "aeiou" and (before == "a " or before.endswith(" a ")):
        before = before[:-1] + "n "
    return before + name + after


def caption(concept: Concept, condition: str, rng: np.random.Generator) -> str:
    """Draw one caption of a picture of `concept` under `condition`.

    Args:
        concept: What the picture shows; its first name is used in six of ten captions.
        condition: A key of `WORDINGS`.
        rng: Draws names, wording and clauses.

    Returns:
        The sentence.
    """
    names = concept.names
    name = names[0] if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
    wordings = WORDINGS[condition]
    text = fill(wordings[int(rng.integers(len(wordings)))], name).rstrip(".")
    drawn = rng.random()
    if drawn < 0.08 and concept.kinds:
        kind = concept.kinds[int(rng.integers(len(concept.kinds)))]
        text = fill(f"{text}, a kind of {{}}" if rng.random() < 0.5 else f"{text}, a {{}}", kind)
    elif drawn < 0.13 and concept.definition:
        text = f"{text}: {concept.definition}"
    elif drawn < 0.33:
        clauses = rng.permutation(len(CLAUSES))[: int(rng.integers(1, 5))]
        text = f"a page, {', '.join(CLAUSES[i] for i in clauses)}: {text}"
    elif drawn < 0.4:
        text = f"{text} {CLAUSES[int(rng.integers(len(CLAUSES)))]}"
    return text if rng.random() < 0.2 else text + "."
