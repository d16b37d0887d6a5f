"""The gradient baselines from the command line: documents, resuming, saving, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner, Result
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from safetensors.torch import save_file
from tiny_model import TINY

from promptsearch.banks import PromptSet, load_bank
from promptsearch.cli import main
from promptsearch.commands.compare import compare
from promptsearch.commands.coop import coop
from promptsearch.commands.names import names
from promptsearch.commands.pez import pez
from promptsearch.commands.vpt import vpt
from promptsearch.evaluators import Cache, default_cache, open_problem
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import LiveFeatures, PackFeatures, export_pack, import_pack
from promptsearch.lm import LocalModel, locate
from promptsearch.runs.baselines.learners import Prompted, classify_prompted
from promptsearch.runs.compare.cells import Cells
from promptsearch.runs.compare.comparison import Comparison
from promptsearch.runs.compare.methods import all_methods
from promptsearch.search.gradient import Learned

COMMANDS: dict[str, click.Command] = {"coop": coop, "names": names, "pez": pez, "vpt": vpt}
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the embedded one's family, a random ViT, and pictures of three colours."""
    folder = tmp_path_factory.mktemp("gradient")
    (folder / "data").mkdir()
    cfg = json.loads((TINY / "open_clip_config.json").read_text())
    cfg["model_cfg"]["vision_cfg"] |= {"width": 8, "head_width": 32, "image_size": 32}
    vit = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    for name, vision in (("model", cfg["model_cfg"]["vision_cfg"]), ("vit", vit)):
        cfg["model_cfg"]["vision_cfg"] = vision
        (folder / name).mkdir()
        (folder / name / "open_clip_config.json").write_text(json.dumps(cfg))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = open_clip.model.CLIP(**cfg["model_cfg"])
        save_file(model.state_dict(), folder / name / "open_clip_model.safetensors")
    rng = np.random.default_rng(0)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(COLOURS))})
    for split, count in (("train", 8), ("test", 6)):
        pictures, labels = [], []
        for c, colour in enumerate(COLOURS.values()):
            for _ in range(count):
                noise = rng.integers(-40, 40, (32, 32, 3))
                pictures.append(Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)))
                labels.append(c)
        table = Dataset.from_dict({"image": pictures, "label": labels}, features=features)
        table.to_parquet(folder / "data" / f"{split}-0.parquet")
    return folder


def call(here: Path, command: str, *args: str) -> Result:
    problem = ["--model", f"local-dir:{here / 'model'}", "--dataset", str(here / "data"), "--shots", "4", "--json"]
    return CliRunner().invoke(COMMANDS[command], [*problem, "--quiet", *args])


def document(here: Path, command: str, *args: str) -> dict[str, Any]:
    result = call(here, command, *args)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


CASES = {
    "coop": ["--vectors", "2", "--epochs", "3", "--rate", "0.05"],
    "names": ["--epochs", "3"],
    "pez": ["--tokens", "2", "--steps", "5"],
    "vpt": ["--epochs", "3"],
}


@pytest.mark.parametrize("command", CASES)
def test_every_method_prints_the_document_of_all_searches(here: Path, tmp_path: Path, command: str) -> None:
    file = tmp_path / "out.safetensors"
    shown = document(here, command, *CASES[command], "--save", str(file))
    assert shown["command"] == command and shown["shots"] == 4 and shown["test_pictures"] == 18
    assert shown["winner"]["readable"] is False
    assert {"accuracy", "low", "high"} == shown["winner"]["test"].keys() == shown["baselines"][0]["test"].keys()
    assert shown["winner"]["support"].keys() == {"accuracy", "xent"}
    assert shown["paired"]["baseline"] == shown["baselines"][0]["name"] == "hand-written"
    gap = shown["winner"]["test"]["accuracy"] - shown["baselines"][0]["test"]["accuracy"]
    assert shown["paired"]["difference"] == pytest.approx(gap, abs=1e-5)
    assert len(shown["winner"]["templates"]) == 1 and shown["winner"]["templates"][0].count("{}") == 1
    saved = Learned.load(file)
    assert saved.class_weights.shape == (3, 64) and saved.about["command"] == command
    assert document(here, command, *CASES[command]) == shown  # the finished run is shown again
    (listed,) = json.loads(CliRunner().invoke(main, ["runs", "list", "--json"]).stdout)
    assert listed["state"] == "finished" and listed["test"] == shown["winner"]["test"]["accuracy"]
    best = CliRunner().invoke(main, ["runs", "best", listed["study"]])
    if command == "pez":  # text, if for nobody's eyes
        assert best.stdout.splitlines() == shown["winner"]["templates"]
    else:
        assert best.exit_code == 2 and "learnt vectors" in best.stderr
    assert not list(tmp_path.rglob("*.pt"))


