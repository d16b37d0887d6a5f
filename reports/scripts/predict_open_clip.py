"""Label pictures with the class weights in this folder: python predict.py PICTURE|FOLDER... > labels.csv.

Needs open_clip_torch and Pillow, and no promptsearch.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "classifier.json").read_text("utf-8"))


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


def load(device: str = "cpu") -> tuple[Any, Any, torch.Tensor]:
    """Return the model, its preprocessing of a PIL picture, and the class weights (D, C)."""
    arguments = dict(CONFIG["open_clip"])
    if arguments["model_name"] == "local-dir:.":
        arguments["model_name"] = f"local-dir:{HERE}"
    model = open_clip.create_model(**arguments).eval().to(device)
    preprocess = image_transform_v2(PreprocessCfg(**CONFIG["preprocess"]), is_train=False)
    return model, preprocess, load_file(HERE / "classifier.safetensors", device)["classifier"]


@torch.inference_mode()
def probabilities(pictures: list[Image.Image], model: Any, preprocess: Any, classifier: torch.Tensor) -> torch.Tensor:
    """Return the probability (N, C) of each class for PIL pictures."""
    pixels = torch.stack([preprocess(p) for p in pictures]).to(classifier.device)  # (N, 3, H, W)
    cosines = model.encode_image(pixels, normalize=True) @ classifier  # (N, C)
    return (CONFIG["logit_scale"] * cosines.double()).softmax(dim=-1).cpu()


def main() -> None:
    """Print the label and the probability of each picture as CSV."""
    parser = argparse.ArgumentParser(description="Label pictures with the class weights in this folder.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE|FOLDER")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    found = [sorted(f for f in p.rglob("*") if f.is_file()) if p.is_dir() else [p] for p in args.pictures]
    paths = [path for folder in found for path in folder]
    loaded = load(args.device)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["path", "label", "probability", "error"])
    for at in range(0, len(paths), args.batch):
        pictures, errors = [], {}
        for path in paths[at : at + args.batch]:
            try:
                pictures.append(open_picture(path))
            except Exception as error:  # Pillow's decoders raise many types of errors
                errors[path] = " ".join(str(error).split())
        rows: Iterator[Any] = iter(probabilities(pictures, *loaded) if pictures else [])
        for path in paths[at : at + args.batch]:
            if path in errors:
                out.writerow([path, "", "", errors[path]])
                continue
            probability, index = next(rows).max(dim=0)
            out.writerow([path, CONFIG["class_names"][index], f"{probability:.4f}", ""])


if __name__ == "__main__":
    main()
