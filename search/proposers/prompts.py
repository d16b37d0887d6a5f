"""Prompts for language models: few-shot texts to complete, and conversations."""

from __future__ import annotations

from promptsearch.search.proposers.request import Request

#: The last line's label, by kind; a model that completes text writes the rest of that line.
LABELS = {
    "paraphrase": "In other words",
    "specific": "More specific",
    "shorter": "Shorter",
    "medium": "Another medium",
    "condition": "Another condition",
    "crossover": "Both in one",
}
HEADS = {
    "history": "Captions of pictures, from worst to best, with their scores:",
    "better": "Captions of pictures, bad ones first, then good ones, then a better one:",
}
#: The line above the examples of all kinds.
HEAD = "Captions of pictures, and the same captions changed. {} stands for the object in the picture."
#: Examples of each kind: (parents, answer).
EXAMPLES: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "paraphrase": (
        (("a photo of a {}.",), "a picture of a {}."),
        (("a {} seen from far away.",), "a {} in the distance."),
        (("a drawing of the {}.",), "a sketch of the {}."),
    ),
    "specific": (
        (("a photo of a {}.",), "a close-up photo of a {}."),
        (("a painting of the {}.",), "an oil painting of the {} in a forest."),
        (("a {} at home.",), "a photo of a {} at home in the evening."),
    ),
    "shorter": (
        (("a close-up photo of a {} in the rain.",), "a photo of a {} in the rain."),
        (("this is an oil painting of the {}.",), "a painting of the {}."),
        (("a bright picture of my {} on the beach.",), "a {} on the beach."),
    ),
    "medium": (
        (("a photo of a {} in the snow.",), "a watercolor of a {} in the snow."),
        (("a drawing of the {}.",), "a sculpture of the {}."),
        (("a video still of a {}.",), "a photo of a {}."),
    ),
    "condition": (
        (("a bright photo of a {}.",), "a foggy photo of a {}."),
        (("a {} in the rain.",), "a {} in bright sunlight."),
        (("a blurry picture of the {}.",), "a cropped picture of the {}."),
    ),
    "crossover": (
        (("a blurry photo of a {}.", "a painting of the {}."), "a blurry painting of the {}."),
        (("a photo of a {} in the rain.", "a small {}."), "a small {} in the rain."),
        (("a close-up of my {}.", "a black and white picture of a {}."), "a black and white close-up of a {}."),
    ),
}
INSTRUCTIONS = {
    "paraphrase": "Rewrite this caption in other words that mean the same.",
    "specific": "Make this caption more specific about how the picture looks, by a few words.",
    "shorter": "Make this caption shorter; keep what says most about how the picture looks.",
    "medium": "Change the medium that this caption names (photo, painting, sketch …).",
    "condition": "Change the condition of the picture that this caption names (light, sharpness, weather, distance …).",
    "crossover": "Write one caption that joins what these two say.",
    "history": (
        "These captions were tried on a set of pictures; each has its score, the best is last. Find out what the good "
        "ones have in common and write a new one that scores higher."
    ),
    "better": "Write a new caption that is better than the good ones and has nothing in common with the bad ones.",
}
SYSTEM = (
    "You write captions for pictures. In every caption {} stands for the object's name, exactly once; never name an "
    "object yourself. Write plain English of at most 15 words. Answer with the caption alone, on one line."
)


def completion(request: Request, examples: int = 3) -> str:
    """Return a text for a model without a chat template; the model's next line is the answer."""
    if request.kind == "history":
        lines = [HEADS["history"], *(f"{score}: {template}" for score, template in request.scores)]
        top = request.scores[-1][0] if request.scores else 50
        return "\n".join([*lines, f"{min(99, top + 2)}:"])
    if request.kind == "better":
        lines = [HEADS["better"], *(f"bad: {t}" for t in request.bad), *(f"good: {t}" for t in request.good)]
        return "\n".join([*lines, "better:"])
    label = LABELS[request.kind]
    blocks = [block(parents, label, answer) for parents, answer in EXAMPLES[request.kind][:examples]]
    return "\n".join([*blocks, block(request.parents, label, "").rstrip()])


def few_shot(request: Request, examples: int = 2) -> str:
    """Return a text whose next line is the answer.

    The part that is the same for all requests comes first, so that a model computes it only once.
    """
    rounds = range(min(examples, 2))
    blocks = [block(*EXAMPLES[kind][i][:1], LABELS[kind], EXAMPLES[kind][i][1]) for i in rounds for kind in LABELS]
    asked = completion(request, 0)
    return "\n\n".join([HEAD, *blocks, asked])


def block(parents: tuple[str, ...], label: str, answer: str) -> str:
    """Return one example: the parents, then the label and the answer."""
    return "\n".join([*(f"Caption: {t}" for t in parents), f"{label}: {answer}"])


def conversation(request: Request, examples: int = 3) -> list[dict[str, str]]:
    """Return the messages for a model with a chat template."""
    lines = [INSTRUCTIONS[request.kind]]
    if request.kind == "history":
        lines += [f"{score}: {template}" for score, template in request.scores]
    elif request.kind == "better":
        lines += [*(f"bad: {t}" for t in request.bad), *(f"good: {t}" for t in request.good)]
    else:
        for parents, answer in EXAMPLES[request.kind][:examples]:
            lines.append(f"Example: {' / '.join(parents)} -> {answer}")
        lines += [f"Caption: {t}" for t in request.parents]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]
