"""A writer of templates that is no language model."""

from collections.abc import Sequence

from promptsearch.search import Space
from promptsearch.search.proposers import Request

LOOKS = ("a close look at", "a far view of", "a cropped view of", "a bright view of")


class Closer:
    """Answers every request with another look at one of the templates that it shows."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def propose(self, requests: Sequence[Request], seed: int) -> list[str]:
        """One template per request, the same ones for the same seed and requests."""
        return [self._answer(r, seed + i) for i, r in enumerate(requests)]

    def _answer(self, request: Request, number: int) -> str:
        shown = [*request.parents, *(t for _, t in request.scores), *request.good]
        _, _, tail = shown[number % len(shown)].partition("{}")
        return f"{LOOKS[number % len(LOOKS)]} a {{}}{tail}"
