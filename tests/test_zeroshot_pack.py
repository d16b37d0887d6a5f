"""The feature packs of the embedded model are made from pictures, and its benchmark says what they give."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, Encoder, Problem, open_problem, resolve_model
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import PackFeatures, import_pack
from promptsearch.models.zeroshot import pack

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"dog": (150, 110, 60), "house": (90, 120, 200), "guitar": (60, 90, 120)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in the form of the ones that the packs are made from: 5 training and 4 test pictures a class."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for data in ("cifar10", "pacs/sketch"):
        for split, n in (("train", 5), ("test", 4)):
            for name, colour in COLOURS.items():
                folder = root / data / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    pixels = np.clip(rng.normal(colour, 50, (40, 32, 3)), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def test_packs_hold_what_the_model_sees(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "TRAIN_PER_CLASS", 3)
    args = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--pack", "pacs-sketch", "--pack", "cifar10-dark"]
    made = CliRunner().invoke(pack.main, args, catch_exceptions=False)
    assert [line.split(":")[0] for line in made.stdout.splitlines()] == ["pacs-sketch"] * 2 + ["cifar10-dark"] * 2
    cache = Cache(tmp_path / "other")
    import_pack(tmp_path / "out", cache)
    spec = resolve_model("zeroshot", cache, device="cpu")
    encoder = Encoder(spec, cache)
    for name, folder in (("pacs-sketch", "pacs/sketch"), ("cifar10-dark", "cifar10")):
        source, data = PackFeatures(spec, name, cache), open_dataset(str(pictures / folder))
        assert source.class_names == ("dog", "guitar", "house") == data.class_names
        for split, each in (("train", 3), ("test", 4)):
            labels, indices = source.labels(split)
            assert np.bincount(labels).tolist() == [each] * 3
            np.testing.assert_array_equal(labels, data.labels(split)[indices])
            shown = list(data.stored(split, indices.tolist(), "dark" if name == "cifar10-dark" else None))
            fresh = encoder.encode_pictures(shown)
            np.testing.assert_allclose(source.features(split, np.arange(len(labels))), fresh, atol=1e-3)  # float16
    again = pack.some_of_each(np.array([1, 0, 1, 0, 1, 0]), 2)
    assert again.tolist() == sorted(again.tolist()) and len(again) == 4
    np.testing.assert_array_equal(again, pack.some_of_each(np.array([1, 0, 1, 0, 1, 0]), 2))


def test_the_benchmark_gives_the_packs_figures_and_open_clips(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("zeroshot")
    args = ["--dataset", "pacs-sketch", "--pictures", str(pictures)]
    shown = CliRunner().invoke(benchmark.main, args, catch_exceptions=False).stdout.splitlines()
    task = (problem := open_problem("zeroshot", "pacs-sketch")).task(1, 0)
    evaluator, test = problem.evaluator(task), task.open_test()
    shares = [100 * evaluator.hits(PromptSet.of(w), test).mean() for w in benchmark.WORDINGS]
    assert shown[1].split() == ["pacs-sketch", *(f"{s:.2f}" for s in shares)]
    theirs = [float(s) for s in shown[2].split()[2:]]  # of the made pictures, by open_clip
    task = (problem := open_problem("zeroshot", str(pictures / "pacs" / "sketch"))).task(1, 0)
    evaluator, test = problem.evaluator(task), task.open_test()
    ours = [100 * evaluator.hits(PromptSet.of(w), test).mean() for w in benchmark.WORDINGS]
    assert theirs == pytest.approx(ours, abs=0.01) and max(theirs) > 20
    assert shown[3].startswith("  dog ") and len(shown) == 4


def test_a_data_set_without_a_pack_and_without_pictures_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--dataset pacs-cartoon: no such folder, and neither cifar10") as told:
        open_problem("zeroshot", "pacs-cartoon", cache=Cache(tmp_path))
    assert len(str(told.value).splitlines()) == 1
    assert isinstance(open_problem("zeroshot", "pacs-art"), Problem)


def test_what_the_captions_held_of_the_banks_is_what_the_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("caption_templates")
    card = (ROOT / "models" / "zeroshot" / "README.md").read_text("utf-8")
    for bank, told in (("templates", "{} of the {} templates"), ("openai-cifar", "{} of the {} of `openai-cifar`")):
        left, total = benchmark.unseen(bank)
        assert told.format(total - len(left), total) in " ".join(card.split())
        assert "a photo of a {}." not in map(str, left)
