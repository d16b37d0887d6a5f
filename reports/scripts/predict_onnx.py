"""Label pictures with the model in this folder: python predict.py PICTURE|FOLDER... > labels.csv.

Needs onnxruntime, NumPy and Pillow; neither promptsearch nor PyTorch.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "classifier.json").read_text("utf-8"))
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def open_picture(path: Path) -> Image.Image:
    """Open a picture upright, as 8-bit RGB on white."""
    with Image.open(path) as opened:
        picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)  # (H, W)
        top = values.max()
        if values.min() < 0 or top > 65535 or 255 < top < 4096 or (picture.mode == "F" and top > 255):
            raise ValueError(f"its values reach {top}, and their full range is not known; save it with 8 bits")
        factor = 255 if picture.mode == "F" and top <= 1 else 1 if top <= 255 else 1 / 257
        picture = Image.fromarray(np.rint(values * factor).astype(np.uint8))
    elif picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite((picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA"))
        picture = ground
    return picture.convert("RGB")


def preprocess(picture: Image.Image) -> np.ndarray:
    """Resize, crop and normalise a picture to (3, H, W), as open_clip does."""
    about = CONFIG["preprocess"]
    size, filter = about["size"], FILTERS[about["interpolation"]]
    height, width = (size, size) if isinstance(size, int) else size
    if about["resize_mode"] == "squash":
        picture = picture.resize((width, height), filter)
    else:  # resize by the shortest side
        short, long = sorted(picture.size)
        longer = int(height * long / short)
        picture = picture.resize((height, longer) if picture.width <= picture.height else (longer, height), filter)
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, np.float32) / 255  # (H, W, 3)
    return ((pixels - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)


def probabilities(pictures: list[Image.Image], session: Any) -> np.ndarray:
    """Return the probability (N, C) of each class for PIL pictures."""
    return session.run(["probabilities"], {"pixels": np.stack([preprocess(p) for p in pictures])})[0]


def load() -> Any:
    """Return the model of this folder: pixels (N, 3, H, W) to probabilities (N, C) and features (N, D)."""
    return onnxruntime.InferenceSession(HERE / "model.onnx", providers=onnxruntime.get_available_providers())


def main() -> None:
    """Print the label and the probability of each picture as CSV."""
    parser = argparse.ArgumentParser(description="Label pictures with the model in this folder.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE|FOLDER")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    found = [sorted(f for f in p.rglob("*") if f.is_file()) if p.is_dir() else [p] for p in args.pictures]
    paths = [path for folder in found for path in folder]
    session = load()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["path", "label", "probability", "error"])
    for at in range(0, len(paths), args.batch):
        pictures, errors = [], {}
        for path in paths[at : at + args.batch]:
            try:
                pictures.append(open_picture(path))
            except Exception as error:  # Pillow's decoders raise many types of errors
                errors[path] = " ".join(str(error).split())
        rows: Iterator[Any] = iter(probabilities(pictures, session) if pictures else [])
        for path in paths[at : at + args.batch]:
            if path in errors:
                out.writerow([path, "", "", errors[path]])
                continue
            row = next(rows)
            out.writerow([path, CONFIG["class_names"][row.argmax()], f"{row.max():.4f}", ""])


if __name__ == "__main__":
    main()
