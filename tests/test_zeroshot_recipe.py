"""The scripts that made the zero-shot model run from WordNet and parquet files to weights that open_clip loads."""

from __future__ import annotations

import itertools
import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from promptsearch.evaluators import Cache, Encoder, resolve_model
from promptsearch.models.zeroshot import phrases, train
from promptsearch.models.zeroshot.captions import CONDITIONS, caption, fill
from promptsearch.models.zeroshot.concepts import Concept, WordNet, find_concepts
from promptsearch.models.zeroshot.lessons import read_lessons, tokenize
from promptsearch.models.zeroshot.pictures import apply_condition, augment

#: A few nouns of WordNet 3.0 in its own format, their kinds cut short at "animal" and "vehicle".
NOUNS = """\
00015388 03 n 02 animal 0 beast 0 000 | a living organism characterized by voluntary movement
01861778 05 n 01 mammal 0 001 @ 00015388 n 0000 | any warm-blooded vertebrate having the skin more or less hairy
02121620 05 n 02 cat 0 true_cat 0 001 @ 01861778 n 0000 | feline mammal usually having thick soft fur; "a cat sat"
02084071 05 n 02 dog 0 domestic_dog 0 001 @ 01861778 n 0000 | a member of the genus Canis
02374451 05 n 02 horse 0 Equus_caballus 0 001 @ 01861778 n 0000 | solid-hoofed herbivorous quadruped
04524313 06 n 01 vehicle 0 000 | a conveyance that transports people or objects
04490091 06 n 02 truck 0 motortruck 0 001 @ 04524313 n 0000 | an automotive vehicle suitable for hauling
10661002 18 n 01 dog 2 000 | a dull unattractive unpleasant person
07204240 10 n 01 talk 0 000 | idle gossip or rumor
"""
SENSES = {
    "animal": "00015388",
    "beast": "00015388",
    "mammal": "01861778",
    "cat": "02121620",
    "true_cat": "02121620",
    "dog": "10661002 02084071",
    "horse": "02374451",
    "vehicle": "04524313",
    "truck": "04490091",
    "talk": "07204240",
}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    licence = "  1 This software and database is being provided to you\n"
    (folder / "data.noun").write_text(licence + NOUNS)
    rows = [f"{word} n {len(at.split())} 1 @ {len(at.split())} 0 {at}" for word, at in SENSES.items()]
    (folder / "index.noun").write_text(licence + "\n".join(rows) + "\n")
    (folder / "cntlist.rev").write_text("horse%1:05:00:: 1 110\ntalk%2:32:00:: 1 90\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three data sets of random pictures: two of TinyImageNet's name, one of another class."""
    rng = np.random.default_rng(0)
    for dataset, names, count in (("tiny_imagenet", ["tabby cat", "dog"], 200), ("natural8", ["truck"], 20)):
        cells = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
        features = Features({"img": ImageFeature(), "label": ClassLabel(names=names)})
        rows = {"img": cells, "label": [i % len(names) for i in range(count)]}
        (tmp_path / "data" / dataset).mkdir(parents=True)
        file = tmp_path / "data" / dataset / "train-00000-of-00001.parquet"
        Dataset.from_dict(rows, features=features).to_parquet(file)
    return tmp_path / "data"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A sentence encoder of the real architecture with random weights."""
    folder = tmp_path / "encoder"
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz.,:"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=64).save_pretrained(folder)
    shape = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def lessons(wordnet: Path, data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(phrases, "CAPTIONS", 150)
    out = tmp_path / "lessons.npz"
    arguments = ["--data", str(data), "--encoder", str(encoder), "--wordnet", str(wordnet), "--out", str(out)]
    result = CliRunner().invoke(phrases.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the real architecture in small."""
    config = json.loads((train.HERE / train.CONFIG).read_text())
    config["model_cfg"]["vision_cfg"] |= {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    (tmp_path / train.CONFIG).write_text(json.dumps(config))
    monkeypatch.setattr(train, "HERE", tmp_path)
    monkeypatch.setattr(train.os, "cpu_count", lambda: 1)


def run_training(data: Path, lessons: Path, out: Path, *options: str) -> str:
    arguments = ["--data", str(data), "--lessons", str(lessons), "--out", str(out), "--batch", "16", "--device", "cpu"]
    result = CliRunner().invoke(train.main, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_kinds_and_names_come_from_wordnet(wordnet: Path) -> None:
    nouns = WordNet(wordnet)
    known = find_concepts([("natural8", "dog"), ("natural8", "truck"), ("other", "no such thing")], nouns)
    dog, truck, unknown = (known.concepts[k] for k in known.own)
    assert dog == Concept(("dog", "domestic dog"), "a member of the genus Canis", ("mammal", "animal"))
    assert truck.names == ("truck", "motortruck") and truck.kinds == ("vehicle",)
    assert unknown == Concept(("no such thing",), "", ())
    assert [known.concepts[k].names[0] for k in known.kinds[0]] == ["mammal", "animal"]
    assert phrases.with_kinds("horse", nouns) == "horse, mammal, animal" and phrases.with_kinds("talk", nouns) == "talk"


def test_lessons_hold_every_name_and_unit_vectors(lessons: Path) -> None:
    made = read_lessons(lessons)
    called = {name for concept in made.concepts for name in concept.names}
    assert set(made.phrases[: made.names]) == called >= {"dog", "truck", "mammal", "vehicle"}
    assert "horse" in made.phrases and len(set(made.phrases)) == len(made.phrases) == len(made.vectors)
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    dog = made.classes.index(("tiny_imagenet", "dog"))
    assert {made.concepts[k].names[0] for k in made.kinds(dog)} == {"mammal", "animal"}


def test_captions_name_the_class_early_and_late() -> None:
    """A learnt context of 16 vectors puts the class name at position 17: captions must reach it."""
    rng = np.random.default_rng(0)
    concept = Concept(("zebra",), "a striped animal", ("mammal",))
    texts = [caption(concept, c, rng) for c in CONDITIONS for _ in range(200)]
    assert all("zebra" in text for text in texts)
    (name,) = tokenize(["zebra"], 32, 1)[:, 1]
    places = np.concatenate([np.flatnonzero(row == name)[:1] for row in tokenize(texts, 32, 1)])
    assert (places == 1).any() and (places >= 17).mean() > 0.05
    assert fill("a photo of a {}.", "apple") == "a photo of an apple."


def test_every_condition_keeps_pictures_pictures_and_repeats_with_its_generators() -> None:
    x = torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    for condition in CONDITIONS:
        seen = []
        for _ in range(2):
            gen = torch.Generator().manual_seed(1)
            y = apply_condition(condition, augment(x, gen), np.random.default_rng(1), gen)
            assert y.shape == x.shape and float(y.min()) >= 0 and float(y.max()) <= 1
            seen.append(y)
        torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    with pytest.raises(ValueError, match="no such condition: foggy"):
        apply_condition("foggy", x, np.random.default_rng(1), torch.Generator())


def test_preparation_is_bicubic_resizing() -> None:
    config = json.loads((train.HERE / train.CONFIG).read_text())
    side = config["model_cfg"]["vision_cfg"]["image_size"]
    x = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(config["preprocess_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    wanted = torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(train.Preparation(config, x.device)(x), (wanted - mean) / std, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("small")
def test_a_stopped_training_ends_with_the_same_weights(data: Path, lessons: Path, tmp_path: Path) -> None:
    run_training(data, lessons, tmp_path / "whole", "--steps", "6")
    run_training(data, lessons, tmp_path / "parts", "--steps", "3")
    assert "going on at step 3" in run_training(data, lessons, tmp_path / "parts", "--steps", "6")
    whole, parts = (load_file(tmp_path / name / train.WEIGHTS) for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    rows = [json.loads(line) for line in (tmp_path / "parts" / train.LOG).read_text().splitlines()]
    assert rows[-1]["step"] == 6 and "plain: a photo of a {}." in rows[-1]
    (tmp_path / "whole" / train.CONFIG).write_bytes((train.HERE / train.CONFIG).read_bytes())
    cache = Cache(tmp_path / "cache")
    encoder = Encoder(resolve_model(f"local-dir:{tmp_path / 'whole'}", cache), cache)
    vectors = encoder.encode_texts(["a photo of a cat."])
    assert vectors.shape == (1, 96) and np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("small")
def test_the_loss_falls(data: Path, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOG_EVERY", 5)
    monkeypatch.setattr(train, "Settings", partial(train.Settings, warm_up=5))
    run_training(data, lessons, tmp_path / "out", "--steps", "40")
    rows = [json.loads(line) for line in (tmp_path / "out" / train.LOG).read_text().splitlines()][:-1]
    assert rows[-1]["taught"] < rows[0]["taught"] and rows[-1]["of"] == 40


@pytest.mark.usefixtures("small")
def test_seconds_are_turned_into_steps(
    data: Path, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.Schedule, "MEASURE", (2, 4))
    clock = itertools.count()  # half a second passes whenever it is read: twice a step, and once more where it is timed
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(clock) / 2))
    shown = run_training(data, lessons, tmp_path / "out", "--seconds", "20")
    steps = re.search(r"1250\.0 ms a step, (\d+) steps in all", shown)
    assert steps is not None and 12 <= int(steps[1]) <= 16, shown  # 20 s, of which 97 % are used
    assert json.loads((tmp_path / "out" / train.LOG).read_text().splitlines()[-1])["step"] == int(steps[1])


@pytest.mark.usefixtures("small")
def test_mistakes_are_one_line(data: Path, lessons: Path, tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(train.main, list(arguments))
        assert result.exit_code == 2, result.output
        return result.stderr

    known = ["--data", str(data), "--lessons", str(lessons), "--out", str(tmp_path / "out")]
    assert "--steps or --seconds" in fails(*known)
    assert "no */train-*.parquet" in fails("--data", str(tmp_path / "wordnet"), *known[2:], "--steps", "1")
    assert "not the file that" in fails(*known[:2], "--lessons", str(data / "natural8"), "--steps", "1")
    run_training(data, lessons, tmp_path / "out", "--steps", "1")
    assert "with another seed" in fails(*known, "--steps", "1", "--batch", "16", "--device", "cpu", "--seed", "5")
    (data / "natural8" / "train-00000-of-00001.parquet").unlink()
    assert "made for other data sets" in fails(*known, "--steps", "1")
    result = CliRunner().invoke(phrases.main, ["--data", str(data), "--encoder", str(data), "--wordnet", str(data)])
    assert result.exit_code == 2 and "wordnet-base" in result.stderr
