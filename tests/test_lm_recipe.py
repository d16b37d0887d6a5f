"""How the embedded language model is made: its sentences, and the script from nothing to a folder that loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from promptsearch.banks import Template
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.models.lm.sentences import document, draw, edit, say
from promptsearch.models.lm.train import main, rows
from promptsearch.search.proposers import Request
from promptsearch.search.proposers.prompts import LABELS, completion


def test_sentences_are_varied_templates_that_are_the_same_for_the_same_seed() -> None:
    made = [say(draw(rng), rng) for rng in [np.random.default_rng(0)] for _ in range(2000)]
    assert len({Template(t) for t in made}) > 1500
    assert made == [say(draw(rng), rng) for rng in [np.random.default_rng(0)] for _ in range(2000)]
    assert document(np.random.default_rng(1)) == document(np.random.default_rng(1))


@pytest.mark.parametrize("kind", LABELS)
def test_the_texts_learnt_have_the_form_that_models_are_asked_in(kind: str) -> None:
    rng = np.random.default_rng(3)
    made = None
    while made is None:
        made = edit(kind, rng)
    parents, answer = made
    assert answer not in parents and Template(answer)
    assert completion(Request(kind, parents), 0).splitlines()[-1] == f"{LABELS[kind]}:"
    texts = [document(np.random.default_rng(i)) for i in range(200)]
    assert any(f"\n{LABELS[kind]}: " in t for t in texts)


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as before: training takes one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SMALL = ["--layers", "1", "--width", "16", "--vocabulary", "300", "--documents", "50", "--batch", "1", "--steps", "4"]


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, threads: None) -> None:
    def train(name: str, *more: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [*SMALL, "--out", str(tmp_path / name), *more])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    train("whole")
    train("cut", "--stop", "2")
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert "was made with" in train("cut", "--lr", "0.1", code=2).stderr
    train("cut")
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()
    assert {f.name for f in (tmp_path / "cut").iterdir()} == {f.name for f in (tmp_path / "whole").iterdir()}
    log = [json.loads(line) for line in (tmp_path / "cut" / "train_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4] and log[-1]["tokens"] == 4 * 320
    model = LocalModel(locate(str(tmp_path / "cut")))
    lines = model.write_lines(["Caption: a photo of a {}.\nShorter:"] * 2, 0)
    assert all(line.text.count("{}") == 1 for some in lines for line in some) and len(lines) == 2


def test_the_shipped_weights_are_those_of_the_script() -> None:
    folder = locate(EMBEDDED).folder
    defaults = {o.name: o.default for o in main.params}
    last = json.loads((folder / "train_log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["tokens"]) == (defaults["steps"], defaults["steps"] * defaults["batch"] * 320)
    config = json.loads((folder / "config.json").read_text())
    assert (config["n_layer"], config["n_embd"]) == (defaults["layers"], defaults["width"])
    assert config["vocab_size"] <= defaults["vocabulary"]
    assert sum(f.stat().st_size for f in folder.glob("*.*")) < 6e6


def test_rows_have_no_padding_and_begin_with_whole_documents() -> None:
    tokenizer = LocalModel(locate(EMBEDDED))._tokenizer
    made = rows(tokenizer, 7, 5)
    assert made.shape == (5, 320) and (made[:, 0] == tokenizer.eos_token_id).all()
    assert (made == rows(tokenizer, 7, 5)).all() and not (made == rows(tokenizer, 8, 5)).all()
    first = document(np.random.default_rng([2026, 7]))
    assert tokenizer.decode(made[0, 1:]).startswith(first[:200])
