"""Language models: local ones with transformers, and servers with OpenAI's API."""

from promptsearch.lm.local import LocalModel
from promptsearch.lm.locate import EMBEDDED, ModelPlace, locate

__all__ = ["EMBEDDED", "LocalModel", "ModelPlace", "locate"]
