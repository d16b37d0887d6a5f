"""Language models: local ones through transformers, and servers that speak OpenAI's protocol."""

from promptsearch.lm.local import LocalModel
from promptsearch.lm.locate import EMBEDDED, ModelPlace, locate

__all__ = ["EMBEDDED", "LocalModel", "ModelPlace", "locate"]
