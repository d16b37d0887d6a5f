"""Every kind of picture file becomes the same 8-bit RGB, or is refused by name."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.data.encoded_picture import StoredPicture

GREY = np.random.default_rng(0).integers(0, 256, (12, 10)).astype(np.uint8)
GREY[0, 0], GREY[0, 1] = 0, 255
SIXTEEN = GREY.astype(np.uint16) * 257


def file_of(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def decoded(content: bytes) -> np.ndarray:
    picture = StoredPicture(content, None, "picture 3").open()
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (GREY, "PNG"),
        (GREY, "TIFF"),
        (SIXTEEN, "PNG"),
        (SIXTEEN, "TIFF"),
        (SIXTEEN.astype(">u2"), "TIFF"),
        (SIXTEEN, "PPM"),
        (GREY.astype(np.uint16), "PNG"),  # within 8 bits already
        (GREY.astype(np.int32), "TIFF"),
        (GREY.astype(np.float32) / 255, "TIFF"),
        (GREY.astype(np.float32), "TIFF"),
        (GREY.astype(np.float32) / 255, "PPM"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.dtype.str,
)
def test_deep_pictures_decode_as_their_8_bit_copies(values: np.ndarray, form: str) -> None:
    assert (decoded(file_of(Image.fromarray(values), form)) == GREY[..., None]).all()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("values", [GREY, SIXTEEN, SIXTEEN.astype(">u2"), GREY.astype(np.float32) / 255])
def test_deep_pictures_are_turned_as_others_are(values: np.ndarray, orientation: int) -> None:
    plain = decoded(file_of(Image.fromarray(GREY), "TIFF", tiffinfo={274: orientation}))
    assert (decoded(file_of(Image.fromarray(values), "TIFF", tiffinfo={274: orientation})) == plain).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (GREY.astype(np.uint16) * 16, "16-bit picture with values from 0 to 4080"),  # 12 bits of 16
        (GREY.astype(np.uint16) * 4, "16-bit picture with values from 0 to 1020"),  # 10 bits
        (SIXTEEN.astype(np.int32), "32-bit integer picture with values from 0 to 65535"),
        (GREY.astype(np.int32) - 40, "32-bit integer picture with values from -40 to 215"),
        (GREY.astype(np.float32) - 1, "floating-point picture with values from -1 to 254"),
        (GREY.astype(np.float32) * 5, "floating-point picture with values from 0 to 1275"),
        (np.where(GREY, GREY / 255, np.nan).astype(np.float32), "floating-point picture with values from nan"),
        (np.where(GREY, GREY / 255, np.inf).astype(np.float32), "floating-point picture with values from .* to inf"),
    ],
)
def test_what_8_bits_cannot_hold_is_refused(values: np.ndarray, says: str) -> None:
    with pytest.raises(PromptSearchError, match=f"^picture 3 cannot be decoded \\(a {says}.*save it with 8 bits"):
        decoded(file_of(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_files_in_which_0_is_white(kind: type, orientation: int) -> None:
    values = (GREY.astype(np.float64) * (257 if kind is np.uint16 else 1 / 255)).astype(kind)
    content = file_of(Image.fromarray(values), "TIFF", tiffinfo={262: 0, 274: orientation})
    plain = decoded(file_of(Image.fromarray(GREY), "TIFF", tiffinfo={274: orientation}))
    assert (decoded(content) == 255 - plain).all()


COLOURS = np.random.default_rng(1).integers(0, 200, (12, 10, 3)).astype(np.uint8)
HOLE = np.add.outer(np.arange(12), np.arange(10)) % 3 == 0


def see_through(mode: str, under: np.ndarray) -> Image.Image:
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    if mode == "RGBA":
        return Image.fromarray(np.dstack([np.where(HOLE[..., None], under, COLOURS), alpha]).astype(np.uint8))
    grey = np.where(HOLE, under[..., 0], COLOURS[..., 0]).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_bytes_under_transparency_do_not_count(mode: str, form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    pictures = [
        decoded(file_of(see_through(mode, np.full((12, 10, 3), under, np.uint8)), form, **options))
        for under in (0, 77, 255)
    ]
    colours = COLOURS if mode == "RGBA" else COLOURS[..., :1]
    for picture in pictures:
        assert (picture == np.where(HOLE[..., None], 255, colours)).all()


def test_half_transparent_pixels_are_laid_on_white() -> None:
    half = Image.new("RGBA", (2, 2), (100, 0, 255, 128))
    assert decoded(file_of(half, "PNG"))[0, 0].tolist() == [177, 127, 255]


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "P", "GIF", "PA"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    """A colour key (tRNS of PNG, GIF's transparent index), or a palette with alpha."""
    white = np.where(HOLE[..., None], 255, 10)
    grey = Image.fromarray(np.where(HOLE, 0, 10).astype(np.uint8))
    if mode == "1":
        content = file_of(Image.fromarray(HOLE), "PNG", transparency=0)
        white = np.full((12, 10, 1), 255)
    elif mode == "I;16":
        content = file_of(Image.fromarray(np.where(HOLE, 5, 2570).astype(np.uint16) * 1), "PNG", transparency=5)
        with pytest.raises(PromptSearchError, match="16-bit picture with values from 5 to 2570"):
            decoded(content)
        deep = Image.fromarray(np.where(HOLE, 5, 65535).astype(np.uint16))
        content, white = file_of(deep, "PNG", transparency=5), np.full((12, 10, 1), 255)
    elif mode == "RGB":
        content = file_of(grey.convert("RGB"), "PNG", transparency=(0, 0, 0))
    elif mode == "GIF":
        content = file_of(grey.convert("P"), "GIF", transparency=0)
    elif mode == "PA":
        with_alpha = grey.convert("RGBA")
        with_alpha.putalpha(Image.fromarray(np.where(HOLE, 0, 255).astype(np.uint8)))
        content = file_of(with_alpha.quantize(8), "PNG")
    else:
        content = file_of(grey.convert(mode), "PNG", transparency=0)
    assert (decoded(content) == white).all()


def test_opaque_pictures_decode_as_pillow_converts_them() -> None:
    colours = Image.fromarray(COLOURS)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"):
        form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
        content = file_of(colours.convert(mode), form)
        with Image.open(io.BytesIO(content)) as opened:
            assert (decoded(content) == np.asarray(opened.convert("RGB"))).all(), mode


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 200, 90)]
    for form in ("GIF", "PNG", "TIFF"):
        first = decoded(file_of(frames[0], form, save_all=True, append_images=frames[1:]))
        assert abs(int(first[0, 0, 0]) - 10) < 3, form


