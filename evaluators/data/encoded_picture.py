"""A picture as its data set stores it: decoded where, and when, it is needed."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.hub import first_line

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class StoredPicture:
    """One picture of a data set, still encoded: small to send, and decoded by the thread or machine that uses it.

    for picture in data.stored("train", range(8)):
        print(picture.open().size)

    Attributes:
        content: the file's bytes, or None where they lie at `path`.
        where: data set, split and number, for messages.
        condition: what the picture is degraded to when it is opened.
    """

    content: bytes | None
    path: str | None
    where: str
    condition: str | None = None

    def open(self) -> Image:
        """The RGB picture.

        Raises:
            PromptSearchError: it cannot be decoded.
        """
        from promptsearch.evaluators.data.corruptions import degrade

        try:
            picture = self._decoded()
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error ...
            raise self._damaged(error) from error
        return degrade(picture, self.condition)

    def packed(self) -> StoredPicture:
        """The same picture with its bytes in it, for a machine that does not have the file."""
        if self.content is not None or self.path is None:
            return self
        try:
            return replace(self, content=Path(self.path).read_bytes())
        except OSError as error:
            raise self._damaged(error) from error

    def _decoded(self) -> Image:
        from PIL import Image, ImageOps

        source = self.path if self.content is None else io.BytesIO(self.content)
        if source is None:
            raise ValueError("neither bytes nor a path")
        with Image.open(source) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")

    def _damaged(self, error: Exception) -> PromptSearchError:
        at = f" ({self.path})" if self.path else ""
        return PromptSearchError(f"{self.where}{at} cannot be decoded ({first_line(error)}); replace it or remove it")
