"""Exports are what the tools they are for read: checked by those tools' own loaders."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_problem import make_problem

from promptsearch import PromptSearch
from promptsearch.banks import PromptSet, load_bank
from promptsearch.cli import main
from promptsearch.config import RunConfig
from promptsearch.errors import InputError
from promptsearch.evaluators.data.encoded_picture import to_rgb
from promptsearch.reports.export import Winner, to_clip_benchmark, to_open_clip, to_python, to_transformers
from promptsearch.runs import RunRecord

TEMPLATES = ["a photo of a {}.", "a sketch of a {}.", "a {} at night.", "an old picture of the {}."]
BEAM = ["beam", "--model", "tiny", "--shots", "2", "--width", "3", "--depth", "3", "--study", "mine", "--quiet"]
BEAM += ["--select", "none", "--no-estimate"]
CONFIG = {"command": "beam", "model": "tiny", "dataset": "made", "shots": 2, "seed": 0, "objective": "xent"}


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def made(tmp_path: Path) -> str:
    """A finished run on a made-up problem."""
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(TEMPLATES))
    make_problem(tmp_path / "cache", TEMPLATES)
    run(*BEAM, "--dataset", "made", "--shots", "16", "--bank", str(bank))
    return "mine"


def winner(study: str = "mine") -> list[str]:
    result = RunRecord.load(study).result
    assert result is not None
    return result["winner"]["templates"]


def test_a_bank_is_a_bank(made: str, tmp_path: Path) -> None:
    out = tmp_path / "best.txt"
    run("export", made, "--to", "bank", "--out", str(out))
    assert [str(t) for t in load_bank(out)] == winner()


def test_clip_benchmark_reads_its_templates_and_builds_the_same_classifier(tmp_path: Path) -> None:
    builder = pytest.importorskip("clip_benchmark.datasets.builder", reason="clip_benchmark is not installed")
    metrics = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    from promptsearch.evaluators import open_problem

    run(*BEAM, "--dataset", "cifar10-dark", "--bank", "simple-imagenet")
    out = tmp_path / "templates.json"
    run("export", "mine", "--to", "clip-benchmark", "--name", "dummy", "--out", str(out))
    read = builder.build_dataset("dummy", root=str(tmp_path), custom_template_file=str(out))
    assert [t.format(c="cat") for t in read.templates] == [t.replace("{}", "cat") for t in winner()]
    assert json.loads(run("export", "mine", "--to", "clip-benchmark").stdout).keys() == {"cifar10"}

    problem = open_problem("tiny", "cifar10-dark", device="cpu")
    evaluator = problem.evaluator(problem.task(2, 0))
    encoder = problem.encoder
    theirs = metrics.zero_shot_classifier(
        encoder.model, encoder.tokenizer, evaluator.task.class_names, read.templates, "cpu", amp=False
    )
    ours = evaluator.class_weights(PromptSet(winner()))
    np.testing.assert_allclose(theirs.numpy().T, ours, atol=2e-5)

    import open_clip
    import torch
    from safetensors import safe_open

    file = tmp_path / "classifier.safetensors"
    run("export", "mine", "--to", "open-clip", "--out", str(file))
    with safe_open(str(file), "pt") as f:
        classifier, meta = f.get_tensor("classifier"), f.metadata()
    assert json.loads(meta["class_names"]) == list(evaluator.task.class_names)
    with torch.inference_mode():
        built = open_clip.build_zero_shot_classifier(
            encoder.model, encoder.tokenizer, evaluator.task.class_names, winner()
        )
    assert classifier.shape == built.shape and float(meta["logit_scale"]) == PromptSearch.load("mine").logit_scale_
    np.testing.assert_allclose(classifier.numpy(), built.numpy(), atol=2e-5)


def test_chosen_class_names_and_agreeing_articles_become_prompts_by_class() -> None:
    names = Winner(PromptSet(["a {}."], class_names=["kitty", "hound"]), ("cat", "dog"), "r", "tiny", "owner/pets")
    assert json.loads(to_clip_benchmark(names)) == {"pets": {"cat": ["a kitty."], "dog": ["a hound."]}}
    article = Winner(PromptSet(["a(n) {}."]), ("owl", "dog"), "r", "tiny", "birds-and-dogs")
    assert json.loads(to_clip_benchmark(article)) == {"birds-and-dogs": {"owl": ["an owl."], "dog": ["a dog."]}}


@pytest.mark.parametrize(
    "prompts",
    [
        PromptSet(["a {}."], class_names=["kitty", "hound"]),
        PromptSet(["a(n) {}."], class_names=["kitty", "hound"]),
        PromptSet(["a {}."], phrases=[{"tabby": 0.5, "cat": 0.5}, ["A dog barks."]]),
    ],
)
def test_scripts_print_the_classes_and_not_what_prompts_call_them(prompts: PromptSet, tmp_path: Path) -> None:
    winner = Winner(prompts, ("cat", "dog"), "mine", "RN50", "pets", logit_scale=20.5)
    scope: dict = {"__name__": "loaded"}
    exec(compile(to_python(winner), "snippet", "exec"), scope)
    assert scope["CLASS_NAMES"] == ["cat", "dog"] and scope["LOGIT_SCALE"] == 20.5
    assert [text for text, _ in scope["PROMPTS"][0]] == [t for t, _ in winner.prompts[0]]
    from safetensors import safe_open

    to_open_clip(winner, np.eye(2), 20.5, tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", "pt") as f:
        assert json.loads(f.metadata()["class_names"]) == ["cat", "dog"]
    if winner.simple:
        exec(compile(to_transformers(winner), "snippet", "exec"), scope)
        assert scope["CANDIDATE_LABELS"] == ["kitty", "hound"] and scope["CLASS_NAMES"] == ["cat", "dog"]


def test_the_python_snippet_opens_pictures_upright_and_on_white(tmp_path: Path) -> None:
    from PIL import Image

    from promptsearch.evaluators.data.encoded_picture import StoredPicture

    scope: dict = {"__name__": "loaded"}
    source = to_python(Winner(PromptSet(["a {}."]), ("cat", "dog"), "mine", "RN50", "pets"))
    exec(compile(source, "snippet", "exec"), scope)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 4), np.uint8)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(tmp_path / "rotated.png", exif=rotated)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    for name, size in (("rotated.png", (6, 9)), ("clear.png", (9, 6))):
        ours = scope["open_picture"](tmp_path / name)
        assert ours.size == size
        np.testing.assert_array_equal(ours, StoredPicture(None, str(tmp_path / name), "picture").open())


def test_phrases_become_prompts_by_class_repeated_by_their_weights() -> None:
    prompts = PromptSet(["a {}.", "the {}."], [3, 1], phrases=[{"tabby": 0.5, "cat": 0.5}, ["A dog barks."]])
    winner = Winner(prompts, ("cat", "dog"), "mine", "RN50", "pets")
    assert json.loads(to_clip_benchmark(winner)) == {
        "pets": {"cat": ["a cat."] * 3 + ["a tabby."] * 3 + ["the cat.", "the tabby."], "dog": ["A dog barks."]}
    }
    scope: dict = {"__name__": "loaded"}
    exec(compile(to_python(winner), "snippet", "exec"), scope)
    assert scope["PROMPTS"][0] == [("a cat.", 0.375), ("a tabby.", 0.375), ("the cat.", 0.125), ("the tabby.", 0.125)]
    assert scope["PROMPTS"][1] == [("A dog barks.", 1.0)]
    with pytest.raises(InputError, match="several phrases"):
        to_transformers(Winner(prompts.remove("the {}."), ("cat", "dog"), "mine", "RN50", "pets"))


def run_script(
    script: Path, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a script prints; in this process, which has torch already."""
    monkeypatch.setattr(sys, "argv", [str(script), *args])
    capsys.readouterr()
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_the_python_snippet_runs_and_says_what_the_evaluator_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from promptsearch.evaluators import open_problem

    run(*BEAM, "--dataset", "cifar10", "--bank", "simple-imagenet")
    script = tmp_path / "classify.py"
    run("export", "mine", "--to", "python", "--out", str(script))
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, n), np.uint8)) for n in (3, 4, 2)]  # some transparent
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    printed = run_script(script, files, monkeypatch, capsys)
    problem = open_problem("tiny", "cifar10", device="cpu")
    evaluator = problem.evaluator(problem.task(2, 0))
    shown = map(to_rgb, pictures)
    cosines = problem.encoder.encode_pictures(shown) @ evaluator.class_weights(PromptSet(winner())).T
    kept = RunRecord.load("mine").result
    assert kept is not None
    logits = kept["calibration"]["logit_scale"] * cosines  # as `predict` has it
    said = [line.split("\t") for line in printed.splitlines()]
    assert [name for _, name, _ in said] == [evaluator.task.class_names[i] for i in logits.argmax(1)]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        [float(p) for _, _, p in said], (shares / shares.sum(1, keepdims=True)).max(1), atol=2e-3
    )


