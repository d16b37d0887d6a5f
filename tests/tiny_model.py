"""The folder of `tiny`, a CLIP smaller than the embedded one, for tests that need a model and not its accuracy."""

from promptsearch.evaluators.cache.store import MODELS

TINY = MODELS / "tiny"
