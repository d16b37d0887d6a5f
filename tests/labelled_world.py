"""A run on pictures of three classes, and pictures of all kinds to label with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from promptsearch.cli import main

CLASSES = ("airplane", "cat", "ship")
COLOURS = ((90, 120, 200), (150, 110, 60), (60, 90, 120))
RUN = "mine"


def run(*args: object, code: int = 0) -> Result:
    """A command in this process, whose errors are one line."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    if code:
        assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1, result.stderr
    return result


def picture(rng: np.random.Generator, colour: tuple[int, ...], size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.clip(rng.normal(colour, 40, (*size, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def make_pictures(root: Path, train: int, test: int) -> Path:
    """Write a data set of so many pictures per class and split; its folder."""
    rng = np.random.default_rng(0)
    for split, n in (("train", train), ("test", test)):
        for name, colour in zip(CLASSES, COLOURS, strict=True):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture(rng, colour).save(folder / f"{i}.png")
    return root / "data"


def make_world(root: Path) -> Path:
    """Make a finished run named `mine` in `root`, where `use_world` finds it; the folder `new` has 40 pictures."""
    make_pictures(root, train=16, test=6)
    rng = np.random.default_rng(2)
    (root / "new" / "more").mkdir(parents=True)
    for i in range(40):
        place = root / "new" / ("more" if i % 4 == 0 else "") / f"{i:02}.png"
        picture(rng, COLOURS[i % 3], (30 + i % 5, 34)).save(place)
    (root / "new" / "notes.txt").write_text("no picture")
    (root / "bank.txt").write_text("a photo of a {}.\na dark photo of the {}.\na {}.\n")
    with pytest.MonkeyPatch.context() as patch:
        use_world(root, patch)
        args = ["beam", "--model", "tiny", "--dataset", root / "data", "--bank", root / "bank.txt", "--study", RUN]
        run(*args, "--shots", 8, "--width", 2, "--depth", 2, "--no-estimate", "--device", "cpu", "--quiet")
    return root


def use_world(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PROMPTSEARCH_HOME", str(root / "home"))
    patch.setenv("PROMPTSEARCH_CACHE", str(root / "cache"))


def add_odd_pictures(folder: Path) -> None:
    """Write pictures of every mode and format, rotated, transparent, grey, tall."""
    rng = np.random.default_rng(1)
    base = picture(rng, COLOURS[0], (50, 41))
    base.save(folder / "plain.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(folder / "turned.jpg", exif=exif)
    base.convert("L").save(folder / "grey.png")
    base.convert("P").save(folder / "palette.gif")
    base.convert("CMYK").save(folder / "cmyk.jpg")
    base.convert("1").save(folder / "one-bit.png")
    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(rng.integers(0, 255, (50, 41), np.uint8)))
    clear.save(folder / "clear.png")
    Image.fromarray(rng.integers(0, 65535, (40, 30), np.uint16)).save(folder / "sixteen.png")
    Image.fromarray(rng.random((40, 30), np.float32)).save(folder / "float.tiff")
    picture(rng, COLOURS[1], (400, 20)).save(folder / "tall.webp", lossless=True)
    picture(rng, COLOURS[2], (7, 90)).save(folder / "wide.bmp")
    Image.new("RGB", (1, 1), "red").save(folder / "one-pixel.png")