def test_decoded_texts_are_scored_as_text(here: Path) -> None:
    shown = document(here, "coop", *CASES["coop"])
    assert [r["name"] for r in shown["decoded"]] == [
        "nearest words (cosine), as text",
        "nearest words (euclidean), as text",
    ]
    problem = open_problem(f"local-dir:{here / 'model'}", str(here / "data"))
    evaluator = problem.evaluator(problem.task(4, 0))
    for row in shown["decoded"]:
        score = evaluator.score([PromptSet.of(*row["templates"])])[0]
        assert row["support"]["xent"] == pytest.approx(score.xent, abs=1e-4)
        assert row["support"]["accuracy"] == pytest.approx(score.accuracy)


def test_decoded_texts_are_rated_by_a_language_model(here: Path) -> None:
    given = [*CASES["coop"], "--fluency-lm", "embedded"]
    shown = document(here, "coop", *given)
    rows = [shown["winner"], *shown["decoded"]]
    assert all(-20 < r["fluency"] < 0 for r in rows)
    likelihood, tokens = (
        LocalModel(locate("embedded")).log_likelihood([rows[1]["templates"][0].replace("{}", n) for n in COLOURS]).T
    )
    assert rows[1]["fluency"] == pytest.approx(float((likelihood / tokens).mean()), abs=1e-3)
    problem = ["--model", f"local-dir:{here / 'model'}", "--dataset", str(here / "data"), "--shots", "4"]
    for command in (["coop", *problem, *given], ["runs", "show", shown["run"]["study"]]):
        printed = CliRunner().invoke(main, command).stdout
        assert f"fluency {rows[1]['fluency']:.2f} nats a token" in printed and printed.count(", as text: ") == 2
    assert shown["run"]["study"] != document(here, "coop", *CASES["coop"])["run"]["study"]


def test_a_comparison_says_what_the_commands_say(here: Path) -> None:
    problem = ["--model", f"local-dir:{here / 'model'}", "--dataset", str(here / "data"), "--seeds", "1"]
    bank = ["--bank", "openai-cifar", "--methods", "coop,coop-sample,vpt,vpt-deep", "--json"]
    result = CliRunner().invoke(compare, [*problem, *bank, "--shots", "1"])
    assert result.exit_code == 0, (result.output, result.exception)
    shown = json.loads(result.stdout)
    assert any("vpt-deep is skipped" in n and "not a ViT" in n for n in shown["notes"])
    cells = {c["method"]: c for c in shown["cells"]}
    for method, args in {
        "coop": ["coop"],
        "coop-sample": ["coop", "--sample", "4", "--bank", "openai-cifar"],
        "vpt": ["vpt"],
    }.items():
        own = document(here, *args, "--shots", "1", "--start", str(cells[method]["start"]))["winner"]
        assert cells[method]["test_accuracy"] == own["test"]["accuracy"], method
        assert cells[method]["support_xent"] == pytest.approx(own["support"]["xent"], abs=1e-6)
        assert cells[method]["templates"] == own["templates"] and cells[method]["readable"] == own["readable"]
    assert cells["coop: nearest words (cosine), as text"]["readable"] is False


