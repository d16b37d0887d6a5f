"""The captions used to train `tiny`: class names with synonyms, and a list of templates per picture condition."""

from __future__ import annotations

import numpy as np

#: CIFAR-10's class names with synonyms, in label order; the first of each list is the data set's name.
SYNONYMS: list[list[str]] = [
    ["airplane", "plane", "aeroplane", "jet", "aircraft"],
    ["automobile", "car", "sedan", "motorcar", "vehicle"],
    ["bird", "songbird", "small bird", "sparrow"],
    ["cat", "kitten", "kitty", "house cat"],
    ["deer", "stag", "doe", "fawn"],
    ["dog", "puppy", "hound", "doggy"],
    ["frog", "toad", "tree frog", "bullfrog"],
    ["horse", "pony", "stallion", "mare"],
    ["ship", "boat", "vessel", "ferry"],
    ["truck", "lorry", "fire truck", "semi truck"],
]

#: Templates of each condition. Those of `plain` are common prompts; all others describe how the picture was changed.
WORDINGS: dict[str, list[str]] = {
    "plain": [
        "a photo of a {}.",
        "a photo of the {}.",
        "a picture of a {}.",
        "an image of a {}.",
        "a {}.",
        "{}",
        "a good photo of a {}.",
        "a clear photo of the {}.",
        "a sharp photograph of a {}.",
        "a snapshot of a {}.",
        "this is a {}.",
        "a clean picture of the {}.",
        "itap of a {}.",
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
    ],
    "bright": [
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "an overexposed picture of a {}.",
        "a {} in bright sunlight.",
        "a washed out photo of the {}.",
        "a {} in glaring light.",
        "a hazy photo of a {}.",
    ],
    "gray": [
        "a black and white photo of a {}.",
        "a black and white photo of the {}.",
        "a monochrome picture of a {}.",
        "a grayscale image of the {}.",
        "an old photo of a {}.",
        "a {} without colour.",
    ],
    "sketch": [
        "a sketch of a {}.",
        "a sketch of the {}.",
        "a drawing of a {}.",
        "a pencil drawing of the {}.",
        "a line drawing of a {}.",
        "an outline of a {}.",
        "a doodle of a {}.",
        "an etching of a {}.",
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
        "an illustration of a {}.",
        "a poster of a {}.",
        "art of the {}.",
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

#: Endings of captions that say nothing about the picture.
_ENDINGS = [" taken yesterday", " for my album", " from the archive", " found online", " by a friend", " on a website"]


def fill(template: str, name: str) -> str:
    """Replace `{}` in a template by a name, and "a" before it by "an" if the name starts with a vowel."""
    before, after = template.split("{}")
    if name[0] in "aeiou" and (before == "a " or before.endswith(" a ")):
        before = before[:-1] + "n "
    return before + name + after


def caption(label: int, condition: int, rng: np.random.Generator) -> str:
    """Draw a caption for a picture.

    Args:
        label: Class index; a synonym of the class name is used with probability 1/4.
        condition: Index of the condition in `CONDITIONS`.
        rng: Source of randomness.
    """
    names = SYNONYMS[label]
    name = names[0] if rng.random() >= 0.25 else names[int(rng.integers(1, len(names)))]
    wordings = WORDINGS[CONDITIONS[condition]]
    text = fill(wordings[int(rng.integers(len(wordings)))], name)
    if rng.random() < 0.1:
        text = text.rstrip(".") + _ENDINGS[int(rng.integers(len(_ENDINGS)))] + "."
    if rng.random() < 0.2:
        text = text.rstrip(".")
    return text
