"""Pictures prepared ahead, by threads or processes, are open_clip's, in order; faults are one line."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torchvision.transforms import Compose, Lambda, Normalize, ToTensor

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators import Cache, Encoder, open_problem, resolve_model
from promptsearch.evaluators.data.encoded_picture import StoredPicture
from promptsearch.evaluators.encoding import picture_loader
from promptsearch.evaluators.encoding.picture_loader import Preprocessing, by_processes, by_threads, processes_for


def encoded(n: int, side: int = 40, form: str = "JPEG") -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        buffer = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((side + i % 7, side + i % 3)).save(buffer, form)
        found.append(buffer.getvalue())
    return found


def stored(n: int) -> list[StoredPicture]:
    return [StoredPicture(b, None, f"picture {i}") for i, b in enumerate(encoded(n))]


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [24, 56, (32, 48)])
def test_both_halves_are_the_whole_transform_to_the_bit(mode: str, size: Any) -> None:
    transform = open_clip.image_transform(size, is_train=False, resize_mode=mode)
    halves = Preprocessing(transform)
    assert halves.splits
    for picture in stored(9):
        pixels = halves.pixels(picture)
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        found = halves.normalised(torch.from_numpy(pixels)[None])
        assert torch.equal(found[0], transform(picture.open()))


@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="torch resizes slowly here")
@pytest.mark.parametrize(("mode", "size"), [("shortest", 24), ("shortest", 56), ("squash", (32, 48))])
def test_quick_pixels_are_pillows_within_two_of_255(mode: str, size: Any) -> None:
    transform = open_clip.image_transform(size, is_train=False, resize_mode=mode)
    exact, quick = Preprocessing(transform), Preprocessing(transform, quick=True)
    assert quick.quick
    differ = []
    for picture in stored(9):
        expected, found = exact.pixels(picture).astype(int), quick.pixels(picture).astype(int)
        assert found.shape == expected.shape
        differ.append(np.abs(found - expected))
        assert differ[-1].max() <= 2
    assert np.mean(np.concatenate([d.ravel() for d in differ])) < 0.2


def test_other_ways_of_resizing_are_left_to_pillow() -> None:
    for transform in (
        open_clip.image_transform(24, is_train=False, resize_mode="longest"),
        open_clip.image_transform(24, is_train=False, interpolation="bilinear"),
        Compose([Lambda(lambda x: x), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]),
    ):
        halves = Preprocessing(transform, quick=True)
        assert not halves.quick
        picture = stored(1)[0]
        x = torch.from_numpy(halves.pixels(picture))[None]
        assert torch.equal(halves.normalised(x)[0], transform(picture.open()))


def test_a_transform_that_does_not_split_is_left_whole() -> None:
    transform = Compose([ToTensor(), Lambda(lambda x: x[:, :8, :8])])
    halves = Preprocessing(transform)
    picture = stored(1)[0]
    x = torch.from_numpy(halves.pixels(picture))[None]
    assert not halves.splits and torch.equal(halves.normalised(x)[0], transform(picture.open()))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_and_threads_give_the_same_in_order(workers: int) -> None:
    halves = Preprocessing(open_clip.image_transform(24, is_train=False))
    blocks = [stored(21), [], stored(5), stored(8)]
    expected = [torch.cat(list(by_threads(block, halves, 8, workers))) for block in blocks if block]
    found = list(by_processes(blocks, halves, 8, workers, pinned=False))
    assert [len(x) for x in found] == [8, 8, 5, 5, 8]  # a chunk is of one block
    assert torch.equal(torch.cat(found), torch.cat(expected))


def test_a_picture_that_cannot_be_decoded_is_one_line() -> None:
    halves = Preprocessing(open_clip.image_transform(24, is_train=False))
    block = stored(20)
    block[13] = StoredPicture(b"no picture", None, "picture 13")
    with pytest.raises(PromptSearchError, match="^picture 13 cannot be decoded") as e:
        list(by_processes([block], halves, 8, 2, pinned=False))
    assert "\n" not in str(e.value)


class Deadly(StoredPicture):
    def open(self) -> Image.Image:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_process_that_is_killed_is_said() -> None:
    halves = Preprocessing(open_clip.image_transform(24, is_train=False))
    with pytest.raises(PromptSearchError, match="a process that decodes pictures was killed.*--encode-batch"):
        list(by_processes([[*stored(9), Deadly(b"", None, "x")]], halves, 4, 2, pinned=False))


def test_processes_are_started_for_many_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_loader, "available_cores", lambda: 16)
    assert processes_for(100, 64, 150_528) == 0
    assert processes_for(10_000, 64, 150_528) == 16
    assert processes_for(600, 64, 150_528) == 4
    monkeypatch.setattr(picture_loader.shutil, "disk_usage", lambda _: Free(64 << 20))
    assert processes_for(10_000, 64, 150_528) == 0  # a container's 64 MB of shared memory
    monkeypatch.setattr(picture_loader.shutil, "disk_usage", lambda _: Free(1 << 40))
    monkeypatch.setattr(picture_loader, "available_cores", lambda: 1)
    assert processes_for(10_000, 64, 150_528) == 0


class Free:
    def __init__(self, free: int) -> None:
        self.free = free


def test_features_of_many_pictures_are_those_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set's features, from processes and from threads; progress counts up to their number."""
    folder = tmp_path / "data"
    folder.mkdir()
    columns = Features({"picture": ImageFeature(), "kind": ClassLabel(names=["a", "b"])})
    for split, n in (("train", 4), ("test", 83)):
        rows = {"picture": [{"bytes": b, "path": None} for b in encoded(n)], "kind": [i % 2 for i in range(n)]}
        Dataset.from_dict(rows, features=columns).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    told: list[int] = []
    found = []
    for workers in (0, 2):
        started = []
        decide = lambda *_, n=workers, s=started: s.append(n) or n  # noqa: E731
        monkeypatch.setattr("promptsearch.evaluators.encoding.picture_encoder.processes_for", decide)
        problem = open_problem(
            "tiny",
            str(folder),
            device="cpu",
            cache=Cache(tmp_path / str(workers)),
            progress=lambda done, total, what: told.append(done),
        )
        found.append(problem.source.features("test", np.arange(83)))
        assert started == [workers] and max(told) == 83
        told.clear()
    np.testing.assert_array_equal(found[0], found[1])


def test_a_vector_that_is_not_finite_names_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptsearch.evaluators.encoding.picture_encoder.processes_for", lambda *_: 2)
    cache = Cache(tmp_path)
    encoder = Encoder(resolve_model("tiny", cache, device="cpu"), cache)
    own = encoder.model.visual.forward
    encoder.picture_encoder._fused = None

    def spoilt(x: torch.Tensor) -> torch.Tensor:
        out = own(x)
        out[3 % len(out)] = float("nan")
        return out

    encoder.model.encode_image = spoilt
    with pytest.raises(PromptSearchError, match="not finite for picture 3; check"):
        dict(encoder.encode_blocks([stored(20)]))
