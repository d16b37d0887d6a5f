"""Pictures that tests draw: circles, squares and triangles, no two of which are nearly the same.

`python tests/drawn.py FOLDER` writes them in every layout of own data, as docs/own-data.md uses them.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")


def shape(name: str, seed: int, size: int = 48) -> Image.Image:
    """A shape of random place, size and colours on stripes of random width."""
    rng = np.random.default_rng([SHAPES.index(name), seed])
    picture = Image.new("RGB", (size, size), tuple(rng.integers(120, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):  # strokes, so that no two pictures agree outside the shape
        ends = rng.integers(0, size, 4).tolist()
        pen.line(ends, fill=tuple(rng.integers(0, 256, 3).tolist()), width=3)
    r = int(rng.integers(size // 6, size // 3))
    x, y = (int(v) for v in rng.integers(r, size - r, 2))
    fill = tuple(rng.integers(0, 120, 3).tolist())
    if name == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif name == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: int) -> bytes:
    """The bytes of a picture's file."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def class_folders(root: Path, each: int, first: int = 0, names: tuple[str, ...] = SHAPES) -> Path:
    """Write `each` pictures of every shape to root/SHAPE/NUMBER.png."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + each):
            shape(name, i).save(root / name / f"{i}.png")
    return root


def listed(drawn: Path, **columns: Callable[[Path], str]) -> list[dict[str, str]]:
    """A row for each picture."""
    files = sorted(drawn.rglob("*.png"))
    return [{name: value(file) for name, value in columns.items()} for file in files]


def write_csv(file: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with file.open("w", newline="", encoding=encoding) as f:
        writer = csv.DictWriter(f, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file


def as_folders(drawn: Path, root: Path) -> Path:
    return shutil.copytree(drawn, root / "pictures")


def as_train_only(drawn: Path, root: Path) -> Path:
    shutil.copytree(drawn, root / "data" / "train")
    return root / "data"


def as_csv(drawn: Path, root: Path) -> Path:
    shutil.copytree(drawn, root / "images")
    rows = listed(drawn, path=lambda f: f"{f.parent.name}/{f.name}", label=lambda f: f.parent.name)
    return write_csv(root / "labels.csv", rows)


def as_jsonl(drawn: Path, root: Path) -> Path:
    rows = listed(drawn, file_name=str, category=lambda f: f.parent.name)
    (root / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "list.jsonl"


def as_coop(drawn: Path, root: Path) -> Path:
    shutil.copytree(drawn, root / "shapes" / "images")
    rows = [[f"{f.parent.name}/{f.name}", SHAPES.index(f.parent.name), f.parent.name] for f in drawn.rglob("*.png")]
    number = {row[0]: int(Path(str(row[0])).stem) for row in rows}
    last = max(number.values())
    lists = {
        "train": [r for r in rows if number[r[0]] < last - 2],
        "val": [r for r in rows if number[r[0]] == last - 2],
    }
    lists["test"] = [r for r in rows if number[r[0]] > last - 2]
    (root / "shapes" / "split_zhou_Shapes.json").write_text(json.dumps(lists))
    return root / "shapes"


def as_tars(drawn: Path, root: Path) -> Path:
    import webdataset

    (root / "shards").mkdir()
    files = sorted(drawn.rglob("*.png"))
    for shard in range(2):
        with webdataset.TarWriter(str(root / "shards" / f"part-{shard}.tar")) as writer:
            for i, file in enumerate(files[shard::2]):
                writer.write(
                    {"__key__": f"{shard}{i:04}", "png": file.read_bytes(), "cls": SHAPES.index(file.parent.name)}
                )
    (root / "shards" / "classnames.txt").write_text("\n".join(SHAPES) + "\n")
    return root / "shards"


def as_parquet(drawn: Path, root: Path) -> Path:
    files = sorted(drawn.rglob("*.png"))
    table = {"picture": [f.read_bytes() for f in files], "label": [f.parent.name for f in files]}
    pq.write_table(pa.table(table), root / "pictures.parquet")
    return root / "pictures.parquet"


def as_parquet_of_paths(drawn: Path, root: Path) -> Path:
    shutil.copytree(drawn, root / "images")
    files = sorted(drawn.rglob("*.png"))
    table = {"path": [f"{f.parent.name}/{f.name}" for f in files], "class": [f.parent.name for f in files]}
    pq.write_table(pa.table(table), root / "paths.parquet")
    return root / "paths.parquet"


def write_all(root: Path) -> None:
    """Write the shapes in the six layouts that docs/own-data.md shows, and a folder of new pictures."""
    home = class_folders(root / "shapes", 30)
    (root / "made").mkdir()
    for name, write in (("photos", as_train_only), ("oxford", as_coop), ("shards", as_tars)):
        write(home, root / "made").rename(root / name)
    as_csv(home, root)
    as_parquet(home, root)
    shutil.rmtree(root / "made")
    (root / "new").mkdir()
    for i, name in enumerate(SHAPES * 3):
        shape(name, 100 + i).save(root / "new" / f"{i}.png")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
