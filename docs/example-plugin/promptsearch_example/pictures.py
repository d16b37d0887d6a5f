"""A data set that is made where it is used."""

from pathlib import Path

import platformdirs
from PIL import Image

COLOURS = {"fire truck": (200, 30, 30), "frog": (40, 160, 60)}


def two_colours() -> Path:
    """A folder with train/CLASS/*.png and test/CLASS/*.png; a real one would be downloaded here, once."""
    folder = Path(platformdirs.user_cache_dir("promptsearch-example")) / "two-colours"
    if not (folder / "ready").exists():
        for split, n in (("train", 12), ("test", 6)):
            for name, (r, g, b) in COLOURS.items():
                home = folder / split / name
                home.mkdir(parents=True, exist_ok=True)
                for i in range(n):
                    Image.new("RGB", (32, 32), (r + 4 * i, g + 2 * i, b + 3 * i)).save(home / f"{i}.png")
        (folder / "ready").touch()
    return folder