def test_a_start_does_not_depend_on_how_a_folder_is_spelled(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(here)
    found = set()
    for given in ("data", "./data", f"../{here.name}/data/", str(here / "data")):
        problems = {given: open_problem(f"local-dir:{here / 'model'}", given)}
        method = all_methods(load_bank("openai-cifar"), {})["coop-4"]
        comparison = Comparison(Cells(None, tmp_path), problems, {"coop-4": method}, (1,), 1)
        ((cell, _),) = comparison.grid()
        found.add((cell.key, comparison._setting(cell).start))
    assert len(found) == 1


def test_a_pack_of_a_folders_features_is_known_by_its_pictures(here: Path, tmp_path: Path) -> None:
    problem = open_problem(f"local-dir:{here / 'model'}", str(here / "data"))
    assert isinstance(problem.source, LiveFeatures)
    export_pack(problem.source, problem.encoder.spec, tmp_path / "pack")
    cache = Cache(tmp_path / "cache")
    import_pack(tmp_path / "pack", cache)
    pack = PackFeatures(problem.encoder.spec, str(here / "data"), cache)
    assert pack.identity == problem.source.identity
    shipped = Cache(tmp_path / "empty", packs=[tmp_path / "cache"])
    assert PackFeatures(problem.encoder.spec, str(here / "data"), shipped).identity == str(here / "data")


def test_tokens_are_learnt_in_a_vit_and_tested_by_a_comparison(here: Path) -> None:
    problem = ["--model", f"local-dir:{here / 'vit'}", "--dataset", str(here / "data"), "--json"]
    own = {}
    for kind, shape in (("shallow", [1, 3, 32]), ("deep", [2, 3, 32])):
        file = here / f"{kind}.safetensors"
        args = ["vpt", *problem, "--shots", "1", "--kind", kind, "--tokens", "3", "--epochs", "2", "--save", str(file)]
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 0, (result.stderr, result.exception)
        own[kind] = json.loads(result.stdout)
        assert list(Learned.load(file).tensors["tokens"].shape) == shape
    assert own["shallow"]["winner"]["support"] != own["deep"]["winner"]["support"]
    args = ["compare", *problem, "--methods", "vpt-shallow,vpt-deep", "--shots", "1", "--seeds", "1"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, (result.stderr, result.exception)
    for cell in json.loads(result.stdout)["cells"]:
        kind = cell["method"].removeprefix("vpt-")
        alone = CliRunner().invoke(
            main, ["vpt", *problem, "--shots", "1", "--kind", kind, "--start", str(cell["start"])]
        )
        winner = json.loads(alone.stdout)["winner"]
        assert cell["test_accuracy"] == winner["test"]["accuracy"], kind
        assert cell["support_xent"] == pytest.approx(winner["support"]["xent"], abs=1e-6)


def test_a_bank_is_sampled_from_and_pulled_to(here: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank.txt"
    lines = ["a photo of a {}.", "a {} thing", "the colour {}", "all {}", "a dark {} picture"]
    bank.write_text("\n".join(lines))
    sampled = document(here, "coop", "--bank", str(bank), "--sample", "2")
    assert sampled["winner"]["readable"] is True
    assert len(sampled["winner"]["templates"]) == 2 and set(sampled["winner"]["templates"]) <= set(lines)
    assert [b["name"] for b in sampled["baselines"]] == ["hand-written", "whole bank averaged"]
    shares = sampled["winner"]["weights"]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0
    problem = open_problem(f"local-dir:{here / 'model'}", str(here / "data"))
    score = problem.evaluator(problem.task(4, 0)).score([PromptSet(sampled["winner"]["templates"], shares)])[0]
    assert sampled["winner"]["support"]["xent"] == pytest.approx(score.xent, abs=1e-5)  # all of it can be used again
    pulled = document(here, "coop", *CASES["coop"], "--bank", str(bank), "--hull", "4", "--kg", "8")
    nearest = pulled["decoded"][-1]
    assert nearest["name"] == "nearest templates" and nearest["readable"] and set(nearest["templates"]) <= set(lines)


def test_class_specific_and_augmented(here: Path) -> None:
    specific = document(here, "coop", *CASES["coop"], "--specific", "--position", "middle")
    assert len(specific["winner"]["templates"]) == 3
    augmented = [document(here, "coop", *CASES["coop"], "--augment", "--study", name) for name in ("a", "b")]
    assert augmented[0]["winner"] == augmented[1]["winner"]
    assert any("cropped" in note for note in augmented[0]["notes"])


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("coop", ["--vectors", "30"], "class 'red' needs 34 positions"),
        ("coop", ["--vectors", "0"], "--vectors 0"),
        ("coop", ["--hull", "1"], "--bank"),
        ("coop", ["--epochs", "0"], "--epochs 0"),
        ("coop", ["--batch", "0"], "--batch 0"),
        ("coop", ["--rate", "nan"], "--rate nan: the learning rate must be positive"),
        ("coop", ["--kg", "-1"], "--kg -1"),
        ("coop", ["--shots", "0"], "--shots 0"),
        ("coop", ["--position", "back"], "--position back"),
        ("coop", ["--init", " "], "the text has no tokens"),
        ("coop", ["--init", "very " * 30], "class 'red' needs 34 positions"),
        ("coop", ["--init", "a photo", "--vectors", "4"], "--vectors would do nothing: --init determines"),
        ("coop", ["--gumbel"], "--sample"),
        ("coop", ["--sample", "2", "--bank", "openai-cifar", "--kg", "8"], "--kg would do nothing: --sample learns no"),
        ("coop", ["--sample", "2", "--bank", "openai-cifar", "--epochs", "8"], "--epochs would do nothing"),
        ("coop", ["--sample", "0", "--bank", "openai-cifar"], "--sample 0: give at least 1"),
        ("coop", ["--sample", "99", "--bank", "openai-cifar"], "--sample 99: the bank has only 18"),
        ("coop", ["--fluency-lm", "./nowhere"], "--fluency-lm ./nowhere: no such folder"),
        ("names", ["--template", "no place"], "no {}"),
        ("names", ["--template", "many {}s"], "put spaces around {}"),
        ("names", ["--vectors", "40"], "class 'red' needs"),
        ("names", ["--vectors", "-1"], "--vectors -1"),
        ("names", ["--rate", "1e38"], "--rate 1e+38"),
        ("pez", ["--tokens", "40"], "class 'red' needs"),
        ("pez", ["--tokens", "0"], "--tokens 0"),
        ("pez", ["--steps", "0"], "--steps 0"),
        ("pez", ["--rate", "-1"], "--rate -1"),
        ("pez", ["--position", "back"], "--position back"),
        ("vpt", ["--border", "17"], "--border 17: this model's pictures are 32×32"),
        ("vpt", ["--border", "0"], "--border 0: the border must be at least 1 pixel"),
        ("vpt", ["--kind", "deep", "--tokens", "-1"], "--tokens -1"),
        ("vpt", ["--tokens", "4"], "--tokens would do nothing"),
        ("vpt", ["--kind", "deep", "--border", "4"], "--border would do nothing"),
        ("vpt", ["--kind", "middle"], "--kind middle"),
        ("vpt", ["--kind", "deep"], "tokens need open_clip"),
        ("vpt", ["--kind", "shallow"], "tokens need open_clip"),
    ],
)
def test_wrong_input_is_told_in_one_line(here: Path, command: str, args: list[str], message: str) -> None:
    assert message in error(here, command, *args, code=2)
    left = CliRunner().invoke(main, ["runs", "list", "--json"]).stdout
    assert json.loads(left or "[]") == []


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("coop", ["--epochs", "4"], "the loss of epoch 2, step 0 is nan"),
        ("coop", ["--epochs", "2"], "the loss after epoch 1, the last one, is nan"),
        ("names", ["--epochs", "3"], "the loss of epoch 2, step 0 is nan"),
        ("vpt", ["--epochs", "2"], "is nan"),
        ("pez", ["--steps", "90"], "the norm of the continuous prompt is"),
    ],
)
def test_what_diverges_is_no_result(here: Path, command: str, args: list[str], message: str) -> None:
    """Also where the last step of all is the first one that is too long."""
    told = error(here, command, "--rate", "1e30", *args, code=1)
    assert "the training diverged" in told and message in told and "smaller" in told
    (kept,) = json.loads(CliRunner().invoke(main, ["runs", "list", "--json"]).stdout)
    assert kept["state"] == "unfinished" and kept["test"] is None


