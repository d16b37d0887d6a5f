"""Every layout of own data decodes pictures, and judges class names, as class folders do."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import drawn
import numpy as np
import pytest
from drawn import as_coop, as_csv, as_folders, as_jsonl, as_parquet, as_parquet_of_paths, as_tars, as_train_only
from PIL import Image

from promptsearch.errors import InputError
from promptsearch.evaluators.data import open_dataset
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.data.loose_pictures import find_pictures

LAYOUTS: dict[str, Callable[[Path, Path], Path]] = {
    "class folders": as_folders,
    "a train folder": as_train_only,
    "csv": as_csv,
    "jsonl": as_jsonl,
    "coop": as_coop,
    "tars": as_tars,
    "parquet": as_parquet,
    "parquet of paths": as_parquet_of_paths,
}
RAMP = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _under_alpha() -> Image.Image:
    pixels = np.full((16, 16, 4), 200, np.uint8)
    pixels[..., 3] = np.where(RAMP < 128, 0, 255)
    return Image.fromarray(pixels)


#: Pictures, and the grey values that they must be read as.
PICTURES = {
    "16-bit": (_png(Image.fromarray(RAMP.astype(np.uint16) * 257)), RAMP),
    "transparency": (_png(_under_alpha()), np.where(RAMP < 128, 255, 200)),
    "palette": (_png(Image.fromarray(RAMP).convert("P")), RAMP),
}


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def _pictures(root: Path, content: bytes, names: tuple[str, ...]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(6):
            (root / name / f"{i}.png").write_bytes(content)
    return root


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_deep_and_transparent_pictures_are_read_alike(layout: str, kind: str, tmp_path: Path) -> None:
    content, values = PICTURES[kind]
    data = open_dataset(str(LAYOUTS[layout](_pictures(tmp_path / "drawn", content, drawn.SHAPES), tmp_path)))
    for picture in data.pictures("train", range(3)):
        assert picture.mode == "RGB" and (np.asarray(picture)[..., 1] == values).all()


@pytest.mark.parametrize("kind", PICTURES)
def test_loose_pictures_are_read_alike(kind: str, tmp_path: Path) -> None:
    content, values = PICTURES[kind]
    (paths, _) = find_pictures([_pictures(tmp_path / "drawn", content, ("cat",))])
    for path in paths:
        assert (np.asarray(StoredPicture(None, path, "a picture").open())[..., 1] == values).all()


@pytest.mark.parametrize(
    "names", [("ice cream", "ice_cream", "x"), ("Cat", "cat", "x"), ("cafe\u0301", "caf\u00e9", "x")], ids=str
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_that_read_alike_are_refused(
    layout: str, names: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "SHAPES", names)  # what layouts with numbers for labels call the classes
    root = LAYOUTS[layout](_pictures(tmp_path / "drawn", PICTURES["palette"][0], names), tmp_path)
    with pytest.raises(InputError) as refused:
        open_dataset(str(root))
    assert "\n" not in str(refused.value) and "read" in str(refused.value)
    shutil.rmtree(tmp_path / "drawn")