def test_16_bit_colour_and_transparency() -> None:
    """Pillow writes no such file: one by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + b"".join(struct.pack(">4H", *[int(GREY[y, x]) * 257] * 3, 65535 * (not HOLE[y, x])) for x in range(10))
        for y in range(12)
    )
    head = struct.pack(">IIBBBBB", 10, 12, 16, 6, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (decoded(b"\x89PNG\r\n\x1a\n" + parts) == np.where(HOLE, 255, GREY)[..., None]).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not a picture of a form that is read here"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>404", "web page.*download button"),
        (b"\xef\xbb\xbf<html>log in", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "server's XML answer"),
        (b"", "the file is empty"),
        (b"8BPS\0\1", "not a picture of a form that is read here"),
    ],
)
def test_no_picture_is_said_to_be_what_it_is(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(PromptSearchError, match=says):
        decoded(content)
    file = tmp_path / "x.png"
    file.write_bytes(content)
    with pytest.raises(PromptSearchError, match=says):
        StoredPicture(None, str(file), "picture 3").open()


def test_a_path_to_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(PromptSearchError, match="not a regular file"):
            StoredPicture(None, str(path), "picture 3").open()


def test_avif_and_heic_are_read_where_they_can_be_and_named_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptsearch.evaluators.data import encoded_picture

    if "AVIF" in encoded_picture.openable():
        assert np.abs(decoded(file_of(Image.new("RGB", (16, 16), (50, 60, 70)), "AVIF"))[0, 0] - [50, 60, 70]).max() < 5
    monkeypatch.setattr(encoded_picture, "openable", lambda: ("PNG",))
    for brand, what in ((b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")):
        with pytest.raises(PromptSearchError, match=rf"{what}, which the Pillow .* pip install 'promptsearch\[heic\]'"):
            decoded(b"\0\0\0\x18ftyp" + brand + b"\0" * 32)


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install 'promptsearch[heic]'")
    heif.register_heif_opener()
    picture = decoded(file_of(Image.new("RGB", (64, 64), (50, 60, 70)), "HEIF"))
    assert np.abs(picture[5, 5].astype(int) - [50, 60, 70]).max() < 8