def test_a_class_name_that_leaves_no_room(here: Path, tmp_path: Path) -> None:
    long = " ".join(["very"] * 25) + " red"
    for split in ("train", "test"):
        for name, colour in ((long, (200, 40, 40)), ("green", (40, 200, 40))):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (32, 32), colour).save(tmp_path / "data" / split / name / f"{i}.png")
    for command in ("coop", "names", "pez"):
        told = error(here, command, "--dataset", str(tmp_path / "data"), code=2)
        assert long in told and "the model reads 24" in told  # already the hand-written prompt has too many tokens


def error(here: Path, command: str, *args: str, code: int) -> str:
    """The one line that the real command line says."""
    problem = ["--model", f"local-dir:{here / 'model'}", "--dataset", str(here / "data"), "--shots", "4", "--quiet"]
    result = CliRunner().invoke(main, [command, *problem, *args])
    assert result.exit_code == code and result.stdout == "", (result.output, result.exception)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_feature_pack_has_no_pictures(here: Path, tmp_path: Path) -> None:
    model = f"local-dir:{here / 'model'}"
    problem = open_problem(model, str(here / "data"))
    export_pack(problem.source, problem.encoder.spec, tmp_path / "pack")
    import_pack(tmp_path / "pack", default_cache())
    result = call(here, "vpt")
    assert "feature pack only" in str(result.exception) and "--pictures FOLDER" in str(result.exception)
    assert document(here, "coop", *CASES["coop"])["notes"][0].startswith("Pictures: feature pack")


