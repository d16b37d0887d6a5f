"""promptsearch: gradient-free search for readable prompts of vision-language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptsearch.version import __version__

if TYPE_CHECKING:
    from promptsearch.estimator import PromptSearch

__all__ = ["PromptSearch", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `PromptSearch` when it is first used, because the command line must start without numpy."""
    if name == "PromptSearch":
        from promptsearch.estimator import PromptSearch

        return PromptSearch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
