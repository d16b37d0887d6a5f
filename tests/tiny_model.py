"""The folder of `tiny`, a CLIP smaller than the embedded one, for tests that need a model and not its accuracy.

`--model tiny` knows it because conftest.py names its parent folder in PROMPTSEARCH_MODELS, for the processes that tests
start too.
"""

from pathlib import Path

TINY = Path(__file__).resolve().parent / "data" / "tiny"
