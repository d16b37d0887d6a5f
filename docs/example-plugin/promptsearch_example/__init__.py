"""One plug-in of every kind; see docs/plug-ins.md of promptsearch."""

from promptsearch.banks import Bank
from promptsearch.score import Score


def bank() -> Bank:
    """seven sentences about how a picture was taken"""
    return Bank.of(
        "example",
        [
            "a {}.",
            "a photo of a {}.",
            "a sketch of a {}.",
            "a photo of a {} at night.",
            "a close photo of a {}.",
            "a photo of a {} that somebody took in a hurry.",
            "an old photo of a {}.",
        ],
    )


def careful(score: Score) -> tuple[float, ...]:
    """Accuracy, less a tenth of the cross-entropy: a winner that is right and not too sure of what is wrong."""
    return (score.accuracy - 0.1 * score.xent,)
