"""Language models that run locally with transformers, or on a server with OpenAI's API."""

from promptsearch.lm.local import LocalModel
from promptsearch.lm.locate import EMBEDDED, ModelPlace, locate

__all__ = ["EMBEDDED", "LocalModel", "ModelPlace", "locate"]
