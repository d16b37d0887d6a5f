"""The folder of `tiny`, a CLIP smaller than the embedded one, for tests that need a model and not its accuracy.

In a checkout `models/tiny` is a link to it, so that `--model tiny` knows it; the wheel has neither. conftest.py names
its parent folder in PROMPTSEARCH_MODELS too, for tests of an installed package.
"""

from pathlib import Path

TINY = Path(__file__).resolve().parent / "data" / "tiny"