def test_snippets_quote_whatever_a_run_is_called() -> None:
    names = ('"""', "'; import os", "\\", "naïve {x}")
    prompts = PromptSet(["a \"{}\" \\ ''' $x$ <b>."], weights=[0.5])
    source = to_python(Winner(prompts, names, '"""\x1b[31m\n', "NAME:random", "owner/x"))
    scope: dict = {"__name__": "loaded"}
    exec(compile(source, "snippet", "exec"), scope)
    assert scope["CLASS_NAMES"] == list(names) and scope["TEMPLATES"][0][1] == 0.5
    assert scope["PROMPTS"][0] == [('a """"" \\ \'\'\' $x$ <b>.', 0.5)]
    assert "\x1b" not in source


def test_transformers_gets_the_best_single_template(made: str, tmp_path: Path) -> None:
    assert len(winner()) > 1
    done = run("export", made, "--to", "transformers")
    scope: dict = {"__name__": "loaded"}
    exec(compile(done.stdout, "snippet", "exec"), scope)
    singles = {str(s.templates[0]): v.xent for s, v in RunRecord.load(made).trials() if s.size == 1}
    assert scope["HYPOTHESIS_TEMPLATE"] in winner()
    assert singles[scope["HYPOTHESIS_TEMPLATE"]] == min(singles[t] for t in winner() if t in singles)
    assert scope["CANDIDATE_LABELS"] == ["cat", "dog", "ship", "truck"]
    assert "best of" in done.stderr and "few-shot" in done.stderr


