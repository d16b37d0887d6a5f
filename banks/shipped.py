"""The built-in banks, each a function without arguments, like the banks of plug-ins.

The first line of a function's docstring is the bank's description in `promptsearch banks list`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from promptsearch.banks.bank import Bank
from promptsearch.banks.content import parse_bank
from promptsearch.banks.template import Template
from promptsearch.errors import PromptSearchError

#: Sizes of the banks from open_clip, listed here because importing it takes seconds.
OPEN_CLIP_SIZES = {"openai-imagenet": 80, "simple-imagenet": 7}


def templates() -> Bank:
    """Hand-written templates: media, quality, light, distance, framing, context, weather."""
    return _file("templates", "templates.txt")


def grammar() -> Bank:
    """A slot grammar of quality, medium, determiner and context."""
    return _file("grammar", "grammar.yaml")


def openai_cifar() -> Bank:
    """The 18 templates of CLIP's authors for CIFAR-10 and CIFAR-100."""
    return _file("openai-cifar", "openai-cifar.txt")


def openai_imagenet() -> Bank:
    """The 80 templates of CLIP's ImageNet ensemble, from open_clip."""
    return _open_clip("openai-imagenet", "OPENAI_IMAGENET_TEMPLATES")


def simple_imagenet() -> Bank:
    """The 7 templates of CLIP's small ImageNet ensemble, from open_clip."""
    return _open_clip("simple-imagenet", "SIMPLE_IMAGENET_TEMPLATES")


def _file(name: str, file: str) -> Bank:
    data = (resources.files(__package__) / file).read_bytes()
    return parse_bank(data, Path(file).suffix, f"promptsearch/banks/{file}", name)


def _open_clip(name: str, constant: str) -> Bank:
    try:
        import open_clip
    except ImportError as e:
        raise PromptSearchError(f"bank {name!r} needs open_clip, which does not import: {e}; reinstall it") from e
    texts = [Template(fill("{}")) for fill in getattr(open_clip, constant)]
    return Bank(name, tuple(dict.fromkeys(texts)), source=f"open_clip.{constant}")


#: The built-in banks by name.
SHIPPED = {
    "templates": templates,
    "grammar": grammar,
    "openai-cifar": openai_cifar,
    "openai-imagenet": openai_imagenet,
    "simple-imagenet": simple_imagenet,
}
