"""Pictures as their data set stores them, and their conversion to 8-bit RGB."""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.banks.formats import mistaken_for
from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.hub import first_line

if TYPE_CHECKING:
    from PIL.Image import Image

#: Version of the decoding, a part of the key of cached picture vectors; increase it if a file decodes to other pixels.
DECODING = 2

#: Formats that Pillow may decode: those for which it starts no other program (as Ghostscript for EPS).
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

#: A 16-bit picture whose largest value is above 255 but below this may hold 10 or 12 bits; its range is unknown.
SIXTEEN_BITS = 4096

# The brands of ISO media files that are pictures.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")


class _Unfit(Exception):
    """Raised for a picture that cannot be converted to 8-bit RGB, with the reason and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class StoredPicture:
    """One encoded picture of a data set.

    It is small enough to be sent, and is decoded by the thread or machine that uses it.

    for picture in data.stored("train", range(8)):
        print(picture.open().size)

    Attributes:
        content: The file's bytes, or None if they are read from `path`.
        where: Data set, split and index, for messages.
        condition: The condition that is applied when the picture is opened.
    """

    content: bytes | None
    path: str | None
    where: str
    condition: str | None = None

    def open(self) -> Image:
        """Decode the picture to 8-bit RGB (see `to_rgb`).

        The picture is rotated as its EXIF orientation says.  Of an animation, the first frame is decoded.

        Raises:
            PromptSearchError: The picture cannot be decoded or converted to 8-bit RGB.
        """
        from promptsearch.evaluators.data.corruptions import degrade

        try:
            picture = self._decoded()
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error ...
            raise self._damaged(error) from error
        return degrade(picture, self.condition)

    def packed(self) -> StoredPicture:
        """Return the picture with its bytes in `content`, for a machine that does not have the file."""
        if self.content is not None or self.path is None:
            return self
        try:
            return replace(self, content=Path(self.path).read_bytes())
        except OSError as error:
            raise self._damaged(error) from error

    def _decoded(self) -> Image:
        from PIL import Image, UnidentifiedImageError

        if self.content is None and self.path is None:
            raise ValueError("neither bytes nor a path")
        if self.content is None and os.path.exists(str(self.path)) and not os.path.isfile(str(self.path)):
            raise ValueError("not a regular file")
        source = self.path if self.content is None else io.BytesIO(self.content)
        try:
            opened = Image.open(source, formats=openable())  # type: ignore[arg-type]
        except UnidentifiedImageError:
            self._explain()
            raise _Unfit("not a picture of a form that is read here", "replace it, or save it as PNG or JPEG") from None
        with opened as picture:
            return upright_rgb(picture)

    def _explain(self) -> None:
        """Raise an error that explains the problem if the file is of a known kind that Pillow cannot open."""
        head = self.content[:512] if self.content is not None else b""
        if self.content is None and self.path is not None:
            with open(self.path, "rb") as f:
                head = f.read(512)
        if need := needed_package(head):
            raise _Unfit(*need)
        if found := mistaken_for(head):
            raise _Unfit(f"the file is {found[0]}", found[1])

    def _damaged(self, error: Exception) -> PromptSearchError:
        at = f" ({printable_path(self.path)})" if self.path else ""
        return PromptSearchError(why_damaged(f"{self.where}{at}", error))


def open_given(picture: Image, where: str) -> Image:
    """Convert a picture that Pillow has opened or made to 8-bit RGB, as `StoredPicture.open` does with a file.

    Args:
        picture: The picture.
        where: Its name for messages.

    Raises:
        PromptSearchError: It cannot be decoded or converted to 8-bit RGB.
    """
    try:
        return upright_rgb(picture)
    except Exception as error:  # as in StoredPicture.open; its file may be closed, too
        raise PromptSearchError(why_damaged(where, error)) from error


def why_damaged(where: str, error: Exception) -> str:
    """Return the message for a picture that cannot be decoded, with the remedy."""
    remedy = error.remedy if isinstance(error, _Unfit) else "replace it or remove it"
    return f"{where} cannot be decoded ({first_line(error)}); {remedy}"


def upright_rgb(picture: Image) -> Image:
    """Convert an opened picture to 8-bit RGB, rotated as its EXIF orientation says."""
    from PIL import ImageOps

    if 0 in picture.size:
        raise _Unfit("it has no pixels", "replace it or remove it")
    negative = is_negative(picture)
    upright = ImageOps.exif_transpose(picture)
    upright.format = picture.format
    shown = to_rgb(upright)
    return ImageOps.invert(shown) if negative else shown


def is_negative(picture: Image) -> bool:
    """Return whether a picture's largest value is black, and Pillow does not invert it when it decodes it.

    Pillow inverts such TIFF files itself if they have up to 8 bits per pixel.
    """
    photometric = getattr(picture, "tag_v2", {}).get(262)
    return photometric == 0 and (picture.mode.startswith("I") or picture.mode == "F")


def to_rgb(picture: Image) -> Image:
    """Convert an opened picture to 8-bit RGB.

    Transparent pixels become white.  Grey values of 16 bits are scaled from 0 … 65535 and floating-point ones from
    0 … 1; integers and floats within 0 … 255 are kept.

    Args:
        picture: The picture, in any of Pillow's modes.

    Returns:
        A picture of mode RGB and the same size.

    Raises:
        _Unfit: Some values do not fit into 8 bits, and their full range is unknown.
    """
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_eight_bits(picture)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":
        picture = picture.convert("LA")
    shown = picture.convert("RGBA")
    if shown.getchannel("A").getextrema() == (255, 255):
        return shown.convert("RGB")
    ground = Image.new("RGBA", shown.size, "white")
    ground.alpha_composite(shown)
    return ground.convert("RGB")


def _eight_bits(picture: Image) -> np.ndarray:
    """Convert a grey picture of 16-bit, 32-bit or floating-point values to an (H, W) array of uint8."""
    values = np.asarray(picture)  # (H, W)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    # Pillow gives some 16-bit files as 32-bit integers; only PNG and PPM say that their range is the whole one.
    sixteen = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")
    kind = "floating-point" if picture.mode == "F" else "16-bit" if sixteen else "32-bit integer"
    if picture.mode == "F" and low >= 0 and high <= 1:
        grey = np.rint(values * 255).astype(np.uint8)
    elif low >= 0 and high <= 255:  # comparisons with NaN are false
        grey = values.astype(np.uint8)
    elif kind == "16-bit" and low >= 0 and SIXTEEN_BITS <= high <= 65535:
        grey = np.rint(values / 257).astype(np.uint8)
    else:
        raise _Unfit(
            f"a {kind} picture with values from {low:g} to {high:g}, whose full range is not known; 8-bit RGB holds "
            "0 to 255",
            "save it with 8 bits per channel",
        )
    key = picture.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return grey


def openable() -> tuple[str, ...]:
    """Return the `FORMATS` that can be decoded here; HEIC and AVIF need Pillow plug-in packages."""
    from PIL import Image

    Image.init()
    for name, package in (("HEIF", "pillow_heif"), ("AVIF", "pillow_avif")):
        if name not in Image.OPEN:
            _register(name, package)
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache  # cached, because the search for a missing package goes through all of sys.path
def _register(name: str, package: str) -> None:
    import importlib

    try:
        module = importlib.import_module(package)  # pillow_avif registers itself
    except ImportError:
        return
    if name == "HEIF":
        module.register_heif_opener()


def needed_package(head: bytes) -> tuple[str, str] | None:
    """Return the decoder that is missing for a file that starts with `head`, and its remedy; None if there is none."""
    if head[4:8] != b"ftyp":
        return None
    for name, brands, what in (("HEIF", _HEIC, "HEIC"), ("AVIF", _AVIF, "AVIF")):
        if head[8:12] in brands and name not in openable():
            return (
                f"{what}, which the Pillow installed here does not read",
                "pip install 'promptsearch[heic]', or convert it",
            )
    return None


def looks_like_picture(head: bytes) -> bool:
    """Return whether a file that starts with `head` is in one of `FORMATS`."""
    starts = (
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF87a",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\xff\x4f\xff\x51",
    )
    if head.startswith(starts) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return True
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return True
    return head[4:8] == b"ftyp" and head[8:12] in (*_HEIC, *_AVIF)


def printable_path(path: str | os.PathLike[str] | None) -> str:
    """Return a path for a message, with invalid UTF-8 and terminal control characters escaped."""
    text = os.fsencode(path or "").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
