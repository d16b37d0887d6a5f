"""The scripts that made `tiny` and its pack run from the hub's parquet files to weights that open_clip loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from promptsearch.evaluators import Cache, Encoder, resolve_model
from promptsearch.models.tiny import train

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = list(range(10)) * 4
    cells = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in labels]
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=NAMES)})
    made = Dataset.from_dict({"img": cells, "label": labels}, features=features)
    made.to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def test_one_command_trains_weights_that_load(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "HELD_OUT_PER_CLASS", 1)
    monkeypatch.setattr(train, "BATCH", 10)
    monkeypatch.setattr(train, "PHASES", (train.Phase(1, 1e-3, 0.7, 0.3, 0), train.Phase(1, 1e-3, 0.7, 0.5, 1)))
    out = tmp_path / "out"
    out.mkdir()
    result = CliRunner().invoke(train.main, ["--data", str(pictures), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(np.isfinite(r["loss"]) for r in rows)
    (out / "open_clip_config.json").write_bytes((train.HERE / "open_clip_config.json").read_bytes())
    cache = Cache(tmp_path / "cache")
    vectors = Encoder(resolve_model(f"local-dir:{out}", cache), cache).encode_texts(["a photo of a cat."])
    assert vectors.shape == (1, 64) and np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)


def test_held_out_pictures_are_those_of_the_pack() -> None:
    """300 of each class, always the same ones, and the shipped pack has no others to draw shots from."""
    from promptsearch.evaluators import open_problem

    labels = np.arange(50_000) % 10
    chosen = train.held_out(labels)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [300] * 10)
    np.testing.assert_array_equal(chosen, train.held_out(labels))
    drawn, indices = open_problem("tiny", "cifar10").source.labels("train")
    np.testing.assert_array_equal(np.bincount(drawn), [300] * 10)
    assert len(set(indices.tolist())) == 3000


def test_a_folder_without_pictures_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(train.main, ["--data", str(tmp_path)])
    assert result.exit_code == 2 and "parquet" in result.stderr