def test_the_transformers_snippet_runs_with_a_checkpoint(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small random CLIP of transformers' own classes stands in for a downloaded one."""
    from PIL import Image
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    model = tmp_path / "model"
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = {
        t: i for i, t in enumerate([*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(model)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(model)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(vocabulary), "eos_token_id": len(vocabulary) - 1, "max_position_embeddings": 77}
    vision = {**small, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(model)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")

    script = tmp_path / "classify.py"
    run("export", made, "--to", "transformers", "--out", str(script))
    printed = run_script(script, [str(tmp_path / "red.png"), "--model", str(model)], monkeypatch, capsys)
    assert printed.split("\t")[1] in ("cat", "dog", "ship", "truck")


def test_a_run_that_is_not_finished_gives_the_best_so_far() -> None:
    from promptsearch.evaluators import Score

    record = RunRecord.open("running", None, RunConfig.from_dict(CONFIG), {"classes": ["cat", "dog"]})
    assert "no scored trial" in run("export", "running", "--to", "bank", code=2).stderr
    record.add([(PromptSet.of("a {}."), Score(0.5, 1.0)), (PromptSet.of("the {}."), Score(0.6, 0.9))], 0, 2)
    done = run("export", "running", "--to", "bank")
    assert done.stdout == "the {}.\n" and "not finished" in done.stderr


def test_what_cannot_be_exported_says_why(made: str, tmp_path: Path) -> None:
    assert "choose from" in run("export", made, "--to", "yaml", code=2).stderr
    assert "--out" in run("export", made, "--to", "open-clip", code=2).stderr
    missing = str(tmp_path / "no" / "folder" / "x.txt")
    assert "cannot be written" in run("export", made, "--to", "bank", "--out", missing, code=2).stderr
    assert "no run" in run("export", "other", "--to", "bank", code=2).stderr
    assert "--name" in run("export", made, "--to", "bank", "--name", "x", code=2).stderr

    from promptsearch.evaluators import Score

    weighted = RunRecord.open("weighted", None, RunConfig.from_dict(CONFIG), {"classes": ["cat", "dog"]})
    weighted.add([(PromptSet(["a {}.", "the {}."], [1, 2.0317]), Score(0.5, 1.0))], 0, 1)
    assert "have weights that" in run("export", "weighted", "--to", "clip-benchmark", code=2).stderr
    assert "weights" in run("export", "weighted", "--to", "bank").stderr
    learnt = RunRecord.open(
        "learnt", None, RunConfig.from_dict({**CONFIG, "command": "coop"}), {"classes": ["cat", "dog"]}
    )
    learnt.finish({"command": "coop", "winner": {"templates": ["x {}"], "readable": False}})
    assert "learnt vectors" in run("export", "learnt", "--to", "bank", code=2).stderr