def test_a_feature_pack_is_given_the_pictures_it_was_made_of(here: Path, tmp_path: Path) -> None:
    data, model = str(here / "data"), f"local-dir:{here / 'model'}"
    live = document(here, "vpt", *CASES["vpt"])
    problem = open_problem(model, data)
    for name in (data, "cifar10-dark"):
        condition = split_condition(name)[1]
        source = LiveFeatures(open_dataset(data), condition, name, problem.encoder, problem.cache)
        export_pack(source, problem.encoder.spec, tmp_path / name.replace("/", "-"))
        import_pack(tmp_path / name.replace("/", "-"), default_cache())
    assert document(here, "vpt", *CASES["vpt"], "--pictures", data)["winner"] == live["winner"]
    both = ["compare", "--model", model, "--dataset", data, "--dataset", "cifar10-dark", "--pictures", data]
    args = [*both, "--methods", "hand-written,vpt", "--shots", "4", "--seeds", "1", "--json"]
    first, again = (CliRunner().invoke(main, args) for _ in range(2))
    assert first.exit_code == 0, (first.output, first.exception)
    cells = {(c["method"], c["dataset"]): c for c in json.loads(first.stdout)["cells"]}
    assert len({c["draw"] for c in cells.values()}) == 1  # vpt learns from the pictures that all others learn from
    assert cells["vpt", data]["support_xent"] != cells["vpt", "cifar10-dark"]["support_xent"]
    assert json.loads(again.stdout)["cells"] == json.loads(first.stdout)["cells"]
    for cell in cells.values():
        assert 0 <= cell["test_ece"] <= 1 and cell["test_metrics"]["calibration"]["ece"] == cell["test_ece"]
    files = [f for f in tmp_path.rglob("*.test") if "learnt" in f.parts]
    assert len(files) == 2  # what the prompts make of the test pictures is computed once
    weights = problem.encoder.encode_texts([f"a photo of a {name}." for name in COLOURS])
    empty = Prompted("border", {"border": np.zeros((3, 32, 32), np.float32)}, weights)
    plain = problem.task(4, 0).open_test()
    found = classify_prompted(problem, [empty, empty], "test", plain.indices)
    assert (
        found.argmax(axis=2) == (plain.features @ weights.T).argmax(axis=1)
    ).all()  # an empty border changes nothing


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["vpt", "--pictures", "there"], "--pictures there would do nothing: "),
        (["coop", "--pictures", "there"], "--pictures would do nothing: the training uses cached features"),
        (["compare", "--seeds", "1", "--pictures", "there"], "--pictures there would do nothing: "),
    ],
)
def test_pictures_that_nobody_needs_are_refused(here: Path, command: list[str], message: str) -> None:
    problem = ["--model", f"local-dir:{here / 'model'}", "--dataset", str(here / "data")]
    result = CliRunner().invoke(main, [*command, *problem])
    assert result.exit_code == 2 and message in result.stderr


def test_pictures_of_another_data_set_are_refused(here: Path) -> None:
    args = ["--model", "tiny", "--dataset", "cifar10", "--pictures", str(here / "data")]
    result = CliRunner().invoke(main, ["vpt", *args])
    assert result.exit_code == 2 and "the feature pack of cifar10 was not made from these pictures" in result.stderr


def test_pictures_that_are_not_there_are_told_by_their_option(tmp_path: Path) -> None:
    args = ["vpt", "--model", "tiny", "--dataset", "cifar10", "--pictures", str(tmp_path / "nowhere")]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2 and f"Error: --pictures {tmp_path / 'nowhere'}: no such folder" in result.stderr
